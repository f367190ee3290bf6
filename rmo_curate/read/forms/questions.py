"""A question and two answers as texts under other names than TRL's: LLaMA-Factory's alpaca, argilla's, Intel's."""

from __future__ import annotations

from typing import Any

from rmo_curate.read.forms.form import Fields, Form, every, is_text, json_column, system_prompt
from rmo_curate.read.messages import Message, RejectReason, Triple, Unfit, assistant, check_text, user


def _question(fields: Fields, *columns: str) -> Message:
    """The user's turn: the texts of `columns` that are not empty, one below the other."""
    texts = [check_text(fields[c], c) for c in columns if fields.get(c) is not None]
    return user("\n".join(text for text in texts if text.strip()))


def _history(value: Any) -> list[Message]:
    """Earlier turns: a list of [question, answer], or its JSON text."""
    turns: list[Message] = []
    for i, turn in enumerate(json_column(value, "history", list, "a list of [question, answer]") or [], start=1):
        if not isinstance(turn, list) or len(turn) != 2:
            raise Unfit(RejectReason.BAD_MESSAGES, f"turn {i} of history is not a list of a question and an answer")
        asked, answered = (check_text(text, f"turn {i} of history") for text in turn)
        turns += [user(asked), assistant(answered)]
    return turns


def _question_form(
    name: str,
    asked: str,
    *more: str,
    answers: tuple[str, str] = ("chosen", "rejected"),
    without: tuple[str, ...] = (),
) -> Form:
    """A form whose question is the text in the column `asked`; `more`: further columns that belong to the prompt.

    `without`: columns by which other forms, with the same answers, are told from it.
    """
    needs = (asked, *answers)

    def convert(fields: Fields) -> Triple:
        history = _history(fields.get("history")) if "history" in more else []
        question = _question(fields, asked, *(["input"] if "input" in more else []))
        chosen, rejected = ([assistant(check_text(fields[column], column))] for column in answers)
        return [*system_prompt(fields), *history, question], chosen, rejected

    looks = f"{asked}, {answers[0]} and {answers[1]} are text"
    if without:
        looks += ", and there is no " + " or ".join(filter(None, [", ".join(without[:-1]), without[-1]]))
    return Form(name, needs, looks, lambda f: every(is_text, f, *needs), convert, ("system", *more), without)


ALPACA = _question_form("llama-factory-alpaca", "instruction", "input", "history", without=("prompt",))
ARGILLA = _question_form("argilla", "instruction", "input", answers=("chosen_response", "rejected_response"))
ORCA = _question_form("intel-orca", "question", without=("prompt", "instruction"))
INPUT = _question_form("input-and-answers", "input", without=("prompt", "instruction", "question"))
