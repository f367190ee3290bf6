"""Two answers and a label that says which one won: a table of the columns and the labels of published data sets.

A tie, and a label that names no winner, is `no_preference`. A pair carries `chosen_answer`, the column of the answer
that won; where the label has a degree, `preference_strength`, which is above 0; and what stands beside each of the
answers, as `chosen_model` and `rejected_model`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rmo_curate.read.forms.answers import conversations_of, is_said, pair_of
from rmo_curate.read.forms.form import Candidate, Fields, Form, at, is_number, json_column
from rmo_curate.read.forms.questions import question
from rmo_curate.read.forms.trl import conversational
from rmo_curate.read.messages import RejectReason, Triple, Unfit, assistant, describe, is_turn, user

Verdict = tuple[int, float | None]  # place of the winner, 0 or 1; how much better it is, where the label says it
Judge = Callable[[Fields], Verdict]


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt and what tells the winner. Columns may be paths."""

    name: str
    prompt: str | None  # None: both answers are whole conversations
    answers: tuple[str, str]
    label: tuple[str, ...]  # the columns that `judge` reads
    judge: Judge
    says: str  # the label's meaning, in words
    beside: Mapping[str, tuple[str, str]]  # what else is said of each answer: name -> its two columns
    triple: Callable[[Comparison, Fields], Triple]  # prompt, first and second answer

    def form(self) -> Form:
        prompt = (self.prompt,) if self.prompt else ()
        needs = (*prompt, *self.answers, *self.label)
        looks = f"{', '.join([*prompt, *self.answers])} and {self.says}"

        def matches(fields: Fields) -> bool:
            said = all(is_said(at(fields, c)) for c in (*prompt, *self.answers))
            return said and all(at(fields, c) is not None for c in self.label)

        beside = tuple(column for columns in self.beside.values() for column in columns if column not in needs)
        also = (*beside, "input") if self.prompt == "instruction" else beside
        return Form(self.name, needs, looks, matches, conversational, also, expand=self.expand)

    def expand(self, fields: Fields) -> list[Candidate]:
        winner, strength = self.judge(fields)
        prompt, *answers = self.triple(self, fields)
        extra: dict[str, Any] = {"chosen_answer": self.answers[winner]}
        if strength is not None:
            extra["preference_strength"] = strength
        for name, columns in self.beside.items():
            if any(at(fields, c) is not None for c in columns):
                extra |= {"chosen_" + name: at(fields, columns[winner])}
                extra |= {"rejected_" + name: at(fields, columns[1 - winner])}
        pair = {"prompt": prompt, "chosen": answers[winner], "rejected": answers[1 - winner]}
        return [Candidate({**fields, **pair}, extra=extra)]


# ---------------------------------------------------------------------------------------------------- labels


def _tie(where: str) -> Unfit:
    return Unfit(RejectReason.NO_PREFERENCE, f"{where}: a tie")


def plain(value: Any) -> Any:
    """A label as it is compared: text in small letters, a number written as text as that number, 1.0 and true as 1."""
    if isinstance(value, str):
        value = value.strip().lower()
        try:
            value = float(value)
        except ValueError:
            return value
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def _number(fields: Fields, column: str) -> float:
    value = plain(at(fields, column))
    if not is_number(value):
        raise Unfit(RejectReason.NO_PREFERENCE, f"{column} is {describe(at(fields, column))}, expected a number")
    return value


def named(column: str, first: Any, second: Any, *ties: Any) -> Judge:
    """The label `first` or `second` names the winner."""

    def judge(fields: Fields) -> Verdict:
        label = plain(at(fields, column))
        if label in (first, second):
            return int(label == second), None
        if label in ties:
            raise _tie(f"{column} is {label!r}")
        expected = f"expected {first!r} or {second!r}"
        raise Unfit(RejectReason.NO_PREFERENCE, f"{column} is {at(fields, column)!r}, {expected}")

    return judge


