"""Settings of a command: from its flags, then a recipe's section, then defaults.

The settings of a component are one frozen pydantic model beside it; those of a command add paths. `flags` turns the
fields into typer arguments and options, so that name, type, help text and default are written once. `build` merges and
validates; a mistake becomes a UserError that names the flag and the recipe's field.
"""

from __future__ import annotations

import inspect
import time
import types
import typing
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import EnumMeta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rmo_train.console.errors import OF_THE_MACHINE, RmoError, Stopped, UserError, nearest, of_the_machine
from rmo_train.console.progress import is_first, say
from rmo_train.console.wording import inert

RECIPE = Path("rmo.yaml")
LAUNCHER_ENDS = 3.0  # seconds; torchrun checks its processes ten times a second
SECTIONS = ("data", "score", "proxy", "filter", "train", "eval", "audit")

Sections = Mapping[str, Mapping[str, Any]]  # of a recipe
S = TypeVar("S", bound="Settings")
T = TypeVar("T", bound="Settings")


class Settings(BaseModel):
    """Base of every component's settings: frozen; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def part(self, cls: type[T]) -> T:
        """The fields that belong to `cls`, a base of this class: a command's settings without its paths."""
        own = {name: getattr(self, name) for name in cls.model_fields}
        return typing.cast(T, cls.model_construct(self.model_fields_set & own.keys(), **own))

    def in_force(self) -> AbstractContextManager[None]:
        """What must hold while a command with these settings runs; see `rmo_train.console.trust`."""
        return nullcontext()


def from_recipe(
    *fields: str, description: str, argument: str | None = None, default: Any = ..., ge: float | None = None
) -> Any:
    """A field that a recipe has elsewhere: the first of `fields` ("section.field") that it contains.

    argument: the field is positional on the command line, with this name in messages.
    """
    extra = {"fields": fields, "argument": argument}
    return Field(default, description=description, ge=ge, json_schema_extra=typing.cast(Any, extra))


def _extra(field: FieldInfo, name: str) -> Any:
    extra = field.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None


def flag_of(field: str) -> str:
    return "--" + field.replace("_", "-")


def build(cls: type[S], section: str | None, recipe: Sections, given: Mapping[str, Any]) -> S:
    """`cls` from flags (None or an empty list: not given) and a recipe, in which its section is `section`."""
    sources = recipe_places(cls, section)
    own = recipe.get(section, {}) if section else {}
    known = [name for name, fields in sources.items() if f"{section}.{name}" in fields]
    for key in own:
        if key not in known:
            raise UserError(f"recipe section {section!r} has no setting {key!r}{nearest(key, known)}")
    values = {
        name: value
        for name, fields in sources.items()
        if (value := _first(recipe, fields, given.get(name))) is not None
    }
    for name, field in cls.model_fields.items():
        if name not in values and field.is_required():
            where = f", or `{sources[name][0]}` in a recipe" if sources[name] else ""
            kinds: Any = field.annotation if isinstance(field.annotation, EnumMeta) else ()
            expected = f"; expected {', '.join(kinds)}" if kinds else ""
            raise UserError(f"{_called(name, field)} is missing: give it on the command line{where}{expected}")
        if _is_several(field) and isinstance(values.get(name), str):
            values[name] = [values[name]]
    try:
        return cls.model_validate(values)
    except ValidationError as e:
        raise UserError("; ".join(_mistake(cls, section, sources, err) for err in e.errors())) from e


def recipe_places(cls: type[Settings], section: str | None) -> dict[str, tuple[str, ...]]:
    """The places ("section.field") of each field of `cls` in a recipe, first match wins; its section is `section`."""
    return {name: _sources(name, field, section) for name, field in cls.model_fields.items()}


def _sources(name: str, field: FieldInfo, section: str | None) -> tuple[str, ...]:
    """The places of the field in a recipe ("section.field"), in order."""
    fields: tuple[str, ...] | None = _extra(field, "fields")
    if fields is not None:
        return fields
    return (f"{section}.{name}",) if section in SECTIONS else ()


def _first(recipe: Sections, fields: tuple[str, ...], given: Any) -> Any:
    """The given value, otherwise that of the first of `fields` in the recipe."""
    if given is not None and given != []:
        return given
    split = (field.split(".") for field in fields)
    return next((v for section, name in split if (v := recipe.get(section, {}).get(name)) is not None), None)


def _called(name: str, field: FieldInfo) -> str:
    return _extra(field, "argument") or flag_of(name)


def _mistake(cls: type[Settings], section: str | None, sources: Mapping[str, tuple[str, ...]], err: Any) -> str:
    """A validation error in words: where, what was expected, what was found."""
    name = str(err["loc"][0]) if err["loc"] else ""
    message = err["msg"].removeprefix("Value error, ")
    if name not in sources:
        return f"{section}: {message}" if section else message
    where = _called(name, cls.model_fields[name])
    if sources[name]:
        where += f" (recipe: {sources[name][0]})"
    return f"{where}: {message}, got {err['input']!r}"


