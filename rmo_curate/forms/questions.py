"""A question and two answers as texts under other names than TRL's: LLaMA-Factory's alpaca, argilla's, Intel's."""

from __future__ import annotations

from typing import Any

from rmo_curate.forms.form import Fields, Form, every, is_text, json_column, system_prompt
from rmo_curate.messages import Message, RejectReason, Triple, Unfit, assistant, check_text, user


def _question(fields: Fields, *columns: str) -> Message:
    """The user's turn: the texts of `columns` that are not empty, one below the other."""
    texts = [check_text(fields[c], c) for c in columns if fields.get(c) is not None]
    return user("\n".join(text for text in texts if text.strip()))


def _history(value: Any) -> list[Message]:
    """Earlier turns: a list of [question, answer], or its JSON text."""
    found: list[Message] = []
    for i, turn in enumerate(json_column(value, "history", list, "a list of [question, answer]") or [], start=1):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Unfit(RejectReason.BAD_MESSAGES, f"turn {i} of history is not a list of a question and an answer")
        asked, answered = (check_text(text, f"turn {i} of history") for text in turn)
        found += [user(asked), assistant(answered)]
    return found


def _answers(fields: Fields, chosen: str, rejected: str) -> tuple[list[Message], list[Message]]:
    good, bad = (check_text(fields[column], column) for column in (chosen, rejected))
    return [assistant(good)], [assistant(bad)]


def _alpaca(fields: Fields) -> Triple:
    prompt = [*system_prompt(fields), *_history(fields.get("history")), _question(fields, "instruction", "input")]
    return prompt, *_answers(fields, "chosen", "rejected")


def _argilla(fields: Fields) -> Triple:
    prompt = [*system_prompt(fields), _question(fields, "instruction", "input")]
    return prompt, *_answers(fields, "chosen_response", "rejected_response")


def _orca(fields: Fields) -> Triple:
    return [*system_prompt(fields), _question(fields, "question")], *_answers(fields, "chosen", "rejected")


def _input(fields: Fields) -> Triple:
    return [*system_prompt(fields), _question(fields, "input")], *_answers(fields, "chosen", "rejected")


ALPACA = Form(
    "llama-factory-alpaca",
    ("instruction", "chosen", "rejected"),
    "instruction, chosen and rejected are text, and there is no prompt",
    lambda f: every(is_text, f, "instruction", "chosen", "rejected"),
    _alpaca,
    also=("input", "system", "history"),
    without=("prompt",),
)
ARGILLA = Form(
    "argilla",
    ("instruction", "chosen_response", "rejected_response"),
    "instruction, chosen_response and rejected_response are text",
    lambda f: every(is_text, f, "instruction", "chosen_response", "rejected_response"),
    _argilla,
    also=("input", "system"),
)
ORCA = Form(
    "intel-orca",
    ("question", "chosen", "rejected"),
    "question, chosen and rejected are text, and there is no prompt",
    lambda f: every(is_text, f, "question", "chosen", "rejected"),
    _orca,
    also=("system",),
    without=("prompt", "instruction"),
)
INPUT = Form(
    "input-and-answers",
    ("input", "chosen", "rejected"),
    "input, chosen and rejected are text, and there is no prompt, instruction or question",
    lambda f: every(is_text, f, "input", "chosen", "rejected"),
    _input,
    also=("system",),
    without=("prompt", "instruction", "question"),
)
