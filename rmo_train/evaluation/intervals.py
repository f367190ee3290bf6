"""95% intervals of accuracies and of their paired differences that few prompts do not make too sure of themselves.

Resampled prompts know only what they hold: of six right answers the bootstrap says [1, 1]. So where prompts are few, or
nearly all of one outcome, the interval is the one of a score test (Wilson 1927; of differences Tango 1998), at the
number of independent pairs that the data are worth, since pairs of a prompt are alike. Elsewhere it is the bootstrap.
`benchmarks/coverage.py` has the coverage of both, which the limits below are chosen by.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmo_train.evaluation.metrics import (
    Interval,
    bootstrap,
    length_matched_accuracy,
    length_matched_weights,
    right,
    sign_test,
)

MANY_PROMPTS = 50  # from here on the bootstrap covers what it says,
LEAST_RARE = 10.0  # if so many prompts have the rarer outcome; of a difference: if so many differ
LEAST_PROMPTS = 20  # of fewer no verdict is given
TAIL = 0.975  # quantile of a 95% interval
CLOSE = 1e-9  # of the roots of Tango's score, in shares
HALF, NONE = Interval(0.5, 0.5, 0.5), Interval(0.0, 0.0, 0.0)
UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Weighted:
    """Pairs whose mean is taken: weights [n] of any sum, and the number of each pair's prompt [n], -1 where a pair does
    not count."""

    weights: np.ndarray
    prompt: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, weights: np.ndarray | None = None) -> Weighted:
        """groups: [n], equal where prompts are. weights: [n], 0 for a pair that does not count; None: all alike."""
        weights = np.ones(len(groups)) if weights is None else np.asarray(weights, dtype=np.float64)
        counts = weights > 0
        _, number = np.unique(np.asarray(groups)[counts].astype(str), return_inverse=True)
        prompt = np.full(len(groups), -1)
        prompt[counts] = number
        return cls(weights, prompt)

    def mean(self, values: np.ndarray) -> float:
        """Of values [n]; NaN where no pair counts."""
        return float(self.weights @ values / self.weights.sum()) if self.pairs else float("nan")

    @property
    def pairs(self) -> int:
        """Those that count."""
        return int((self.prompt >= 0).sum())

    @property
    def prompts(self) -> int:
        return int(self.prompt.max(initial=-1)) + 1

    def by_prompt(self, values: np.ndarray) -> np.ndarray:
        """What each prompt's pairs add to the mean of values [n]: [prompts]."""
        counts = self.prompt >= 0
        return np.bincount(self.prompt[counts], (self.weights * values)[counts], self.prompts) / self.weights.sum()

    def effective(self, off: np.ndarray, variance: float) -> float:
        """Number of independent pairs that these are worth. off: each pair's value less the mean [n]; variance: of a
        value, were all pairs independent. Where nothing varies, a prompt counts as one pair."""
        spread = float(np.square(self.by_prompt(off)).sum())
        if spread <= CLOSE * variance or variance <= 0:
            return 1 / float(np.square(self.by_prompt(np.ones(len(off)))).sum())
        return min(variance / spread, float(self.weights.sum() ** 2 / np.square(self.weights).sum()))

    @property
    def quantile(self) -> float:
        """Of a normal variable; of Student's t where the likeness of a prompt's pairs is itself estimated from few."""
        from scipy.stats import norm, t

        return float(t.ppf(TAIL, self.prompts - 1) if 1 < self.prompts < self.pairs else norm.ppf(TAIL))

    def few(self, share: float) -> bool:
        """Whether the bootstrap would be too sure. share: of pairs with the rarer outcome, or that differ."""
        return self.prompts < MANY_PROMPTS or share * self.prompts < LEAST_RARE


def verdict(interval: Interval, prompts: int, even: float = 0.0) -> str:
    """ "higher" or "lower" where the interval leaves out `even`, else "not distinguishable"; of fewer prompts than
    LEAST_PROMPTS "too few to tell"."""
    if prompts < LEAST_PROMPTS:
        return "too few to tell"
    return "higher" if interval.low > even else "lower" if interval.high < even else "not distinguishable"


# ---------------------------------------------------------------------------------------------------- one model


def accuracy_interval(margins: np.ndarray, groups: np.ndarray) -> Interval:
    """Of `metrics.accuracy` of margins [n]; groups: [n], equal where prompts are.

    Margins that are all 0 are the reference's own, whose accuracy is 0.5 and nothing else.
    """
    return share_interval(right(margins), groups) if margins.any() else HALF


def length_matched_interval(
    margins: np.ndarray, chosen_tokens: np.ndarray, rejected_tokens: np.ndarray, groups: np.ndarray
) -> Interval:
    """Of `metrics.length_matched_accuracy`, whose arguments these are, and `groups` as above."""
    pairs = Weighted.of(groups, length_matched_weights(chosen_tokens, rejected_tokens))
    if pairs.pairs and not margins.any():
        return HALF
    return _share(right(margins), pairs) or bootstrap(
        lambda rows: length_matched_accuracy(margins[rows], chosen_tokens[rows], rejected_tokens[rows]), groups
    )


def share_interval(values: np.ndarray, groups: np.ndarray) -> Interval:
    """Of the mean of values [n] in [0, 1]; groups: [n], equal where prompts are."""
    return _share(values, Weighted.of(groups)) or _bootstrap_share(values, groups)


