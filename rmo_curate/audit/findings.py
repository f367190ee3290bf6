"""The numbers of an audit: pure functions of arrays, to frozen dataclasses.

Margins are in nats. `logp margin` is D_m = l_m(chosen) - l_m(rejected) under checkpoint m; `reward margin` is
D_m - D_0, the implicit reward margin of DPO without its beta, 0 at the base. NaN: a pair without scores (too long).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rmo_train.console.errors import ProcessingError
from rmo_train.evaluation.intervals import LEAST_PROMPTS, UNKNOWN, accuracy_interval
from rmo_train.evaluation.metrics import Interval

KEPT = "kept"
GROUPS = (KEPT, "noisy", "ambiguous", "other")  # how the charts colour a pair; "other" is every other drop reason


@dataclass(frozen=True)
class Counts:
    """Where every input record went. `dropped` and `rejects_by_reason` hold only reasons that occur."""

    records: int
    pairs: int
    rejects: int
    rejects_by_reason: dict[str, int]
    kept: int
    dropped: dict[str, int]
    scorable: int

    def __post_init__(self) -> None:
        sums = (
            ("pairs + rejects", self.pairs + self.rejects, "records", self.records),
            ("rejects by reason", sum(self.rejects_by_reason.values()), "rejects", self.rejects),
            ("kept + dropped", self.kept + sum(self.dropped.values()), "pairs", self.pairs),
        )
        for name, total, whole, expected in sums:
            if total != expected:
                raise ProcessingError(
                    f"the run's counts do not add up: {name} = {total}, {whole} = {expected}; "
                    "the run folder is damaged, score it again with --overwrite"
                )


@dataclass(frozen=True)
class Distribution:
    """Summary of the finite values of one margin."""

    n: int
    mean: float
    sd: float
    p05: float
    p25: float
    median: float
    p75: float
    p95: float
    share_above_zero: float
    share_below_zero: float


@dataclass(frozen=True)
class Histogram:
    """Counts of values between `edges`, by group; `below` and `above` lie beyond the outer edges."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]
    below: int
    above: int


@dataclass(frozen=True)
class Accuracy:
    """Share of the scored pairs in which the chosen response wins, with 95% intervals over prompts; a tie counts one
    half, so the base's `reward` is 0.5."""

    pairs: int
    prompts: int
    reward: Interval
    logp: Interval
    mean_logp: Interval

    @property
    def few(self) -> bool:
        """Whether it is of too few prompts to tell anything."""
        return self.prompts < LEAST_PROMPTS


@dataclass(frozen=True)
class Band:
    """Margins of one group of pairs over the checkpoints: quartiles per checkpoint, and some single pairs."""

    group: str
    n: int
    lower: tuple[float, ...]
    median: tuple[float, ...]
    upper: tuple[float, ...]
    lines: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class LengthTrend:
    """How one margin varies with the difference in length: correlations, and quartiles within bins of equal size."""

    margin: str
    n: int
    pearson: float
    spearman: float
    centres: tuple[float, ...]  # median difference of a bin, tokens
    lower: tuple[float, ...]
    median: tuple[float, ...]
    upper: tuple[float, ...]
    points: tuple[tuple[float, float], ...]  # a sample of (difference in tokens, margin)


@dataclass(frozen=True)
class LengthBias:
    """Difference = chosen length - rejected length, in `unit`. The three shares add up to 1."""

    unit: str  # tokens where a model counted them, else words
    n: int
    chosen_longer: float
    rejected_longer: float
    equal: float
    median_difference: float
    histogram: Histogram  # of the difference
    trends: tuple[LengthTrend, ...]


def distribution(values: np.ndarray) -> Distribution | None:
    """Summary of `values` [n], NaN left out; None when none is finite."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    p05, p25, median, p75, p95 = (float(q) for q in np.quantile(finite, (0.05, 0.25, 0.5, 0.75, 0.95)))
    return Distribution(
        n=len(finite),
        mean=float(finite.mean()),
        sd=float(finite.std()),
        p05=p05,
        p25=p25,
        median=median,
        p75=p75,
        p95=p95,
        share_above_zero=float((finite > 0).mean()),
        share_below_zero=float((finite < 0).mean()),
    )


def common_limits(values: np.ndarray) -> tuple[float, float]:
    """An axis that holds 0 and the middle 98% of `values`, with some air; (-1, 1) when all are 0 or none is finite."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return -1.0, 1.0
    low, high = (float(q) for q in np.quantile(finite, (0.01, 0.99)))
    low, high = min(low, 0.0), max(high, 0.0)
    air = 0.05 * (high - low)
    return (low - air, high + air) if air > 0 else (-1.0, 1.0)


