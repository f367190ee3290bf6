"""Two answers and a label that says which one won: a table of the columns and the labels of published data sets.

A tie, and a label that names no winner, is `no_preference`. A pair carries `chosen_answer`, the column of the answer
that won; where the label has a degree, `preference_strength`, which is above 0; and what stands beside each of the
answers, as `chosen_model` and `rejected_model`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rmo_curate.read.forms.answers import conversations_of, is_said, pair_of
from rmo_curate.read.forms.form import Candidate, Fields, Form, at, is_number, json_column
from rmo_curate.read.forms.questions import question
from rmo_curate.read.forms.trl import conversational
from rmo_curate.read.messages import RejectReason, Triple, Unfit, assistant, describe, is_turn, user

Verdict = tuple[int, float | None]  # place of the winner, 0 or 1; how much better it is, where the label says it
Judge = Callable[[Fields], Verdict]


@dataclass(frozen=True)
class Label:
    """The columns that tell the winner, and how they tell it."""

    columns: tuple[str, ...]
    judge: Judge


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt and what tells the winner. Columns may be paths."""

    name: str
    prompt: str | None  # None: both answers are whole conversations
    answers: tuple[str, str]
    label: Label
    says: str  # the label's meaning, in words
    beside: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # what else is said of each answer, by name
    turns_in_lists: bool = False  # prompt and answers are lists of texts, one a turn

    def form(self) -> Form:
        prompt = (self.prompt,) if self.prompt else ()
        texts = (*prompt, *self.answers)
        needs = (*texts, *self.label.columns)
        looks = f"{', '.join(texts)}, and {self.says}"
        is_filled = is_list_of_texts if self.turns_in_lists else is_said

        def matches(fields: Fields) -> bool:
            said = all(is_filled(at(fields, c)) for c in texts)
            return said and all(at(fields, c) is not None for c in self.label.columns)

        beside = tuple(column for columns in self.beside.values() for column in columns if column not in needs)
        also = (*beside, "input") if self.prompt == "instruction" else beside
        return Form(self.name, needs, looks, matches, conversational, also, expand=self.expand)

    def expand(self, fields: Fields) -> list[Candidate]:
        winner, strength = self.label.judge(fields)
        prompt, *answers = self._triple(fields)
        extra: dict[str, Any] = {"chosen_answer": self.answers[winner]}
        if strength is not None:
            extra["preference_strength"] = strength
        for name, columns in self.beside.items():
            if any(at(fields, c) is not None for c in columns):
                extra |= {"chosen_" + name: at(fields, columns[winner])}
                extra |= {"rejected_" + name: at(fields, columns[1 - winner])}
        pair = {"prompt": prompt, "chosen": answers[winner], "rejected": answers[1 - winner]}
        return [Candidate({**fields, **pair}, extra=extra)]

    def _triple(self, fields: Fields) -> Triple:
        """Prompt, first and second answer."""
        values = [at(fields, column) for column in self.answers]
        if self.prompt is None:
            first, second = (_judged_part(value, fields.get("turn")) for value in values)
            return conversations_of(first, second, self.answers)
        if self.turns_in_lists:
            return _from_lists(fields, (self.prompt, *self.answers))
        prompt = question(fields, "instruction", "input") if self.prompt == "instruction" else at(fields, self.prompt)
        return pair_of(prompt, values[0], values[1], (self.prompt, *self.answers))


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


def named(column: str, first: Any, second: Any, *ties: Any) -> Label:
    """The label `first` or `second` names the winner."""

    def judge(fields: Fields) -> Verdict:
        label = plain(at(fields, column))
        if label in (first, second):
            return int(label == second), None
        if label in ties:
            raise _tie(f"{column} is {label!r}")
        expected = f"expected {first!r} or {second!r}"
        raise Unfit(RejectReason.NO_PREFERENCE, f"{column} is {at(fields, column)!r}, {expected}")

    return Label((column,), judge)


def signed(column: str, middle: float = 0.0, tie: float | None = None) -> Label:
    """A number below `middle` is for the first answer, above it for the second; `tie`: another number for ties."""

    def judge(fields: Fields) -> Verdict:
        value = _number(fields, column)
        if value in (middle, tie):
            raise _tie(f"{column} is {value}")
        return int(value > middle), abs(value - middle)

    return Label((column,), judge)


def higher(first: str, second: str) -> Label:
    """The answer with the higher score wins."""

    def judge(fields: Fields) -> Verdict:
        scores = _number(fields, first), _number(fields, second)
        if scores[0] == scores[1]:
            raise _tie(f"{first} and {second} are both {scores[0]}")
        return int(scores[1] > scores[0]), abs(scores[1] - scores[0])

    return Label((first, second), judge)


def flagged(first: str, second: str) -> Label:
    """Each answer has a column that is 1 where it won."""

    def judge(fields: Fields) -> Verdict:
        flags = _number(fields, first), _number(fields, second)
        if sorted(flags) != [0, 1]:
            raise _tie(f"{first} is {flags[0]:g} and {second} is {flags[1]:g}")
        return int(flags[1] == 1), None

    return Label((first, second), judge)