def _bootstrap_share(values: np.ndarray, groups: np.ndarray, draws: int = 1000, seed: int = 0) -> Interval:
    """`metrics.bootstrap` of a mean, its very draws, by sums over prompts: an audit has many of many pairs."""
    _, prompt = np.unique(groups.astype(str), return_inverse=True)
    sums, sizes = np.bincount(prompt, values), np.bincount(prompt)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        drawn = rng.integers(0, len(sizes), len(sizes))
        means.append(sums[drawn].sum() / sizes[drawn].sum())
    low, high = np.quantile(means, [1 - TAIL, TAIL])
    return Interval(float(values.mean()), float(low), float(high))


def _share(values: np.ndarray, pairs: Weighted) -> Interval | None:
    """The score interval of the weighted mean; None where the bootstrap is as good."""
    if not pairs.pairs:
        return UNKNOWN
    share = pairs.mean(values)
    if not pairs.few(min(share, 1 - share)):
        return None
    variance = max(share * (1 - share), 0.0)
    return Interval(share, *wilson(share, pairs.effective(values - share, variance), pairs.quantile))


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """The shares that a score test of n answers does not refuse: within z standard errors, each by its own."""
    centre, size = share + z**2 / (2 * n), 1 + z**2 / n
    half = z * np.sqrt(max(share * (1 - share), 0.0) / n + z**2 / (4 * n**2))
    low, high = float((centre - half) / size), float((centre + half) / size)
    return max(0.0, min(low, share)), min(1.0, max(high, share))


# ---------------------------------------------------------------------------------------------------- two models


def accuracy_difference(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> Interval:
    """Accuracy of margins b less that of a, [n] each, of the same pairs; the same margins are the same model's."""
    if np.array_equal(a, b):
        return NONE
    return _difference(right(a), right(b), Weighted.of(groups)) or bootstrap(
        lambda rows: float((right(b[rows]) - right(a[rows])).mean()), groups
    )


def length_matched_difference(a: np.ndarray, b: np.ndarray, longer_by: np.ndarray, groups: np.ndarray) -> Interval:
    """The same of length-matched accuracy; longer_by: tokens by which the chosen response is the longer one [n]."""

    def difference(rows: np.ndarray) -> float:
        of_a, of_b = (length_matched_accuracy(m[rows], longer_by[rows], np.zeros(len(rows))) for m in (a, b))
        return of_b - of_a

    pairs = Weighted.of(groups, length_matched_weights(longer_by, np.zeros(len(longer_by))))
    if pairs.pairs and np.array_equal(a, b):
        return NONE
    return _difference(right(a), right(b), pairs) or bootstrap(difference, groups)


def _difference(a: np.ndarray, b: np.ndarray, pairs: Weighted) -> Interval | None:
    """The score interval of the weighted mean of b - a, values in [0, 1]; None where the bootstrap is as good.

    It holds 0 wherever the exact test of the prompts' signs does not tell the two apart.
    """
    if not pairs.pairs:
        return UNKNOWN
    d = b - a
    change = pairs.mean(d)
    up, down = pairs.mean(np.maximum(d, 0)), pairs.mean(np.maximum(-d, 0))
    if not pairs.few(pairs.mean(d != 0)):
        return None
    if (one := _beside_ties(a, b, pairs)) is not None:
        low, high = one
    else:
        variance = up + down - change**2
        low, high = tango(up, down, pairs.effective(d - change, variance), pairs.quantile)
    net = pairs.by_prompt(d)
    if sign_test(int((net > 0).sum()), int((net < 0).sum())) >= 2 * (1 - TAIL):
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(change, low, high)


def _beside_ties(a: np.ndarray, b: np.ndarray, pairs: Weighted) -> tuple[float, float] | None:
    """Where one model has ties alone, as the reference has, the difference is as sure as the other's share."""
    for ties, other, sign in ((a, b, 1), (b, a, -1)):
        if (ties[pairs.prompt >= 0] == 0.5).all():
            share = pairs.mean(other)
            ends = wilson(share, pairs.effective(other - share, share * (1 - share)), pairs.quantile)
            low, high = sorted(sign * (end - 0.5) for end in ends)
            return low, high
    return None


def tango(up: float, down: float, n: float, z: float) -> tuple[float, float]:
    """The differences that a score test of n pairs does not refuse, `up` and `down` being the shares of those that
    only the one and only the other model has right (Tango 1998, eq. 7)."""
    from scipy.optimize import brentq

    change = up - down

    def refused(x: float) -> float:
        """Above 0 where x is refused. q: share of `down` pairs that is likeliest if the difference is x."""
        linear, constant = (2 - up + down) * x - up - down, -down * x * (1 - x)
        q = (np.sqrt(max(linear**2 - 8 * constant, 0.0)) - linear) / 4
        return float(n * (change - x) ** 2 - z**2 * (2 * q + x * (1 - x)))

    def end(inner: Callable[[float], float], outer: float) -> float:
        start = inner(CLOSE)
        if abs(start) >= 1 or refused(start) >= 0:
            return outer if abs(start) >= 1 else change
        return float(brentq(refused, start, outer)) if refused(outer) > 0 else outer

    return end(lambda step: change - step, -1.0), end(lambda step: change + step, 1.0)
