"""What a form is, and the checks of values that forms share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmo_curate.read.messages import Message, RejectReason, Triple, Unfit, check_text, describe, is_messages

COMMON = ("id", "tools", "chat_template_kwargs")  # columns that every form reads where they are there
Fields = Mapping[str, Any]  # a record under the names that the forms use, whatever the data call them


@dataclass(frozen=True)
class Candidate:
    """A pair that a record may hold: one in most forms, one for every two answers of different rank in ranked ones."""

    fields: Fields
    name: str = ""  # tells it from the record's others: places of its better and worse answer, as "1-3"
    extra: Mapping[str, Any] = field(default_factory=dict)  # what the record says of its two answers


@dataclass(frozen=True)
class Form:
    """One way to write pairs down."""

    name: str
    needs: tuple[str, ...]
    looks: str  # what its records have, in words
    matches: Callable[[Fields], bool]
    convert: Callable[[Fields], Triple]
    also: tuple[str, ...] = ()  # columns that it reads where they are there
    without: tuple[str, ...] = ()  # columns that its records lack: with them they are of another form
    expand: Callable[[Fields], list[Candidate]] | None = None  # a record of ranked answers -> its pairs

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a meaning in this form; every other is an extra."""
        return (*self.needs, *self.also, *self.without, *COMMON)

    def shown_by(self, fields: Fields) -> bool:
        """Whether the record's columns and value types show this form."""
        return all(fields.get(c) is None for c in self.without) and self.matches(fields)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def every(test: Callable[[Any], bool], fields: Fields, *columns: str) -> bool:
    return all(test(fields.get(c)) for c in columns)


def system_prompt(fields: Fields) -> list[Message]:
    """The system message that a column `system` holds; an empty or absent one is none."""
    text = fields.get("system")
    if text is None or not check_text(text, "system").strip():
        return []
    return [{"role": "system", "content": text}]


def json_column(value: Any, column: str, kind: type, expected: str) -> Any:
    """A value of `kind`, or its JSON text, as that value; None for null, nothing and blank text."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as e:
            raise Unfit(RejectReason.NOT_TEXT, f"{column} is not JSON ({e}); expected {expected}") from e
    if not value or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, kind):
        raise Unfit(RejectReason.NOT_TEXT, f"{column} is {describe(value)}, expected {expected} or its JSON text")
    return value


def all_messages(fields: Fields, *columns: str) -> bool:
    return every(is_messages, fields, *columns)
