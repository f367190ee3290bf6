"""`rmo-train compare`: two evaluations of the same pairs, and whether the second model is better than the first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rmo_train.console.errors import UserError
from rmo_train.evaluation.intervals import accuracy_difference, length_matched_difference, verdict
from rmo_train.evaluation.metrics import Interval, McNemar, length_matched_weights, mcnemar
from rmo_train.evaluation.result import Evaluation


@dataclass(frozen=True)
class Difference:
    """A metric of both models, and b - a with its paired interval and the verdict on b."""

    n: int  # number of pairs
    a: float
    b: float
    difference: Interval
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """b against a, on the same pairs."""

    pairs: int
    prompts: int
    reward_accuracy: Difference
    length_matched_reward_accuracy: Difference
    mcnemar: McNemar
    same_reference: bool

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(a: Evaluation, b: Evaluation, names: tuple[str, str] = ("A", "B")) -> Comparison:
    """Compare evaluation `b` with `a`; UserError unless they are of the same pairs. `names`: their sources."""
    check_same_pairs(a, b, names)
    margins_a, prompts, longer_by = (np.array(column) for column in zip(*a.pairs.values(), strict=True))
    margins_b = np.array([b.pairs[i][0] for i in a.pairs])
    matched = length_matched_weights(longer_by, np.zeros(len(longer_by))) > 0

    def difference(name: str, interval: Interval, of: np.ndarray) -> Difference:
        said = verdict(interval, len(np.unique(of)))
        return Difference(len(of), getattr(a, name).value, getattr(b, name).value, interval, said)

    return Comparison(
        pairs=len(prompts),
        prompts=len(np.unique(prompts)),
        reward_accuracy=difference("reward_accuracy", accuracy_difference(margins_a, margins_b, prompts), prompts),
        length_matched_reward_accuracy=difference(
            "length_matched_reward_accuracy",
            length_matched_difference(margins_a, margins_b, longer_by, prompts),
            prompts[matched],
        ),
        mcnemar=mcnemar(margins_a, margins_b, prompts),
        same_reference=a.reference_sha256 == b.reference_sha256,
    )


def check_same_pairs(a: Evaluation, b: Evaluation, names: tuple[str, str]) -> None:
    """Refuse evaluations with different ids, or with the same ids but different texts, labels or tokens."""
    shared = len(a.pairs.keys() & b.pairs.keys())
    if not shared == len(a.pairs) == len(b.pairs):
        raise UserError(
            f"{names[0]} and {names[1]} cover different pairs: {len(a.pairs)} and {len(b.pairs)} ids, {shared} in "
            "both; evaluate both models on the same run or shard folder"
        )
    if a.pairs_sha256 != b.pairs_sha256:
        raise UserError(
            f"{names[0]} and {names[1]} have the same {shared} ids, but the pairs differ: in their texts, in which "
            "answer is chosen, or in tokenizer or chat template; evaluate both models on the same run or shard "
            "folder"
        )
