"""Accuracy of margins, plain and length-matched, of one model or of two on the same pairs: pure functions of arrays.

Intervals are by bootstrap over prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmo_train.data.ragged import Ragged


def accuracy(margins: np.ndarray) -> float:
    """Share of pairs with a margin above 0; a tie counts 0.5, so a model that cannot tell has 0.5."""
    return float(np.mean((margins > 0) + 0.5 * (margins == 0))) if len(margins) else float("nan")


def length_strata(chosen_tokens: np.ndarray, rejected_tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stratum of each pair by |difference in tokens| (terciles, 0-2), and whether the chosen response is longer.

    Pairs of equal length get stratum -1: length cannot decide them.
    """
    difference = chosen_tokens.astype(np.int64) - rejected_tokens.astype(np.int64)
    size = np.abs(difference)
    unequal = size > 0
    stratum = np.full(len(size), -1)
    if unequal.any():
        cuts = np.quantile(size[unequal], [1 / 3, 2 / 3])
        stratum[unequal] = np.searchsorted(cuts, size[unequal], side="left")
    return stratum, difference > 0


def length_matched_accuracy(margins: np.ndarray, chosen_tokens: np.ndarray, rejected_tokens: np.ndarray) -> float:
    """Accuracy with length's help taken out: the mean over strata of |difference in tokens| of the plain average of
    accuracy where the chosen response is longer and where it is shorter, weighted by n_longer x n_shorter.

    "The longer wins" has exactly 0.5. NaN when no stratum has both kinds.
    """
    stratum, longer = length_strata(chosen_tokens, rejected_tokens)
    total, weight = 0.0, 0.0
    for s in range(3):
        a, b = margins[(stratum == s) & longer], margins[(stratum == s) & ~longer]
        w = float(len(a) * len(b))
        if w:
            total += w * (accuracy(a) + accuracy(b)) / 2
            weight += w
    return total / weight if weight else float("nan")


@dataclass(frozen=True)
class Interval:
    """A value with its 95% bootstrap interval."""

    value: float
    low: float
    high: float

    def __format__(self, sign: str) -> str:
        """`sign` "+": as a difference."""
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
    """95% interval of statistic(b) - statistic(a) on the same pairs: each draw of prompts is one for both.

    `statistic(margins, rows)` is of the margins at `rows`; `a` and `b` are margins [n] of the pairs in one order.
    """
    return bootstrap(lambda rows: statistic(b[rows], rows) - statistic(a[rows], rows), groups)


def verdict(interval: Interval, even: float = 0.0) -> str:
    """ "higher" or "lower" where the interval leaves out `even`, else "not distinguishable"."""
    return "higher" if interval.low > even else "lower" if interval.high < even else "not distinguishable"


@dataclass(frozen=True)
class McNemar:
    """Pairs that one model alone has right, and the exact two-sided p that they are as often the one's as the other's.

    Pairs with a tie, a margin of 0, in either model are neither right nor wrong, and are left out.
    """

    a_alone: int
    b_alone: int
    ties: int
    p: float


def mcnemar(a: np.ndarray, b: np.ndarray) -> McNemar:
    """McNemar's exact test of margins [n] of the same pairs: twice the smaller tail of Binomial(discordant, 1/2)."""
    from scipy.stats import binomtest

    decided = (a != 0) & (b != 0)
    a_alone = int((decided & (a > 0) & (b < 0)).sum())
    b_alone = int((decided & (a < 0) & (b > 0)).sum())
    discordant = a_alone + b_alone
    p = float(binomtest(b_alone, discordant).pvalue) if discordant else 1.0
    return McNemar(a_alone, b_alone, int((~decided).sum()), p)
