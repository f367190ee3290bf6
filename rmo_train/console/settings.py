"""Settings from three places, in order of strength: command-line flags, a recipe's section, the model's defaults.

A component's settings are one frozen pydantic model beside their owner. `flags` turns the model's fields into typer
options, so that name, type, help text and default are written once; `build` merges and validates, and turns a mistake
into a UserError that names the flag.
"""

from __future__ import annotations

import inspect
import time
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticUndefined

from rmo_train.console.errors import FULL, RmoError, Stopped, UserError, cannot_write, nearest
from rmo_train.console.progress import is_first

RECIPE = Path("rmo.yaml")
LAUNCHER_ENDS = 3.0  # seconds; torchrun looks after its processes ten times a second
SECTIONS = ("data", "score", "proxy", "probe", "filter", "train", "eval", "audit")


class Settings(BaseModel):
    """Base of every component's settings: frozen, and no unknown field passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Settings)


def flag_of(field: str) -> str:
    return "--" + field.replace("_", "-")


def build(cls: type[S], section: str, recipe: Mapping[str, Any], given: Mapping[str, Any]) -> S:
    """`cls` from the recipe's section and the flags given (None = not given; an empty list too)."""
    chosen = {k: v for k, v in given.items() if v is not None and v != []}
    known = list(cls.model_fields)
    for key in recipe:
        if key not in known:
            raise UserError(f"recipe section {section!r} has no setting {key!r}{nearest(key, known)}")
    try:
        return cls.model_validate({**recipe, **chosen})
    except ValidationError as e:
        lines = []
        for err in e.errors():
            field = str(err["loc"][0]) if err["loc"] else ""
            where = flag_of(field) if field else section
            if field and section in SECTIONS:
                where += f" (recipe: {section}.{field})"
            message = err["msg"].removeprefix("Value error, ")
            lines.append(
                f"{where}: {message}" + (f", got {err['input']!r}" if field and err["type"] != "missing" else "")
            )
        raise UserError("; ".join(lines)) from e


def read_recipe(path: Path | None) -> dict[str, dict[str, Any]]:
    """The sections of a recipe: `path`, else `rmo.yaml` in the working folder when it is there, else nothing."""
    if path is None:
        if not RECIPE.is_file():
            return {}
        path = RECIPE
    if not path.is_file():
        raise UserError(f"--recipe {path}: no such file")
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
    return recipe


# Fields of a section that say where something is; the commands take them, the settings do not.
PLACES = {
    "score": ("model", "out", "checkpoint"),
    "filter": ("out",),
    "train": ("shards", "model", "out", "eval_data"),
    "audit": ("out",),
}


def without_places(section: str, recipe: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A recipe's section without its places: what its owner validates."""
    return {k: v for k, v in recipe.get(section, {}).items() if k not in PLACES.get(section, ())}


def place(given: Any, recipe: Mapping[str, Mapping[str, Any]], flag: str, *fields: str) -> Any:
    """A place: its flag's value, else the first of the recipe's `fields` ("section.field") that is there."""
    if given is not None:
        return given
    for field in fields:
        section, name = field.split(".")
        if (found := recipe.get(section, {}).get(name)) is not None:
            if not isinstance(found, str) or not found:
                raise UserError(f"recipe: {field} is {found!r}; expected text")
            return found
    raise UserError(f"{flag} is missing: give it on the command line, or `{fields[0]}` in a recipe")


def places(given: list[str] | None, recipe: Mapping[str, Mapping[str, Any]], field: str) -> list[str]:
    """Several places: those given, else the recipe's `field`, which is one or a list; empty when there is none."""
    section, name = field.split(".")
    found = given or recipe.get(section, {}).get(name)
    found = [found] if isinstance(found, str) else found or []
    if not isinstance(found, list) or not all(isinstance(item, str) and item for item in found):
        raise UserError(f"recipe: {field} is {found!r}; expected text or a list of texts")
    return found


def _option_type(annotation: Any) -> Any:
    """The type typer parses for a field: `X | None` is X, a tuple is a repeatable option."""
    arguments = [a for a in typing.get_args(annotation) if a is not type(None)]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return _option_type(arguments[0])
    if typing.get_origin(annotation) in (tuple, list):
        return list[str]
    return annotation


def flags(cls: type[Settings]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: add every field of `cls` to a typer command as an option; the command gets them as `**given`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = []
        for name, field in cls.model_fields.items():
            default = field.default
            shown = "" if default in (None, PydanticUndefined, ()) else f" (default: {default})"
            kind = _option_type(field.annotation)
            names = [f"{flag_of(name)}/--no-{name.replace('_', '-')}"] if kind is bool else [flag_of(name)]
            option = typer.Option(*names, help=(field.description or "") + shown, show_default=False)
            added.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
                )
            )

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return command(*args, **kwargs)

        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        wrapped.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in [*own, *added]}
        return wrapped

    return decorate


RecipeOption = Annotated[Path | None, typer.Option("--recipe", help="Recipe file (default: rmo.yaml when it is there)")]


def run_app(app: typer.Typer) -> None:
    """Run a command line: expected failures print one `error:` and exit with their code, never a traceback."""
    try:
        code = app(standalone_mode=False)
        if code == Stopped.exit_code:  # how typer reports a Ctrl-C
            raise KeyboardInterrupt
        if code:
            raise SystemExit(code)
    except Stopped as e:
        typer.echo(f"\n{e}", err=True)
        raise SystemExit(e.exit_code) from None
    except RmoError as e:
        if not is_first():
            time.sleep(LAUNCHER_ENDS)  # what all processes find, the first one says; the launcher then ends the others
        typer.echo(f"error: {e}", err=True)
        raise SystemExit(e.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("\nstopped; run the same command again to go on from what is finished", err=True)
        raise SystemExit(Stopped.exit_code) from None
    except typer.Abort:
        raise SystemExit(1) from None
    except Exception as e:
        if isinstance(e, OSError) and e.errno in FULL:
            error = cannot_write(Path(e.filename or "."), e)
            typer.echo(f"error: {error}", err=True)
            raise SystemExit(error.exit_code) from None
        if type(e).__module__.startswith(("click", "typer")) and hasattr(e, "show"):
            e.show()
            raise SystemExit(2) from None
        raise
