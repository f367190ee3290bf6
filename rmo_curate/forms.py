"""The forms that preference data come in: a record -> prompt, chosen and rejected messages, or why it is unfit.

To add a form, write `convert` (fields -> a Triple, or raise Unfit) and `matches`, and enter a `Form` in `FORMS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rmo_curate.messages import (
    Message,
    RejectReason,
    Triple,
    Unfit,
    assistant,
    check_text,
    check_triple,
    is_messages,
    messages,
    split_conversations,
    user,
)

COLUMNS = ("prompt", "chosen", "rejected", "id", "tools")  # what a pair is made of; every other column is an extra
Fields = Mapping[str, Any]  # a record's `COLUMNS` under these names, whatever the data call them
HH_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


@dataclass(frozen=True)
class Form:
    """One way to write a pair down."""

    name: str
    needs: tuple[str, ...]
    looks: str  # what its records have, in words
    matches: Callable[[Fields], bool]
    convert: Callable[[Fields], Triple]


def _standard(fields: Fields) -> Triple:
    prompt, chosen, rejected = (check_text(fields[c], c) for c in ("prompt", "chosen", "rejected"))
    return [user(prompt)], [assistant(chosen)], [assistant(rejected)]


def _conversational(fields: Fields) -> Triple:
    prompt, chosen, rejected = (messages(fields[c], c) for c in ("prompt", "chosen", "rejected"))
    n = len(prompt)
    if n and chosen[:n] == prompt and rejected[:n] == prompt:  # the responses repeat the prompt
        return prompt, chosen[n:], rejected[n:]
    return prompt, chosen, rejected


def _prompt_and_conversation(fields: Fields) -> Triple:
    prompt, chosen, rejected = (
        check_text(fields["prompt"], "prompt"),
        messages(fields["chosen"], "chosen"),
        messages(fields["rejected"], "rejected"),
    )
    if all(response and response[0]["role"] == "assistant" for response in (chosen, rejected)):
        return [user(prompt)], chosen, rejected  # answers alone
    for column, conversation in (("chosen", chosen), ("rejected", rejected)):
        if not conversation:
            raise Unfit(RejectReason.EMPTY_RESPONSE, f"{column} has no message")
        asked = next((m["content"] for m in conversation if m["role"] == "user"), "")
        if asked.strip() != prompt.strip():
            raise Unfit(RejectReason.BAD_MESSAGES, f"the first user message of {column} is not the prompt")
    return split_conversations(chosen, rejected)


def _implicit(fields: Fields) -> Triple:
    return split_conversations(messages(fields["chosen"], "chosen"), messages(fields["rejected"], "rejected"))


def _hh_turns(fields: Fields, column: str) -> list[Message]:
    """The turns of a dialogue in one text; white space around a turn belongs to the notation."""
    text = check_text(fields[column], column)
    if not text.strip():
        raise Unfit(RejectReason.EMPTY_RESPONSE, f"{column} is empty")
    marks = list(HH_TURN.finditer(text))
    if not marks or marks[0].start() != 0:
        raise Unfit(RejectReason.BAD_MESSAGES, f"{column} does not start with a 'Human:' or 'Assistant:' turn")
    ends = [m.start() for m in marks[1:]] + [len(text)]
    turn = {"Human": user, "Assistant": assistant}
    return [turn[m[1]](text[m.end() : end].strip()) for m, end in zip(marks, ends, strict=True)]


def _hh(fields: Fields) -> Triple:
    return split_conversations(_hh_turns(fields, "chosen"), _hh_turns(fields, "rejected"))


def _is_hh_text(value: Any) -> bool:
    return isinstance(value, str) and {m[1] for m in HH_TURN.finditer(value)} == {"Human", "Assistant"}


def _all(test: Callable[[Any], bool], fields: Fields, *columns: str) -> bool:
    return all(test(fields.get(c)) for c in columns)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _no_prompt(fields: Fields) -> bool:
    return fields.get("prompt") is None


FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            "trl-standard",
            ("prompt", "chosen", "rejected"),
            "prompt, chosen and rejected are text",
            lambda f: _all(_is_text, f, "prompt", "chosen", "rejected"),
            _standard,
        ),
        Form(
            "trl-conversational",
            ("prompt", "chosen", "rejected"),
            "prompt, chosen and rejected are lists of messages",
            lambda f: _all(is_messages, f, "prompt", "chosen", "rejected"),
            _conversational,
        ),
        Form(
            "prompt-and-conversation",
            ("prompt", "chosen", "rejected"),
            "prompt is text, chosen and rejected are lists of messages",
            lambda f: _is_text(f.get("prompt")) and _all(is_messages, f, "chosen", "rejected"),
            _prompt_and_conversation,
        ),
        Form(
            "trl-implicit",
            ("chosen", "rejected"),
            "chosen and rejected are lists of messages that start alike, and there is no prompt",
            lambda f: _no_prompt(f) and _all(is_messages, f, "chosen", "rejected"),
            _implicit,
        ),
        Form(
            "hh-rlhf",
            ("chosen", "rejected"),
            "chosen and rejected are texts with 'Human:' and 'Assistant:' turns, and there is no prompt",
            lambda f: _no_prompt(f) and _all(_is_hh_text, f, "chosen", "rejected"),
            _hh,
        ),
    )
}


def fields_of(value: Mapping[str, Any], columns: Mapping[str, str]) -> Fields:
    """The columns that make a pair, under the names that the pair gives them."""
    return {role: value.get(columns.get(role, role)) for role in COLUMNS}


def recognise(fields: Fields) -> Form | None:
    """The form that a record's columns and value types show."""
    return next((form for form in FORMS.values() if form.matches(fields)), None)


def missing(column: str) -> str:
    """The detail of a `missing_field`."""
    return f"no {column!r}, or null"


def convert(form: Form, fields: Fields) -> Triple:
    """Prompt, chosen and rejected messages of a record of `form`; Unfit says why it has none."""
    for column in form.needs:
        if fields.get(column) is None:
            raise Unfit(RejectReason.MISSING_FIELD, missing(column))
    shown = recognise(fields)
    if shown not in (None, form):
        raise Unfit(RejectReason.OTHER_FORM, f"{shown.looks} ({shown.name}); the form of this source is {form.name}")
    if "prompt" not in form.needs and not _no_prompt(fields):
        raise Unfit(RejectReason.OTHER_FORM, f"it has a prompt; the form of this source, {form.name}, has none")
    return check_triple(form.convert(fields))
