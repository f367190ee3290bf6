"""Generated parts on settings: each command's flags, each section of a recipe."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from enum import EnumMeta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import typer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.models import ArgumentInfo

from rmo.cli import app as rmo
from rmo.recipe import DataSettings, EvalSettings
from rmo_curate.cli import app as curate
from rmo_curate.score.settings import ProxySettings
from rmo_train.cli import app as train
from rmo_train.console.settings import SECTIONS, Settings, flag_of, recipe_places

APPS: dict[str, typer.Typer] = {"rmo-curate": curate, "rmo-train": train, "rmo": rmo}
DEFAULT = re.compile(r"\s*\(default: (.*)\)$", re.S)  # how a description ends whose default is not a value
OF_A_RECIPE: tuple[tuple[type[Settings], str], ...] = (
    (DataSettings, "data"),
    (ProxySettings, "proxy"),
    (EvalSettings, "eval"),
)  # what the runner reads besides the commands' settings


def commands(program: str) -> Iterator[tuple[str, Any]]:
    """(name, function) of a program's commands, in the order of its --help."""
    for info in APPS[program].registered_commands:
        name = info.name or info.callback.__name__.strip("_")
        yield name, info.callback


def cell(text: str) -> str:
    """A text as a cell of a table, with flags as code."""
    parts = " ".join(text.split()).replace("|", r"\|").split("`")
    parts[::2] = [re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", part) for part in parts[::2]]
    return "`".join(parts)


def values_of(annotation: Any) -> str:
    """What a flag takes, in a word, or its choices; "" for a switch."""
    if isinstance(annotation, EnumMeta):
        return ", ".join(f"`{member.value}`" for member in annotation)  # type: ignore[var-annotated]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return values_of(next(a for a in arguments if a is not type(None)))
    if origin is typing.Annotated or origin in (tuple, list):
        return values_of(arguments[0])
    if origin is dict:
        return "NAME=VALUE"
    return {bool: "", int: "integer", float: "number", Path: "path", str: "text"}.get(annotation, "text")


def default_of(field: FieldInfo) -> tuple[str, str]:
    """(default, description without it) of a setting."""
    text = field.description or ""
    if field.is_required():
        return "required", text
    if match := DEFAULT.search(text):
        return match[1], text[: match.start()]
    if field.default in (None, PydanticUndefined, (), {}):
        return "", text
    if isinstance(field.default, bool):
        return "on" if field.default else "off", text
    return f"`{field.default}`", text


def flags_of(function: Any) -> Iterator[list[str]]:
    """(flag, values, default, place in a recipe, meaning) of every flag and argument of a command."""
    cls: type[Settings] | None = getattr(function, "settings", None)
    fields = cls.model_fields if cls else {}
    places = recipe_places(cls, function.section) if cls else {}
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        annotation, info = typing.get_args(parameter.annotation)[:2]
        declared = [d for d in (info.default, *(info.param_decls or ())) if isinstance(d, str) and d.startswith("--")]
        flag = declared[0].replace("/", "`, `") if declared else flag_of(name)
        if isinstance(info, ArgumentInfo):
            flag = info.metavar or name.upper()
        if name in fields:
            annotation = fields[name].annotation
            default, text = default_of(fields[name])
        else:
            given = parameter.default
            text, default = info.help or "", "required" if given is parameter.empty else ""
            if match := DEFAULT.search(text):
                default, text = match[1], text[: match.start()]
            elif given not in (parameter.empty, None):
                default = ("on" if given else "off") if isinstance(given, bool) else f"`{given}`"
        where = ", else ".join(f"`{place}`" for place in places.get(name, ()))
        yield [f"`{flag}`", values_of(annotation), default, where, text]


def command_page(program: str) -> Iterator[str]:
    """A section a command: what it does, its usage, its flags."""
    for name, function in commands(program):
        rows = list(flags_of(function))
        arguments = " ".join(row[0].strip("`") for row in rows if not row[0].startswith("`--"))
        yield f"## {program} {name}"
        yield ""
        yield (inspect.getdoc(function) or "").strip()
        yield ""
        yield "```text"
        yield f"{program} {name} {arguments} [flags]".replace("  ", " ")
        yield "```"
        yield ""
        yield "| flag | takes | default | in a recipe | meaning |"
        yield "|---|---|---|---|---|"
        for row in rows:
            yield "| " + " | ".join(map(cell, row)) + " |"
        yield ""


def recipe_page() -> Iterator[str]:
    """A section a section: its settings, and the flags that stand for them."""
    users: dict[str, list[str]] = {}
    settings: dict[str, tuple[str, FieldInfo]] = {}
    for cls, section in OF_A_RECIPE:
        for name, (place, *_) in recipe_places(cls, section).items():
            settings.setdefault(place, (name, cls.model_fields[name]))
            users.setdefault(place, [])
    for program in ("rmo-curate", "rmo-train"):
        for command, function in commands(program):
            cls, section = getattr(function, "settings", None), getattr(function, "section", None)
            for name, places in recipe_places(cls, section).items() if cls else ():
                argument = (cls.model_fields[name].json_schema_extra or {}).get("argument")
                for i, place in enumerate(places):
                    settings.setdefault(place, (name, cls.model_fields[name]))
                    unless = f" without `{places[0]}`" if i else ""
                    users.setdefault(place, []).append(f"`{argument or flag_of(name)}` of `{command}`{unless}")
    for section in SECTIONS:
        yield f"## The section {section}"
        yield ""
        yield "| setting | takes | default | meaning | on the command line |"
        yield "|---|---|---|---|---|"
        for place, (_, field) in settings.items():
            if place.split(".")[0] != section:
                continue
            default, text = default_of(field)
            own = [place.split(".")[1], values_of(field.annotation), default, text]
            yield "| " + " | ".join(map(cell, [f"`{own[0]}`", *own[1:], "; ".join(users[place])])) + " |"
        yield ""


PARTS: dict[str, Callable[[], Iterable[str]]] = {
    **{f"commands/{program}": partial(command_page, program) for program in APPS},
    "recipe": recipe_page,
}