def signed(column: str, middle: float = 0.0, tie: float | None = None) -> Judge:
    """A number below `middle` is for the first answer, above it for the second; `tie`: another number for ties."""

    def judge(fields: Fields) -> Verdict:
        value = _number(fields, column)
        if value in (middle, tie):
            raise _tie(f"{column} is {value}")
        return int(value > middle), abs(value - middle)

    return judge


def higher(first: str, second: str) -> Judge:
    """The answer with the higher score wins."""

    def judge(fields: Fields) -> Verdict:
        scores = _number(fields, first), _number(fields, second)
        if scores[0] == scores[1]:
            raise _tie(f"{first} and {second} are both {scores[0]}")
        return int(scores[1] > scores[0]), abs(scores[1] - scores[0])

    return judge


def flagged(first: str, second: str) -> Judge:
    """Each answer has a column that is 1 where it won."""

    def judge(fields: Fields) -> Verdict:
        flags = _number(fields, first), _number(fields, second)
        if sorted(flags) != [0, 1]:
            raise _tie(f"{first} is {flags[0]:g} and {second} is {flags[1]:g}")
        return int(flags[1] == 1), None

    return judge


# ---------------------------------------------------------------------------------------------------- prompts


def _asked(self: Comparison, fields: Fields) -> Triple:
    assert self.prompt is not None
    names = (self.prompt, *self.answers)
    prompt = question(fields, "instruction", "input") if self.prompt == "instruction" else at(fields, self.prompt)
    return pair_of(prompt, at(fields, self.answers[0]), at(fields, self.answers[1]), names)


def _judged_part(value: Any, turn: Any) -> Any:
    """A conversation up to the answer of the turn that was judged, 1 for the first; all of it where none is named."""
    if not isinstance(turn, int) or isinstance(turn, bool) or not isinstance(value, list):
        return value
    answers = [i for i, m in enumerate(value) if is_turn(m) and m.get("role", m.get("from")) == "assistant"]
    return value[: answers[turn - 1] + 1] if 0 < turn <= len(answers) else value


def _conversations(self: Comparison, fields: Fields) -> Triple:
    first, second = (_judged_part(at(fields, column), fields.get("turn")) for column in self.answers)
    return conversations_of(first, second, self.answers)


def _texts(value: Any, column: str) -> list[str]:
    """The texts of a JSON list, one a turn."""
    texts = json_column(value, column, list, "a list of texts, one a turn") or []
    if not all(isinstance(text, str) for text in texts):
        raise Unfit(RejectReason.NOT_TEXT, f"{column} has a turn that is no text")
    return texts


def _parallel(self: Comparison, fields: Fields) -> Triple:
    """Questions and answers in lists of their own, told by their place."""
    assert self.prompt is not None
    columns = (self.prompt, *self.answers)
    asked, *answers = (_texts(fields[column], column) for column in columns)
    if any(len(texts) != len(asked) for texts in answers):
        raise Unfit(RejectReason.BAD_MESSAGES, f"{', '.join(columns)} are lists of different length")
    first, second = (
        [m for q, a in zip(asked, texts, strict=True) for m in (user(q), assistant(a))] for texts in answers
    )
    return conversations_of(first, second, self.answers)