# ---------------------------------------------------------------------------------------------------- prompts


def _judged_part(value: Any, turn: Any) -> Any:
    """A conversation up to the answer of the turn that was judged, 1 for the first; all of it where none is named."""
    if not isinstance(turn, int) or isinstance(turn, bool) or not isinstance(value, list):
        return value
    answers = [i for i, m in enumerate(value) if is_turn(m) and m.get("role", m.get("from")) == "assistant"]
    return value[: answers[turn - 1] + 1] if 0 < turn <= len(answers) else value


def _texts(value: Any, column: str) -> list[str]:
    """The texts of a JSON list, one a turn."""
    texts = json_column(value, column, list, "a list of texts, one per turn") or []
    if not all(isinstance(text, str) for text in texts):
        raise Unfit(RejectReason.NOT_TEXT, f"{column} has a turn that is not text")
    return texts


def _from_lists(fields: Fields, columns: tuple[str, str, str]) -> Triple:
    """Questions and answers in lists of their own, told by their place."""
    asked, *answers = (_texts(fields[column], column) for column in columns)
    if any(len(texts) != len(asked) for texts in answers):
        raise Unfit(RejectReason.BAD_MESSAGES, f"{', '.join(columns)} are lists of different lengths")
    first, second = (
        [m for q, a in zip(asked, texts, strict=True) for m in (user(q), assistant(a))] for texts in answers
    )
    return conversations_of(first, second, columns[1:])


def is_list_of_texts(value: Any) -> bool:
    """Whether a column holds a JSON list of texts."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return False
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


# ---------------------------------------------------------------------------------------------------- the table


MODELS = {"model": ("model_a", "model_b")}
SCORES_01 = ("score_0", "score_1")
TIES = ("tie", "tie (bothbad)", "both_bad", "bothbad", "tie(bothbad)")
ARENA = (named("winner", "model_a", "model_b", *TIES), "winner (model_a, model_b or a tie)", MODELS)
SUMMARIES = (
    ("summaries.0.text", "summaries.1.text"),
    named("choice", 0, 1),
    "choice (0 or 1)",
    {"policy": ("summaries.0.policy", "summaries.1.policy")},
)
TABLE = (
    Comparison(
        "pku-saferlhf",
        "prompt",
        ("response_0", "response_1"),
        named("better_response_id", 0, 1),
        "better_response_id (0 or 1)",
        {
            "response_source": ("response_0_source", "response_1_source"),
            "is_safe": ("is_response_0_safe", "is_response_1_safe"),
            "severity_level": ("response_0_severity_level", "response_1_severity_level"),
        },
    ),
    Comparison(
        "shp",
        "history",
        ("human_ref_A", "human_ref_B"),
        named("labels", 1, 0),
        "labels (1 if human_ref_A won, else 0)",
        {"score": ("score_A", "score_B")},
    ),
    Comparison(
        "helpsteer3",
        "context",
        ("response1", "response2"),
        signed("overall_preference"),
        "overall_preference (below 0 if response1 won, 0 for a tie)",
    ),
    Comparison(
        "helpsteer2",
        "prompt",
        ("response_1", "response_2"),
        signed("preference_strength"),
        "preference_strength (below 0 if response_1 won, 0 for a tie)",
    ),
    Comparison(
        "kaggle-lmsys",
        "prompt",
        ("response_a", "response_b"),
        flagged("winner_model_a", "winner_model_b"),
        "winner_model_a and winner_model_b (1 for the winner); the texts are lists, one text per turn",
        MODELS,
        turns_in_lists=True,
    ),
    Comparison("arena", None, ("conversation_a", "conversation_b"), *ARENA),
    Comparison("arena-answers", "prompt", ("response_a", "response_b"), *ARENA),
    Comparison(
        "webgpt",
        "question.full_text",
        ("answer_0", "answer_1"),
        higher(*SCORES_01),
        "score_0 and score_1 (the higher one wins)",
        {"score": SCORES_01},
    ),
    Comparison("summarize-from-feedback", "info.post", *SUMMARIES),
    Comparison("summarize-news", "info.article", *SUMMARIES),
    Comparison(
        "alpacafarm",
        "instruction",
        ("output_1", "output_2"),
        signed("preference", 1.5, tie=0),
        "preference (1 or 2)",
        {"generator": ("generator_1", "generator_2")},
    ),
    Comparison("halos", "prompt", ("output_A", "output_B"), named("label", 1, 0), "label (1 if output_A won, else 0)"),
    Comparison(
        "tinker",
        "comparison.prompt_conversation",
        ("comparison.completion_A", "comparison.completion_B"),
        named("label", "a", "b", "tie"),
        "label (A, B or Tie)",
    ),
)
COMPARISONS = tuple(comparison.form() for comparison in TABLE)
