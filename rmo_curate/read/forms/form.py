"""What a form is, the checks of values that forms share, and what every form reads: a system prompt, earlier turns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmo_curate.read.messages import (
    CONTENT_KEYS,
    Message,
    RejectReason,
    Triple,
    Unfit,
    assistant,
    check_text,
    describe,
    is_messages,
    messages,
    user,
)

INT64 = range(-(2**63), 2**63)
SYSTEM = (
    "system",
    "system_prompt",
    "systemInstruction",
    "system_instruction",
)  # columns that hold a system prompt; the first filled counts
COMMON = (
    "id",
    "tools",
    "chat_template_kwargs",
    *SYSTEM,
    "history",
)  # columns that every form reads where they are there
MEDIA = ("images", "image", "videos", "video", "audios", "audio")  # columns that a pair of texts has no place for
BEFORE = frozenset((*SYSTEM, "history"))
APART = frozenset((*MEDIA, "parent_id"))
MARKS = ("<image>", "<video>", "<audio>")  # where those stand in a text
Fields = Mapping[str, Any]  # a record under the names that the forms use, whatever the data call them


@dataclass(frozen=True)
class Candidate:
    """A pair that a record may hold: one in most forms, one for every two answers of different rank in ranked ones."""

    fields: Fields
    name: str = ""  # tells it from the record's others: places of its better and worse answer, as "1-3"
    extra: Mapping[str, Any] = field(default_factory=dict)  # what the record says of its two answers


@dataclass(frozen=True)
class Form:
    """One way to write pairs down. A column may be a path: `question.full_text`."""

    name: str
    needs: tuple[str, ...]
    looks: str  # what its records have, in words
    matches: Callable[[Fields], bool]
    convert: Callable[[Fields], Triple]
    also: tuple[str, ...] = ()  # columns that it reads where they are there
    without: tuple[str, ...] = ()  # columns that its records lack: with them they are of another form
    expand: Callable[[Fields], list[Candidate]] | None = None  # a record -> its pairs, their columns named as TRL's

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have a meaning in this form; every other is an extra."""
        return (*self.needs, *self.also, *self.without, *COMMON)

    def shown_by(self, fields: Fields) -> bool:
        """Whether the record's columns and value types show this form."""
        return all(fields.get(c) is None for c in self.without) and self.matches(fields)


def at(value: Any, path: str) -> Any:
    """What stands at a column, or at a path of keys and places in lists (`summaries.0.text`); None if nothing does."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    for key in path.split(".") if "." in path else ():
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value if "." in path else None


def is_number(value: Any) -> bool:
    """Whether `value` is a number that others can be compared with."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and value in INT64


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def every(test: Callable[[Any], bool], fields: Fields, *columns: str) -> bool:
    return all(test(fields.get(c)) for c in columns)


def all_messages(fields: Fields, *columns: str) -> bool:
    return every(is_messages, fields, *columns)


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


# ---------------------------------------------------------------------------------------------------- in every form


def _system_prompt(fields: Fields) -> list[Message]:
    """The system message that a column of `SYSTEM` holds, as text, parts or a message; an empty or absent one is
    none."""
    for column in SYSTEM:
        value = fields.get(column)
        if value is None:
            continue
        if isinstance(value, list):
            value = {"content": value}
        if isinstance(value, dict) and any(k in value for k in CONTENT_KEYS):
            value = messages([{**value, "role": "system"}], column)[0]["content"]
        text = check_text(value, column)
        if text.strip():
            return [{"role": "system", "content": text}]
    return []


def _earlier_turns(value: Any) -> list[Message]:
    """Turns before the prompt: a list of [question, answer] or of messages, or its JSON text."""
    turns: list[Message] = []
    earlier = json_column(value, "history", list, "a list of [question, answer]") or []
    if is_messages(earlier):
        return messages(earlier, "history")
    for i, turn in enumerate(earlier, start=1):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Unfit(RejectReason.BAD_MESSAGES, f"turn {i} of history is not a list of a question and an answer")
        asked, answered = (check_text(text, f"turn {i} of history") for text in turn)
        turns += [user(asked), assistant(answered)]
    return turns


def with_what_came_before(prompt: list[Message], fields: Fields, form: Form) -> list[Message]:
    """`prompt` after the system prompt and the earlier turns that the record has in columns of their own."""
    if BEFORE.isdisjoint(fields):
        return prompt
    first = 1 if prompt and prompt[0]["role"] == "system" else 0
    system, turns = _system_prompt(fields), prompt[first:]
    if system and first and prompt[0] != system[0]:
        raise Unfit(RejectReason.BAD_MESSAGES, "the column system and the first turn are two system prompts")
    earlier = [] if "history" in form.needs else _earlier_turns(fields.get("history"))
    if turns[: len(earlier)] == earlier:  # the prompt has them too
        earlier = []
    return [*(prompt[:first] or system), *earlier, *turns]


def check_all_is_read(fields: Fields) -> None:
    """Unfit for a record of which a pair of texts would lack a part."""
    if APART.isdisjoint(fields):
        return
    for column in MEDIA:
        value = fields.get(column)
        if value and not (isinstance(value, str) and value.strip() in ("", "[]", "null")):
            raise Unfit(RejectReason.UNREAD_PART, f"it has {column}, which a pair of texts cannot hold")
    if fields.get("parent_id") is not None and fields.get("id") is not None:
        raise Unfit(
            RejectReason.UNREAD_PART,
            f"its earlier turns are in the record {fields['parent_id']!r} (parent_id); write them into the prompt",
        )


def check_marks(prompt: list[Message]) -> None:
    """Unfit where an image, a video or a sound has its place in the prompt."""
    for message in prompt:
        text = message["content"]
        if "<" in text and (text.lstrip().startswith(MARKS) or text.rstrip().endswith(MARKS)):
            mark = next(m for m in MARKS if m in text)
            raise Unfit(
                RejectReason.UNREAD_PART,
                f"the prompt has the marker {mark} of content that a pair of texts cannot hold",
            )
