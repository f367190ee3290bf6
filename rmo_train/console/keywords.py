"""Settings as keyword arguments of the Python API.

The fields are also the flags of a command (`rmo_train.console.settings`), so both accept and refuse the same values.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from rmo_train.console.errors import RmoError, UserError, nearest
from rmo_train.console.settings import S, Settings, build

F = TypeVar("F", bound=Callable[..., Any])
FLAG = re.compile(r"`[^`]*`|--([a-z][a-z0-9-]*)")  # commands in backticks are left as they are
WIDTH = 116


def takes(cls: type[Settings]) -> Callable[[F], F]:
    """Decorator of a function with `**settings`, which are fields of `cls`: its signature and docstring list them.

    Unknown keywords raise a UserError, and flags in the text of UserErrors are replaced by keywords.
    """

    def decorate(function: F) -> F:
        signature = _listed(inspect.signature(function), cls)

        @functools.wraps(function)
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            with in_keywords():
                refuse_unknown(keywords, signature.parameters, f"{function.__name__}()")
                return function(*arguments, **keywords)

        wrapped.__doc__ = f"{inspect.getdoc(function)}\n\nSettings, each with a default:\n\n{_described(cls)}"
        wrapped.__signature__ = signature  # type: ignore[attr-defined]
        return cast(F, wrapped)

    return decorate


def from_keywords(cls: type[S], given: Mapping[str, Any], called: str) -> S:
    """`cls` from keywords, where None means the default; errors name the keyword. called: the function's name."""
    refuse_unknown(given, cls.model_fields, called)
    return build(cls, None, {}, given)


def refuse_unknown(names: Iterable[str], known: Iterable[str], called: str) -> None:
    have = list(known)
    for name in names:
        if name not in have:
            raise UserError(f"{called} has no setting {name!r}{nearest(name, have)}")


@contextmanager
def in_keywords() -> Iterator[None]:
    """Replaces flags in errors, such as `--low-q`, by keywords, such as `low_q`."""
    try:
        yield
    except RmoError as e:
        e.args = (FLAG.sub(_keyword, str(e)),)
        raise


def _keyword(match: re.Match[str]) -> str:
    flag: str | None = match[1]
    return match[0] if flag is None else flag.replace("-", "_")


def _listed(signature: inspect.Signature, cls: type[Settings]) -> inspect.Signature:
    """The signature with a keyword for every field of `cls` in place of `**settings`."""
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    fields = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in cls.model_fields.items()
    ]
    return signature.replace(parameters=[*own, *fields])


def _described(cls: type[Settings]) -> str:
    """One entry per field: name, description, default."""
    lines = []
    for name, field in cls.model_fields.items():
        default = "" if field.default in (None, (), False) else f" (default: {field.default})"
        text = FLAG.sub(_keyword, f"{name}: {field.description}{default}")
        lines.append(textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  "))
    return "\n".join(lines)
