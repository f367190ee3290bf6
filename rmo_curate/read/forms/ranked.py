"""Several answers to one prompt with ranks, scores or labels: every two that differ are a pair; ties are none.

A pair carries `chosen_rank` and `rejected_rank` (or `_score`), and likewise what else is said of the two answers
(`chosen_model`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from rmo_curate.read.forms.answers import answer_of, is_said, prompt_of
from rmo_curate.read.forms.form import Candidate, Fields, Form, at, is_number, is_text
from rmo_curate.read.forms.trl import conversational
from rmo_curate.read.messages import (
    Message,
    RejectReason,
    Unfit,
    describe,
    is_messages,
    is_turn,
    messages,
)


@dataclass(frozen=True)
class Ranked:
    """One of the answers to a prompt."""

    said: Any  # its messages, or what is no answer, for the pair that holds it to be refused
    rank: float  # or score
    about: Mapping[str, Any]  # what else is known of it


@dataclass(frozen=True)
class Ranking:
    """Where the answers stand and what orders them."""

    name: str
    prompt: str
    answers: str  # a list of answers
    text: str  # the key of an answer's text
    order: str  # the key of its rank or score
    lower: bool  # whether the lowest is the best
    says: str

    def form(self) -> Form:
        def matches(fields: Fields) -> bool:
            answers = fields.get(self.answers)
            return is_said(fields.get(self.prompt)) and isinstance(answers, list) and all(map(self._is_answer, answers))

        looks = (
            f"{self.prompt} is text or messages, {self.answers} is a list of {{{self.text}, {self.order}}}; {self.says}"
        )
        return Form(self.name, (self.prompt, self.answers), looks, matches, conversational, expand=self._expand)

    def _is_answer(self, value: Any) -> bool:
        return isinstance(value, dict) and {self.text, self.order} <= value.keys()

    def _expand(self, fields: Fields) -> list[Candidate]:
        prompt, notation = prompt_of(fields[self.prompt], self.prompt)
        answers = fields[self.answers]
        if not isinstance(answers, list):
            raise Unfit(RejectReason.NOT_TEXT, f"{self.answers} is {describe(answers)}, expected a list of answers")
        places = [f"answer {i} of {self.answers}" for i in range(1, len(answers) + 1)]
        for answer, where in zip(answers, places, strict=True):
            if not isinstance(answer, dict) or self.text not in answer:
                expected = f"expected an object with {self.text} and {self.order}"
                raise Unfit(RejectReason.NOT_TEXT, f"{where} is {describe(answer)}, {expected}")
        ranked = [self._ranked(a, w, notation) for a, w in zip(answers, places, strict=True)]
        return every_two(fields, prompt, ranked, lower=self.lower, where=self.answers)

    def _ranked(self, answer: Fields, where: str, notation: Any) -> Ranked:
        rank = _rank(answer.get(self.order), f"the {self.order} of {where}")
        about = {k: v for k, v in answer.items() if k != self.text}
        return Ranked(_said(answer[self.text], where, notation), rank, about)


def _rank(rank: Any, where: str) -> float:
    if not is_number(rank):
        shown = repr(rank) if isinstance(rank, float) else describe(rank)
        raise Unfit(RejectReason.NO_PREFERENCE, f"{where} is {shown}, expected a number")
    return rank


def _said(value: Any, where: str, notation: Any) -> Any:
    """An answer's messages; what is no answer is left as it is, for the pair that holds it to be refused."""
    return answer_of(value, where, notation) if is_said(value) else value


def every_two(
    fields: Fields, prompt: list[Message], answers: Sequence[Ranked], *, lower: bool, where: str, name: str = ""
) -> list[Candidate]:
    """A candidate for every (better, worse) of the answers; `name`: of the question."""
    candidates = []
    for (i, better), (j, worse) in permutations(enumerate(answers, start=1), 2):
        if better.rank == worse.rank or (better.rank > worse.rank) == lower:
            continue
        sides = {"chosen": better, "rejected": worse}
        responses = {side: answer.said for side, answer in sides.items()}
        extra = {f"{side}_{k}": v for side, answer in sides.items() for k, v in answer.about.items()}
        candidates.append(Candidate({**fields, "prompt": prompt, **responses}, f"{name}{i}-{j}", extra))
    if not candidates:
        kind = "rank" if lower else "score"
        raise Unfit(RejectReason.NO_PREFERENCE, f"{where} has no two answers of different {kind}")
    return candidates