def read_recipe(path: Path | None) -> dict[str, dict[str, Any]]:
    """The sections of a recipe, whose path is printed: `path`, otherwise `rmo.yaml` if present."""
    if path is None:
        if not RECIPE.is_file():
            return {}
        path = RECIPE
    if not path.is_file():
        raise UserError(f"recipe {path}: no such file")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not valid YAML: {e}") from e
    if not isinstance(recipe, dict):
        raise UserError(f"{path}: expected a mapping of sections ({', '.join(SECTIONS)})")
    for name, section in recipe.items():
        if name not in SECTIONS:
            raise UserError(
                f"{path}: unknown section {name!r}; the sections are {', '.join(SECTIONS)}"
                f"{nearest(str(name), SECTIONS)}"
            )
        if not isinstance(section, dict):
            raise UserError(f"{path}: section {name!r} must be a mapping of settings")
    say(f"recipe: {path}")
    return recipe


def is_awaited(path: Path, recipe: Sections, field: str) -> bool:
    """Whether `path` does not exist yet and is the recipe's `field` ("section.field"), which another command makes."""
    section, name = field.split(".")
    return not path.exists() and str(path) == recipe.get(section, {}).get(name)


def _is_several(field: FieldInfo) -> bool:
    return typing.get_origin(field.annotation) in (tuple, list)


def _option_type(annotation: Any) -> Any:
    """The type typer parses for a field: `X | None` is X, a tuple is a repeatable option, one of several is a text."""
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return _option_type(arguments[0]) if len(arguments) == 1 else str
    if typing.get_origin(annotation) in (tuple, list, dict):
        return list[str]
    return annotation


def _parameter(name: str, field: FieldInfo) -> Any:
    """The annotation that makes typer parse a field, as an argument or as an option."""
    default = field.default
    value = ("on" if default else "off") if isinstance(default, bool) else default
    shown = "" if default in (None, PydanticUndefined, (), {}) else f" (default: {value})"
    kind, text = _option_type(field.annotation), (field.description or "") + shown
    if metavar := _extra(field, "argument"):
        return Annotated[kind | None, typer.Argument(help=text, metavar=metavar, show_default=False)]
    names = [f"{flag_of(name)}/--no-{name.replace('_', '-')}"] if kind is bool else [flag_of(name)]
    return Annotated[kind | None, typer.Option(*names, help=text, show_default=False)]


def _in_order(cls: type[Settings]) -> list[str]:
    """The fields in the order of `--help`: a command's own (paths) before those of its base."""
    return sorted(cls.model_fields, key=lambda name: name not in cls.__annotations__)


def flags(cls: type[Settings], section: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator of a typer command: every field of `cls` is a flag or an argument; `section` is its recipe section.

    The command receives `settings`, its own flags and, if it has such a parameter, `recipe` (see `read_recipe`).
    """
    with_recipe = any(recipe_places(cls, section).values())

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        taken = inspect.signature(command, eval_str=True).parameters
        given_here = ("settings", "recipe") if with_recipe else ("settings",)
        own = {name: p for name, p in taken.items() if name not in given_here}
        added = {name: _parameter(name, cls.model_fields[name]) for name in _in_order(cls)}
        shown = added | ({"recipe": RecipeOption} if with_recipe else {})

        def wrapped(**given: Any) -> Any:
            recipe = read_recipe(given.get("recipe")) if with_recipe else {}
            settings = build(cls, section, recipe, {name: given[name] for name in added})
            more = {"recipe": recipe} if with_recipe and "recipe" in taken else {}
            with settings.in_force():
                return command(settings, **{name: given[name] for name in own}, **more)

        mine = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values()]
        built = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in shown.items()
        ]
        arguments = [p for p in mine if p.default is p.empty] + built + [p for p in mine if p.default is not p.empty]
        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        wrapped.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in arguments}
        wrapped.settings, wrapped.section = cls, section  # type: ignore[attr-defined]  # for the reference in docs/
        return wrapped

    return decorate


RecipeOption = Annotated[Path | None, typer.Option("--recipe", help="Recipe file (default: rmo.yaml if it exists)")]


def run_app(app: typer.Typer) -> None:
    """Run a command line: expected failures print one `error:` and exit with their code, never a traceback."""
    try:
        code = app(standalone_mode=False)
        if code == Stopped.exit_code:  # how typer reports a Ctrl-C
            raise KeyboardInterrupt
        if code:
            raise SystemExit(code)
    except Stopped as e:
        if is_first():
            typer.echo(f"\n{e}", err=True)
        raise SystemExit(e.exit_code) from None
    except RmoError as e:
        if not is_first():
            time.sleep(LAUNCHER_ENDS)  # the first process says what all of them find; the launcher then ends the others
        typer.echo(f"error: {inert(str(e))}", err=True)
        raise SystemExit(e.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("\nstopped; nothing half-written is left. Run the same command again", err=True)
        raise SystemExit(Stopped.exit_code) from None
    except typer.Abort:
        raise SystemExit(1) from None
    except Exception as e:
        if isinstance(e, OSError) and e.errno in OF_THE_MACHINE:
            error = of_the_machine(e)
            typer.echo(f"error: {error}", err=True)
            raise SystemExit(error.exit_code) from None
        if type(e).__module__.startswith(("click", "typer")) and hasattr(e, "show"):
            e.show()
            raise SystemExit(2) from None
        raise
