"""Several ranked answers to one prompt: every two of different rank are a pair, the lower rank chosen; ties are none.

A pair carries `chosen_rank` and `rejected_rank`, and likewise what else is said of the two answers (`chosen_model`).
"""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

from rmo_curate.read.forms.form import Candidate, Fields, Form, all_messages, is_text
from rmo_curate.read.forms.trl import conversational
from rmo_curate.read.forms.turns import TURN, turns
from rmo_curate.read.messages import Message, RejectReason, Unfit, assistant, check_text, describe, messages, user


def _is_ranked(value: Any, answer: str) -> bool:
    return isinstance(value, list) and all(isinstance(a, dict) and {answer, "rank"} <= a.keys() for a in value)


def _rank(answer: Any, where: str, text: str) -> float:
    if not isinstance(answer, dict) or text not in answer:
        raise Unfit(RejectReason.NOT_TEXT, f"{where} is {describe(answer)}, expected an object with {text} and rank")
    rank = answer.get("rank")
    if isinstance(rank, bool) or not isinstance(rank, int | float) or not math.isfinite(rank):
        shown = repr(rank) if isinstance(rank, float) else describe(rank)
        raise Unfit(RejectReason.NO_PREFERENCE, f"the rank of {where} is {shown}, expected a number")
    return rank


def _pairs(fields: Fields, prompt: list[Message], column: str, text: str) -> list[Candidate]:
    """A candidate for every (better, worse) of the answers in `column`, whose response is under the key `text`."""
    answers = fields[column]
    if not isinstance(answers, list):
        raise Unfit(RejectReason.NOT_TEXT, f"{column} is {describe(answers)}, expected a list of ranked answers")
    ranks = [_rank(answer, f"answer {i} of {column}", text) for i, answer in enumerate(answers, start=1)]
    candidates = []
    for better, worse in permutations(range(len(answers)), 2):
        if ranks[better] >= ranks[worse]:
            continue
        sides = {"chosen": answers[better], "rejected": answers[worse]}
        responses = {side: _response(answer[text]) for side, answer in sides.items()}
        extra = {f"{side}_{k}": v for side, answer in sides.items() for k, v in answer.items() if k != text}
        candidates.append(Candidate({**fields, "prompt": prompt, **responses}, f"{better + 1}-{worse + 1}", extra))
    if not candidates:
        raise Unfit(RejectReason.NO_PREFERENCE, f"{column} has no two answers of different rank")
    return candidates


def _response(value: Any) -> Any:
    return [assistant(value)] if isinstance(value, str) else value


def _nectar(fields: Fields) -> list[Candidate]:
    prompt = check_text(fields["prompt"], "prompt")
    asked = turns(prompt, "prompt") if TURN.match(prompt) else [user(prompt)]
    if asked[-1] == assistant(""):  # the turn that the answers fill
        asked = asked[:-1]
    return _pairs(fields, asked, "answers", "answer")


def _nemo(fields: Fields) -> list[Candidate]:
    return _pairs(fields, messages(fields["context"], "context"), "completions", "completion")


NECTAR = Form(
    "nectar",
    ("prompt", "answers"),
    "prompt is text, answers is a list of {answer, rank}; rank 1 is the best",
    lambda f: is_text(f.get("prompt")) and _is_ranked(f.get("answers"), "answer"),
    conversational,
    expand=_nectar,
)
NEMO = Form(
    "nemo-rl",
    ("context", "completions"),
    "context is a list of messages, completions is a list of {completion, rank}; the lowest rank is the best",
    lambda f: all_messages(f, "context") and _is_ranked(f.get("completions"), "completion"),
    conversational,
    expand=_nemo,
)
