"""A question and two answers as texts under other names than TRL's: LLaMA-Factory's alpaca, argilla's, Intel's."""

from __future__ import annotations

from rmo_curate.read.forms.answers import pair_of
from rmo_curate.read.forms.form import Fields, Form, every, is_text
from rmo_curate.read.messages import Triple, check_text


def question(fields: Fields, *columns: str) -> str:
    """The user's turn: the texts of `columns` that are not empty, one below the other."""
    texts = [check_text(fields[c], c) for c in columns if fields.get(c) is not None]
    return "\n".join(text for text in texts if text.strip())


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
        text = question(fields, asked, *more)
        chosen, rejected = (check_text(fields[column], column) for column in answers)
        return pair_of(text, chosen, rejected, (asked, *answers))

    looks = f"{asked}, {answers[0]} and {answers[1]} are text"
    if without:
        looks += ", and there is no " + " or ".join(filter(None, [", ".join(without[:-1]), without[-1]]))
    return Form(name, needs, looks, lambda f: every(is_text, f, *needs), convert, more, without)


ALPACA = _question_form("llama-factory-alpaca", "instruction", "input", without=("prompt",))
ARGILLA = _question_form("argilla", "instruction", "input", answers=("chosen_response", "rejected_response"))
ORCA = _question_form("intel-orca", "question", without=("prompt", "instruction"))
INPUT = _question_form("input-and-answers", "input", without=("prompt", "instruction", "question"))
H2O = _question_form("h2o", "instruction", "input", answers=("output", "rejected_response"))