def histogram(values: np.ndarray, groups: np.ndarray, limits: tuple[float, float], bins: int = 36) -> Histogram:
    """Counts of `values` [n] in `bins` equal bins over `limits`, for each of GROUPS (`groups` [n] names them)."""
    edges = np.linspace(limits[0], limits[1], bins + 1)
    counts = {g: tuple(int(c) for c in np.histogram(values[groups == g], bins=edges)[0]) for g in GROUPS}
    return Histogram(
        edges=tuple(float(e) for e in edges),
        counts=counts,
        below=int((values < limits[0]).sum()),
        above=int((values > limits[1]).sum()),
    )


def win_rate(margins: np.ndarray) -> float:
    """Share of finite `margins` [n] above zero, ties counting one half; NaN when none is finite."""
    finite = margins[np.isfinite(margins)]
    return float(((finite > 0) + 0.5 * (finite == 0)).mean()) if len(finite) else math.nan


def win_rate_interval(margins: np.ndarray, prompts: np.ndarray) -> Interval:
    """The same with its 95% interval; prompts: [n], equal where prompts are."""
    finite = np.isfinite(margins)
    return accuracy_interval(margins[finite], prompts[finite]) if finite.any() else UNKNOWN


def evenly(n: int, most: int) -> np.ndarray:
    """At most `most` indices spread evenly over range(n), first and last included: a sample without a draw."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int)) if n else np.zeros(0, int)


def bands(rewards: np.ndarray, groups: np.ndarray, lines: int = 25) -> tuple[Band, ...]:
    """Bands of reward margins [n, checkpoints] for each of GROUPS that has scored pairs.

    The single lines are pairs at even ranks of the end margin, so they show the whole spread.
    """
    drawn = []
    for group in GROUPS:
        rows = rewards[(groups == group) & np.isfinite(rewards).all(axis=1)]
        if not len(rows):
            continue
        lower, median, upper = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
        order = np.argsort(rows[:, -1], kind="stable")
        sample = rows[order[evenly(len(rows), lines)]]
        drawn.append(
            Band(group, len(rows), floats(lower), floats(median), floats(upper), tuple(floats(r) for r in sample))
        )
    return tuple(drawn)


def length_bias(
    chosen: np.ndarray, rejected: np.ndarray, margins: Mapping[str, np.ndarray], unit: str = "tokens"
) -> LengthBias | None:
    """Which side is longer ([n] of `unit`), and how each of `margins` (name -> [n]) goes with the difference; None
    without pairs."""
    difference = (chosen - rejected).astype(float)
    if not len(difference):
        return None
    everyone = np.full(len(difference), KEPT, dtype=object)
    return LengthBias(
        unit=unit,
        n=len(difference),
        chosen_longer=float((difference > 0).mean()),
        rejected_longer=float((difference < 0).mean()),
        equal=float((difference == 0).mean()),
        median_difference=float(np.median(difference)),
        histogram=histogram(difference, everyone, common_limits(difference)),
        trends=tuple(
            trend for name, margin in margins.items() if (trend := length_trend(name, difference, margin)) is not None
        ),
    )


def length_trend(name: str, difference: np.ndarray, margin: np.ndarray, bins: int = 10) -> LengthTrend | None:
    """Correlations of `margin` [n, nats] with `difference` [n, tokens]; None with fewer than three scored pairs."""
    scored = np.isfinite(margin)
    x, y = difference[scored], margin[scored]
    if len(x) < 3:
        return None
    order = np.argsort(x, kind="stable")
    parts = [p for p in np.array_split(order, min(bins, len(x) // 3)) if len(p)]
    quartiles = np.array([np.quantile(y[p], (0.25, 0.5, 0.75)) for p in parts])
    sample = order[evenly(len(x), 300)]
    return LengthTrend(
        margin=name,
        n=len(x),
        pearson=pearson(x, y),
        spearman=pearson(average_ranks(x), average_ranks(y)),
        centres=tuple(float(np.median(x[p])) for p in parts),
        lower=floats(quartiles[:, 0]),
        median=floats(quartiles[:, 1]),
        upper=floats(quartiles[:, 2]),
        points=tuple((float(x[i]), float(y[i])) for i in sample),
    )


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two [n] arrays, clipped to [-1, 1]; NaN when either is constant."""
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    return max(-1.0, min(1.0, float(x @ y) / scale)) if scale > 0 else math.nan


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing the mean of theirs (what Spearman's correlation is Pearson's of)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def group_of(reasons: np.ndarray) -> np.ndarray:
    """GROUPS' name for each drop reason [n] (None = kept)."""
    known: dict[str | None, str] = {None: KEPT, **{g: g for g in GROUPS}}
    return np.array([known.get(r, "other") for r in reasons], dtype=object)


def floats(values: np.ndarray | Sequence[float]) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
