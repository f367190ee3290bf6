"""95% intervals of accuracies and their paired differences that are not overconfident with few prompts.

The bootstrap fails on few prompts: for six right answers of six it gives [1, 1]. So if prompts are few, or nearly all
have the same outcome, the interval is that of a score test (Wilson 1927; for differences Tango 1998), with the
effective number of independent pairs, since pairs of a prompt are correlated. Otherwise it is the bootstrap.
`benchmarks/coverage.py` measures the coverage of both; the limits below were chosen by it.
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

MANY_PROMPTS = 50  # with at least so many prompts the bootstrap has its nominal coverage,
LEAST_RARE = 10.0  # provided that so many prompts have the rarer outcome (for a difference: that so many differ)
LEAST_PROMPTS = 20  # with fewer prompts no verdict is given
TAIL = 0.975  # quantile of a 95% interval
CLOSE = 1e-9  # tolerance of the roots of Tango's score, as a share
HALF, NONE = Interval(0.5, 0.5, 0.5), Interval(0.0, 0.0, 0.0)
UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Weighted:
    """The pairs of a mean: weights [n] with any sum, and the index of each pair's prompt [n], -1 for none."""

    weights: np.ndarray
    prompt: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, weights: np.ndarray | None = None) -> Weighted:
        """groups: [n], the prompt of each pair. weights: [n], 0 for a pair that does not count; None: all equal."""
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
        """Effective number of pairs. off: each pair's value minus the mean [n]; variance: of a value, if all
        pairs were independent. If nothing varies, a prompt counts as one pair."""
        spread = float(np.square(self.by_prompt(off)).sum())
        if spread <= CLOSE * variance or variance <= 0:
            return 1 / float(np.square(self.by_prompt(np.ones(len(off)))).sum())
        return min(variance / spread, float(self.weights.sum() ** 2 / np.square(self.weights).sum()))

    @property
    def quantile(self) -> float:
        """Quantile of a normal variable, or of Student's t if the correlation within prompts is estimated from few."""
        from scipy.stats import norm, t

        return float(t.ppf(TAIL, self.prompts - 1) if 1 < self.prompts < self.pairs else norm.ppf(TAIL))

    def few(self, share: float) -> bool:
        """Whether the bootstrap would be overconfident. share: of pairs with the rarer outcome, or that differ."""
        return self.prompts < MANY_PROMPTS or share * self.prompts < LEAST_RARE


def verdict(interval: Interval, prompts: int, even: float = 0.0) -> str:
    """ "higher" or "lower" if the interval excludes `even`, otherwise "not distinguishable"; "too few to tell" with
    fewer prompts than LEAST_PROMPTS."""
    if prompts < LEAST_PROMPTS:
        return "too few to tell"
    return "higher" if interval.low > even else "lower" if interval.high < even else "not distinguishable"


# ---------------------------------------------------------------------------------------------------- one model


def accuracy_interval(margins: np.ndarray, groups: np.ndarray) -> Interval:
    """Interval of `metrics.accuracy` of margins [n]; groups: [n], the prompt of each pair.

    If all margins are 0, the model is the reference, whose accuracy is exactly 0.5.
    """
    return share_interval(right(margins), groups) if margins.any() else HALF


def length_matched_interval(
    margins: np.ndarray, chosen_tokens: np.ndarray, rejected_tokens: np.ndarray, groups: np.ndarray
) -> Interval:
    """Interval of `metrics.length_matched_accuracy`, with the same arguments, and `groups` as above."""
    pairs = Weighted.of(groups, length_matched_weights(chosen_tokens, rejected_tokens))
    if pairs.pairs and not margins.any():
        return HALF
    return _share(right(margins), pairs) or bootstrap(
        lambda rows: length_matched_accuracy(margins[rows], chosen_tokens[rows], rejected_tokens[rows]), groups
    )


def share_interval(values: np.ndarray, groups: np.ndarray) -> Interval:
    """Interval of the mean of values [n] in [0, 1]; groups: [n], the prompt of each pair."""
    return _share(values, Weighted.of(groups)) or _bootstrap_share(values, groups)


def _bootstrap_share(values: np.ndarray, groups: np.ndarray, draws: int = 1000, seed: int = 0) -> Interval:
    """`metrics.bootstrap` of a mean, with the same draws, but by sums over prompts, which is fast for many pairs."""
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
    """The score interval of the weighted mean; None if the bootstrap is as good."""
    if not pairs.pairs:
        return UNKNOWN
    share = pairs.mean(values)
    if not pairs.few(min(share, 1 - share)):
        return None
    variance = max(share * (1 - share), 0.0)
    return Interval(share, *wilson(share, pairs.effective(values - share, variance), pairs.quantile))


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """The shares that a score test of n answers does not reject (Wilson): within z of their own standard errors."""
    centre, size = share + z**2 / (2 * n), 1 + z**2 / n
    half = z * np.sqrt(max(share * (1 - share), 0.0) / n + z**2 / (4 * n**2))
    low, high = float((centre - half) / size), float((centre + half) / size)
    return max(0.0, min(low, share)), min(1.0, max(high, share))


# ---------------------------------------------------------------------------------------------------- two models


def accuracy_difference(a: np.ndarray, b: np.ndarray, groups: np.ndarray) -> Interval:
    """Accuracy of margins b minus that of a, [n] each, of the same pairs. Equal margins mean the same model."""
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
    """The score interval of the weighted mean of b - a, values in [0, 1]; None if the bootstrap is as good.

    It contains 0 whenever the exact sign test over prompts does not distinguish the two.
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
    """If one model has only ties, as the reference has, the uncertainty is that of the other model's share."""
    for ties, other, sign in ((a, b, 1), (b, a, -1)):
        if (ties[pairs.prompt >= 0] == 0.5).all():
            share = pairs.mean(other)
            ends = wilson(share, pairs.effective(other - share, share * (1 - share)), pairs.quantile)
            low, high = sorted(sign * (end - 0.5) for end in ends)
            return low, high
    return None


def tango(up: float, down: float, n: float, z: float) -> tuple[float, float]:
    """The differences that a score test of n pairs does not reject; `up` and `down`: shares of the pairs that only one
    and only the other model gets right (Tango 1998, eq. 7)."""
    from scipy.optimize import brentq

    change = up - down

    def refused(x: float) -> float:
        """Positive if x is rejected. q: the most likely share of `down` pairs if the difference is x."""
        linear, constant = (2 - up + down) * x - up - down, -down * x * (1 - x)
        q = (np.sqrt(max(linear**2 - 8 * constant, 0.0)) - linear) / 4
        return float(n * (change - x) ** 2 - z**2 * (2 * q + x * (1 - x)))

    def end(inner: Callable[[float], float], outer: float) -> float:
        start = inner(CLOSE)
        if abs(start) >= 1 or refused(start) >= 0:
            return outer if abs(start) >= 1 else change
        return float(brentq(refused, start, outer)) if refused(outer) > 0 else outer

    return end(lambda step: change - step, -1.0), end(lambda step: change + step, 1.0)
