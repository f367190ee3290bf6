"""Dialogues in one text with 'Human:' and 'Assistant:' turns, as HH-RLHF has them."""

from __future__ import annotations

import re
from typing import Any

from rmo_curate.read.forms.form import Fields, Form, every
from rmo_curate.read.messages import Message, RejectReason, Unfit, assistant, check_text, split_conversations, user

TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def turns(value: Any, column: str) -> list[Message]:
    """The turns of a dialogue in one text; white space around a turn belongs to the notation."""
    text = check_text(value, column)
    marks = list(TURN.finditer(text))
    if not marks or marks[0].start() != 0:
        raise Unfit(RejectReason.BAD_MESSAGES, f"{column} does not start with a 'Human:' or 'Assistant:' turn")
    ends = [m.start() for m in marks[1:]] + [len(text)]
    turn = {"Human": user, "Assistant": assistant}
    return [turn[m[1]](text[m.end() : end].strip()) for m, end in zip(marks, ends, strict=True)]


def is_dialogue(value: Any) -> bool:
    return isinstance(value, str) and {m[1] for m in TURN.finditer(value)} == {"Human", "Assistant"}


def _response_turns(fields: Fields, column: str) -> list[Message]:
    if not check_text(fields[column], column).strip():
        raise Unfit(RejectReason.EMPTY_RESPONSE, f"{column} is empty")
    return turns(fields[column], column)


HH = Form(
    "hh-rlhf",
    ("chosen", "rejected"),
    "chosen and rejected are texts with 'Human:' and 'Assistant:' turns, and there is no prompt",
    lambda f: every(is_dialogue, f, "chosen", "rejected"),
    lambda f: split_conversations(_response_turns(f, "chosen"), _response_turns(f, "rejected")),
    without=("prompt",),
)
