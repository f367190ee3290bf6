"""Two dialogues in one text each, with 'Human:' and 'Assistant:' turns, as HH-RLHF has them."""

from __future__ import annotations

from typing import Any

from rmo_curate.read.forms.answers import conversations_of
from rmo_curate.read.forms.dialogues import HUMAN, NOTATIONS, is_dialogue, split
from rmo_curate.read.forms.form import Fields, Form, every
from rmo_curate.read.messages import Message, RejectReason, Unfit, check_text, split_conversations


def turns(value: Any, column: str) -> list[Message]:
    """The turns of a dialogue in one text; white space around a turn belongs to the notation."""
    text = check_text(value, column)
    if not HUMAN.match(text):
        raise Unfit(RejectReason.BAD_MESSAGES, f"{column} does not start with a 'Human:' or 'Assistant:' turn")
    return split(text, NOTATIONS[0])


def _response_turns(fields: Fields, column: str) -> list[Message]:
    if not check_text(fields[column], column).strip():
        raise Unfit(RejectReason.EMPTY_RESPONSE, f"{column} is empty")
    return turns(fields[column], column)


def in_a_template(value: Any) -> bool:
    """Whether a text is a dialogue in special tokens: ChatML and the like."""
    return isinstance(value, str) and any(n.mark.match(value.lstrip()) for n in NOTATIONS[1:])


TEMPLATES = Form(
    "text-dialogues",
    ("chosen", "rejected"),
    "chosen and rejected are dialogues in ChatML or another known template, and there is no prompt",
    lambda f: every(in_a_template, f, "chosen", "rejected"),
    lambda f: conversations_of(f["chosen"], f["rejected"], ("chosen", "rejected")),
    without=("prompt",),
)
HH = Form(
    "hh-rlhf",
    ("chosen", "rejected"),
    "chosen and rejected are texts with 'Human:' and 'Assistant:' turns, and there is no prompt",
    lambda f: every(is_dialogue, f, "chosen", "rejected"),
    lambda f: split_conversations(_response_turns(f, "chosen"), _response_turns(f, "rejected")),
    without=("prompt",),
)