def is_list_of_texts(value: Any) -> bool:
    """Whether a column holds a JSON list of texts."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


# ---------------------------------------------------------------------------------------------------- the table


def _comparison(
    name: str,
    prompt: str | None,
    answers: tuple[str, str],
    label: str | tuple[str, ...],
    judge: Judge,
    says: str,
    beside: Mapping[str, tuple[str, str]] | None = None,
    triple: Callable[[Comparison, Fields], Triple] | None = None,
) -> Form:
    read = triple or (_asked if prompt else _conversations)
    columns = (label,) if isinstance(label, str) else label
    return Comparison(name, prompt, answers, columns, judge, says, beside or {}, read).form()


def _lmsys() -> Form:
    names = ("prompt", "response_a", "response_b")
    flags = ("winner_model_a", "winner_model_b")
    judge, says = flagged(*flags), "winner_model_a and winner_model_b, 1 for the winner; texts are lists, one a turn"
    form = _comparison("kaggle-lmsys", "prompt", names[1:], flags, judge, says, MODELS, _parallel)

    def matches(fields: Fields) -> bool:
        lists = all(is_list_of_texts(fields.get(c)) for c in names)
        return lists and all(fields.get(c) is not None for c in flags)

    return Form(form.name, form.needs, form.looks, matches, form.convert, form.also, expand=form.expand)


MODELS = {"model": ("model_a", "model_b")}
SCORES_01 = ("score_0", "score_1")
TIES = ("tie", "tie (bothbad)", "both_bad", "bothbad", "tie(bothbad)")
COMPARISONS = (
    _comparison(
        "pku-saferlhf",
        "prompt",
        ("response_0", "response_1"),
        "better_response_id",
        named("better_response_id", 0, 1),
        "better_response_id, 0 or 1",
        {
            "response_source": ("response_0_source", "response_1_source"),
            "is_safe": ("is_response_0_safe", "is_response_1_safe"),
            "severity_level": ("response_0_severity_level", "response_1_severity_level"),
        },
    ),
    _comparison(
        "shp",
        "history",
        ("human_ref_A", "human_ref_B"),
        "labels",
        named("labels", 1, 0),
        "labels, 1 if human_ref_A won, else 0",
        {"score": ("score_A", "score_B")},
    ),
    _comparison(
        "helpsteer3",
        "context",
        ("response1", "response2"),
        "overall_preference",
        signed("overall_preference"),
        "overall_preference, below 0 if response1 won, 0 for a tie",
    ),
    _comparison(
        "helpsteer2",
        "prompt",
        ("response_1", "response_2"),
        "preference_strength",
        signed("preference_strength"),
        "preference_strength, below 0 if response_1 won, 0 for a tie",
    ),
    _lmsys(),
    _comparison(
        "arena",
        None,
        ("conversation_a", "conversation_b"),
        "winner",
        named("winner", "model_a", "model_b", *TIES),
        "winner, model_a, model_b or a tie",
        MODELS,
    ),
    _comparison(
        "arena-answers",
        "prompt",
        ("response_a", "response_b"),
        "winner",
        named("winner", "model_a", "model_b", *TIES),
        "winner, model_a, model_b or a tie",
        MODELS,
    ),
    _comparison(
        "webgpt",
        "question.full_text",
        ("answer_0", "answer_1"),
        SCORES_01,
        higher(*SCORES_01),
        "score_0 and score_1, the higher one wins",
        {"score": SCORES_01},
    ),
    _comparison(
        "summarize-from-feedback",
        "info.post",
        ("summaries.0.text", "summaries.1.text"),
        "choice",
        named("choice", 0, 1),
        "choice, 0 or 1",
        {"policy": ("summaries.0.policy", "summaries.1.policy")},
    ),
    _comparison(
        "summarize-news",
        "info.article",
        ("summaries.0.text", "summaries.1.text"),
        "choice",
        named("choice", 0, 1),
        "choice, 0 or 1",
        {"policy": ("summaries.0.policy", "summaries.1.policy")},
    ),
    _comparison(
        "alpacafarm",
        "instruction",
        ("output_1", "output_2"),
        "preference",
        signed("preference", 1.5, tie=0),
        "preference, 1 or 2",
        {"generator": ("generator_1", "generator_2")},
    ),
    _comparison(
        "halos", "prompt", ("output_A", "output_B"), "label", named("label", 1, 0), "label, 1 if output_A won, else 0"
    ),
    _comparison(
        "tinker",
        "comparison.prompt_conversation",
        ("comparison.completion_A", "comparison.completion_B"),
        "label",
        named("label", "a", "b", "tie"),
        "label, A, B or Tie",
    ),
)
