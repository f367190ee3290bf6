"""Accuracy of margins, plain and length-matched, the bootstrap over prompts and exact tests: pure functions of arrays.

`intervals` chooses the interval of an accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmo_train.data.ragged import Ragged


def right(margins: np.ndarray) -> np.ndarray:
    """1 for a positive margin, 0.5 for a tie (0), 0 for a negative one: [n]."""
    return (margins > 0) + 0.5 * (margins == 0)


def accuracy(margins: np.ndarray) -> float:
    """Share of pairs with a positive margin; a tie counts 0.5, so a model that cannot distinguish has 0.5."""
    return float(np.mean(right(margins))) if len(margins) else float("nan")


def length_strata(chosen_tokens: np.ndarray, rejected_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stratum of each pair by |difference in tokens| (terciles, 0-2), and whether the chosen response is longer.

    Pairs of equal length get stratum -1, since length cannot decide them.
    """
    difference = chosen_tokens.astype(np.int64) - rejected_tokens.astype(np.int64)
    size = np.abs(difference)
    unequal = size > 0
    stratum = np.full(len(size), -1)
    if unequal.any():
        cuts = np.quantile(size[unequal], [1 / 3, 2 / 3])
        stratum[unequal] = np.searchsorted(cuts, size[unequal], side="left")
    return stratum, difference > 0


def length_matched_weights(chosen_tokens: np.ndarray, rejected_tokens: np.ndarray) -> np.ndarray:
    """Weight of each pair in `length_matched_accuracy`: [n], with sum 1; all 0 if no stratum has both kinds."""
    stratum, longer = length_strata(chosen_tokens, rejected_tokens)
    weights = np.zeros(len(stratum))
    for s in range(3):
        a, b = (stratum == s) & longer, (stratum == s) & ~longer
        n_a, n_b = int(a.sum()), int(b.sum())
        weights[a], weights[b] = n_b, n_a  # each kind gets n_a x n_b in total
    total = weights.sum()
    return weights / total if total else weights


def length_matched_accuracy(margins: np.ndarray, chosen_tokens: np.ndarray, rejected_tokens: np.ndarray) -> float:
    """Accuracy corrected for length: within each stratum of |difference in tokens|, the average of the accuracies where
    the chosen response is longer and where it is shorter; strata are weighted by n_longer x n_shorter.

    "The longer wins" has exactly 0.5. NaN when no stratum has both kinds.
    """
    weights = length_matched_weights(chosen_tokens, rejected_tokens)
    return float(weights @ right(margins)) if weights.any() else float("nan")


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float

    def __format__(self, sign: str) -> str:
        """`sign` "+": formatted as a difference."""
        return f"{self.value:{sign}.3f} [{self.low:{sign}.3f}, {self.high:{sign}.3f}]"

    def __str__(self) -> str:
        return format(self)


def bootstrap(
    statistic: Callable[[np.ndarray], float], groups: np.ndarray, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """95% percentile interval of `statistic(rows)` by resampling whole groups (prompts); `groups` has length n."""
    _, group_of = np.unique(groups.astype(str), return_inverse=True)
    members = Ragged.from_lengths(np.argsort(group_of, kind="stable"), np.bincount(group_of))
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = rng.integers(0, len(members), len(members))
        values.append(statistic(np.concatenate([members[g] for g in drawn])))
    low, high = np.nanquantile(values, [0.025, 0.975]) if np.isfinite(values).any() else (np.nan, np.nan)
    return Interval(statistic(np.arange(len(groups))), float(low), float(high))


def paired_difference(
    statistic: Callable[[np.ndarray, np.ndarray], float], a: np.ndarray, b: np.ndarray, groups: np.ndarray
) -> Interval:
    """95% interval of statistic(b) - statistic(a) on the same pairs: each draw of prompts is used for both.

    `statistic(margins, rows)` is of the margins at `rows`; `a` and `b` are margins [n] of the pairs in one order.
    """
    return bootstrap(lambda rows: statistic(b[rows], rows) - statistic(a[rows], rows), groups)


def sign_test(up: int, down: int) -> float:
    """Exact two-sided p-value of the sign test of `up` against `down`: twice the smaller tail of Binomial(., 1/2)."""
    from scipy.stats import binomtest

    return float(binomtest(up, up + down).pvalue) if up + down else 1.0


@dataclass(frozen=True)
class McNemar:
    """Pairs that only one of the models gets right, and the exact two-sided p-value that both have equally many.

    Pairs with a tie (a margin of 0) in either model are left out. Pairs of a prompt are not independent, so p counts a
    prompt once, for the model that alone gets more of its pairs right.
    """

    a_alone: int
    b_alone: int
    ties: int
    p: float


def mcnemar(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> McNemar:
    """McNemar's exact test of margins [n] of the same pairs; groups: [n], the prompt of each pair."""
    decided = (a != 0) & (b != 0)
    alone = np.where(decided, (b > 0).astype(int) - (a > 0), 0)  # 1: B's, -1: A's
    _, prompt = np.unique(groups.astype(str), return_inverse=True)
    net = np.bincount(prompt, alone)
    return McNemar(
        a_alone=int((alone < 0).sum()),
        b_alone=int((alone > 0).sum()),
        ties=int((~decided).sum()),
        p=sign_test(int((net > 0).sum()), int((net < 0).sum())),
    )
