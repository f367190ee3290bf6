"""`rmo-train compare`: two evaluations of the same pairs, and whether the second model is better than the first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rmo_train.console.errors import UserError
from rmo_train.evaluation.metrics import (
    Interval,
    McNemar,
    accuracy,
    length_matched_accuracy,
    mcnemar,
    paired_difference,
    verdict,
)
from rmo_train.evaluation.result import Evaluation


@dataclass(frozen=True)
class Difference:
    """A figure of both models, and b - a with its paired interval and what that says of b."""

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
    """Evaluation `b` against `a`; UserError where they are not of the same pairs. `names`: where they are from."""
    check_same_pairs(a, b, names)
    margins_a, prompts, longer = (np.array(column) for column in zip(*a.pairs.values(), strict=True))
    margins_b = np.array([b.pairs[i][0] for i in a.pairs])

    def matched(margins: np.ndarray, rows: np.ndarray) -> float:
        return length_matched_accuracy(margins, longer[rows], np.zeros(len(rows)))

    def difference(name: str, interval: Interval) -> Difference:
        return Difference(getattr(a, name).value, getattr(b, name).value, interval, verdict(interval))

    plain = paired_difference(lambda margins, rows: accuracy(margins), margins_a, margins_b, prompts)
    return Comparison(
        pairs=len(prompts),
        prompts=len(np.unique(prompts)),
        reward_accuracy=difference("reward_accuracy", plain),
        length_matched_reward_accuracy=difference(
            "length_matched_reward_accuracy", paired_difference(matched, margins_a, margins_b, prompts)
        ),
        mcnemar=mcnemar(margins_a, margins_b),
        same_reference=a.reference_sha256 == b.reference_sha256,
    )


def check_same_pairs(a: Evaluation, b: Evaluation, names: tuple[str, str]) -> None:
    """Refuse evaluations of other ids, and of the same ids on other texts, labels or tokens."""
    shared = len(a.pairs.keys() & b.pairs.keys())
    if not shared == len(a.pairs) == len(b.pairs):
        raise UserError(
            f"{names[0]} and {names[1]} are of different pairs: {len(a.pairs)} and {len(b.pairs)} ids, {shared} in "
            "both; evaluate both models on the same run or shard folder"
        )
    if a.pairs_sha256 != b.pairs_sha256:
        raise UserError(
            f"{names[0]} and {names[1]} have the same {shared} ids, but not the same pairs: other texts, chosen and "
            "rejected exchanged, or another tokenizer or chat template; evaluate both models on the same run or shard "
            "folder"
        )