def _scored(said: Any, score: Any, where: str) -> Ranked:
    """An answer of which the data say its score alone."""
    rank = _rank(score, f"the score of {where}")
    return Ranked(answer_of(said, where), rank, {"score": rank})


BEST_LOW, BEST_HIGH = "the lowest rank is the best", "the highest score is the best"


def _magpie(fields: Fields) -> list[Candidate]:
    """Magpie: answers and the scores of a reward model in two lists."""
    texts, rewards = fields["responses"], fields["rewards_armorm"]
    if not isinstance(texts, list) or not isinstance(rewards, list) or len(texts) != len(rewards):
        raise Unfit(RejectReason.NO_PREFERENCE, "responses and rewards_armorm are not two lists of the same length")
    prompt, _ = prompt_of(fields["instruction"], "instruction")
    scored = zip(texts, rewards, strict=True)
    answers = [_scored(text, at(reward, "score"), f"response {i}") for i, (text, reward) in enumerate(scored, start=1)]
    return every_two(fields, prompt, answers, lower=False, where="responses")


MAGPIE = Form(
    "magpie",
    ("instruction", "responses", "rewards_armorm"),
    f"instruction is text, responses is a list of texts, rewards_armorm a list of {{score}}; {BEST_HIGH}",
    lambda f: (
        is_text(f.get("instruction")) and all(isinstance(f.get(c), list) for c in ("responses", "rewards_armorm"))
    ),
    conversational,
    expand=_magpie,
)


def _vertex(fields: Fields) -> list[Candidate]:
    """Vertex AI: contents of {role, parts} and completions with scores."""
    prompt = messages(fields["contents"], "contents")
    listed = fields["completions"]
    if not isinstance(listed, list) or not all(isinstance(a, dict) and is_turn(a.get("completion")) for a in listed):
        raise Unfit(RejectReason.NOT_TEXT, "completions is not a list of {score, completion}")
    answers = [_scored(a["completion"], a.get("score"), f"completion {i}") for i, a in enumerate(listed, start=1)]
    return every_two(fields, prompt, answers, lower=False, where="completions")


VERTEX = Form(
    "vertex",
    ("contents", "completions"),
    f"contents is a list of {{role, parts}}, completions is a list of {{score, completion}}; {BEST_HIGH}",
    lambda f: (
        bool(f.get("contents"))
        and is_messages(f.get("contents"))
        and isinstance(f.get("completions"), list)
        and all(isinstance(a, dict) and is_turn(a.get("completion")) for a in f["completions"])
    ),
    conversational,
    expand=_vertex,
)
NOVA_LABELS = {"preferred": 1.0, "non-preferred": 0.0}


def _candidates_of(value: Any) -> Any:
    last = value[-1] if isinstance(value, list) and value else None
    return last.get("candidates") if isinstance(last, dict) else None


def _nova(fields: Fields) -> list[Candidate]:
    """Amazon Nova: the last message has candidates, each with a preferenceLabel."""
    whole, listed = fields["messages"], _candidates_of(fields["messages"])
    if not isinstance(listed, list) or not all(isinstance(c, dict) for c in listed):
        raise Unfit(RejectReason.NO_PREFERENCE, "the last message has no candidates")
    prompt = messages(whole[:-1], "messages")
    labels = [str(c.get("preferenceLabel")).strip().lower() for c in listed]
    if unknown := [label for label in labels if label not in NOVA_LABELS]:
        expected = " or ".join(map(repr, NOVA_LABELS))
        raise Unfit(RejectReason.NO_PREFERENCE, f"a preferenceLabel is {unknown[0]!r}, expected {expected}")
    answers = [
        Ranked(messages([{"role": "assistant", "content": c.get("content")}], "candidates"), NOVA_LABELS[label], {})
        for c, label in zip(listed, labels, strict=True)
    ]
    return every_two(fields, prompt, answers, lower=False, where="candidates")


NOVA = Form(
    "amazon-nova",
    ("messages",),
    "messages ends with candidates of {content, preferenceLabel}",
    lambda f: isinstance(_candidates_of(f.get("messages")), list),
    conversational,
    expand=_nova,
)
RANKINGS = (
    Ranking("nectar", "prompt", "answers", "answer", "rank", True, "rank 1 is the best").form(),
    Ranking("nemo-rl", "context", "completions", "completion", "rank", True, BEST_LOW).form(),
    Ranking("ultrafeedback", "instruction", "completions", "response", "overall_score", False, BEST_HIGH).form(),
    Ranking("stack-exchange", "question", "answers", "text", "pm_score", False, BEST_HIGH).form(),
    MAGPIE,
    VERTEX,
    NOVA,
)
