"""LLaMA-Factory's ShareGPT form: a conversation of {from, value} and one answer of each kind after it."""

from __future__ import annotations

from typing import Any

from rmo_curate.read.forms.form import Fields, Form, every, system_prompt
from rmo_curate.read.messages import Message, RejectReason, Triple, Unfit, describe, messages

ROLE_OF = {"human": "user", "gpt": "assistant", "observation": "tool"}  # other names of roles, as this form has them


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and ({"from", "value"} <= value.keys() or {"role", "content"} <= value.keys())


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_turn, value))


def _read(value: Any, column: str) -> list[Message]:
    """Turns of either notation as messages."""
    if not isinstance(value, list):
        raise Unfit(RejectReason.NOT_TEXT, f"{column} is {describe(value)}, expected a list of turns")
    turns = []
    for i, turn in enumerate(value, start=1):
        where = f"turn {i} of {column}"
        if not _is_turn(turn):
            raise Unfit(
                RejectReason.BAD_MESSAGES, f"{where} is {describe(turn)}, expected an object with from and value"
            )
        role = turn.get("from", turn.get("role"))
        if role == "function_call":
            raise Unfit(RejectReason.BAD_MESSAGES, f"{where} is a function_call, which a pair cannot hold")
        more = {k: v for k, v in turn.items() if k not in ("from", "value")}
        turns.append({**more, "role": ROLE_OF.get(role, role), "content": turn.get("value", turn.get("content"))})
    return messages(turns, column)


def _answer(value: Any, column: str) -> list[Message]:
    return _read([value], column)


def _sharegpt(fields: Fields) -> Triple:
    prompt, system = _read(fields["conversations"], "conversations"), system_prompt(fields)
    if system and prompt and prompt[0]["role"] == "system":
        if prompt[0] != system[0]:
            raise Unfit(RejectReason.BAD_MESSAGES, "system and the first turn of conversations are two system prompts")
        system = []
    return [*system, *prompt], _answer(fields["chosen"], "chosen"), _answer(fields["rejected"], "rejected")


SHAREGPT = Form(
    "llama-factory-sharegpt",
    ("conversations", "chosen", "rejected"),
    "conversations is a list of turns {from, value}, chosen and rejected are one turn each",
    lambda f: _is_conversation(f.get("conversations")) and every(_is_turn, f, "chosen", "rejected"),
    _sharegpt,
    also=("system",),
)
