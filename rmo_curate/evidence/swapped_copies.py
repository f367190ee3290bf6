"""Swapped copies: recall and precision of a rule on the user's data, from copies with the answers exchanged.

Exchanging a pair's answers negates every margin exactly, so each pair yields a copy that is known to be swapped,
without a forward pass. Let eps be the noise rate, and h1 and h0 the shares that a rule flags among swapped copies and
among the pairs as given. With recall R and false-alarm rate F: h1 = (1 - eps) R + eps F and h0 = eps R + (1 - eps) F.
The precision of the flagged pairs is eps R / h0.

This holds only for random flips and held-out scores. Labels that are wrong for a reason (the longer answer, a hard
question) are found less often than swapped copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from rmo_curate.evidence.label_noise import Resampled
from rmo_curate.runs.run import Scores
from rmo_train.evaluation.metrics import Interval, accuracy

Q = (0.025, 0.975)  # quantiles of the intervals
VAGUE = 0.6  # width of an interval beyond which it says nothing
MIN_FLAGGED = 10  # minimum number of flagged pairs for an estimate of precision


def held_out(scores: Scores) -> bool:
    """Whether T saw none of the pairs that it scored. Otherwise margins reflect memorised labels, flips included."""
    return bool((scores.held_out[np.isfinite(scores.chosen_logp[:, -1])] == True).all())  # noqa: E712 (elementwise)


def telling(estimate: Interval) -> Interval | None:
    """The estimate, or None where its interval is so wide that it says nothing."""
    return estimate if estimate.high - estimate.low <= VAGUE else None


@dataclass(frozen=True)
class Detection:
    """Recall, false alarms and precision of a rule at one threshold."""

    flagged: int
    share: float  # share of the pairs that are flagged: h0
    recall: Interval
    false_alarms: Interval
    precision: Interval


def solved(as_labelled: np.ndarray, swapped: np.ndarray, rate: np.ndarray | float) -> tuple[np.ndarray, ...]:
    """(recall, false-alarm rate, precision) from h0, h1 and the noise rate, in [0, 1]; precision is NaN at h0 = 0."""
    recall = np.clip(((1 - rate) * swapped - rate * as_labelled) / (1 - 2 * rate), 0, 1)
    alarms = np.clip(((1 - rate) * as_labelled - rate * swapped) / (1 - 2 * rate), 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(as_labelled > 0, np.clip(rate * recall / as_labelled, 0, 1), np.nan)
    return recall, alarms, precision


def detection(flagged: np.ndarray, flagged_swapped: np.ndarray, resampled: Resampled) -> Detection:
    """Detection if `flagged` [pairs] and, of their swapped copies, `flagged_swapped` are dropped."""
    group, size = resampled.group, resampled.size
    hits, swapped = (np.bincount(group, f[resampled.known], size) for f in (flagged, flagged_swapped))
    return _detections(hits[:, None], swapped[:, None], resampled)[0]


def detections_at(
    thresholds: np.ndarray, suspicion: np.ndarray, of_swapped: np.ndarray, resampled: Resampled
) -> list[Detection]:
    """`detection` at each of `thresholds` [m], in descending order: drops pairs with suspicion >= threshold."""
    group, size, m = resampled.group, resampled.size, len(thresholds)

    def hits(values: np.ndarray) -> np.ndarray:
        first = np.searchsorted(
            -thresholds, -values[resampled.known], side="left"
        )  # the first threshold that it reaches
        first = np.where(np.isnan(values[resampled.known]), m, first)
        return np.bincount(group * (m + 1) + first, minlength=size * (m + 1)).reshape(size, m + 1)[:, :m].cumsum(axis=1)

    return _detections(hits(suspicion), hits(of_swapped), resampled)


def _detections(hits: np.ndarray, swapped: np.ndarray, resampled: Resampled) -> list[Detection]:
    """hits, swapped: flagged pairs and copies of each bundle of prompts at each threshold, [bundles, thresholds]."""
    pairs = np.bincount(resampled.group, minlength=resampled.size)
    all_ = len(resampled.group)
    flagged = hits.sum(axis=0)
    value = solved(flagged / all_, swapped.sum(axis=0) / all_, resampled.rate.value)
    times = resampled.times.astype(float)
    drawn = (times @ pairs)[:, None]
    draws = solved(times @ hits / drawn, times @ swapped / drawn, resampled.rates[:, None])
    of = [[_interval(v[m], d[:, m]) for v, d in zip(value, draws, strict=True)] for m in range(len(flagged))]
    return [Detection(int(n), float(n / all_), *intervals) for n, intervals in zip(flagged, of, strict=True)]


def _interval(value: float, draws: np.ndarray) -> Interval:
    finite = draws[np.isfinite(draws)]
    low, high = np.quantile(finite if len(finite) else [np.nan], Q)
    return Interval(float(value), float(low), float(high))


def budget_of_precision(suspicion: np.ndarray, of_swapped: np.ndarray, rate: float, wanted: float) -> int:
    """The largest number of most suspect pairs with an estimated precision of at least `wanted`; 0 if there is none."""
    known = np.isfinite(suspicion)
    as_labelled = np.sort(suspicion[known])[::-1]
    eligible = int((as_labelled > 0).sum())
    swapped = np.sort(of_swapped[known])
    n = np.arange(1, eligible + 1)
    above = (len(swapped) - np.searchsorted(swapped, as_labelled[:eligible], side="left")) / len(swapped)
    precision = solved(n / len(as_labelled), above, rate)[2]
    enough = np.flatnonzero((precision >= wanted) & (n >= MIN_FLAGGED))
    return int(n[enough[-1]]) if len(enough) else 0


@dataclass(frozen=True)
class SelfCheck:
    """AUROC for swapped pairs: measured on swapped copies, and predicted from held-out accuracy for normal margins.

    A measured value far above the prediction suggests a leak; one below it, margins that are not normal. Both are
    corrected for the noise rate.
    """

    pairs: int
    accuracy: float  # on the true labels
    predicted: float
    measured: float


def self_check(margin: np.ndarray, rate: float) -> SelfCheck:
    """margin: held-out [pairs]. For independent clean pairs the AUROC of -D is P(D_i + D_j > 0), for normal D
    Phi(sqrt(2) Phi^-1(A))."""
    x = margin[np.isfinite(margin)]
    true = float(np.clip((accuracy(x) - rate) / (1 - 2 * rate), 1e-6, 1 - 1e-6))
    normal = NormalDist()
    predicted = normal.cdf(2**0.5 * normal.inv_cdf(true))
    low = np.sort(-x)
    below = np.searchsorted(low, x, side="left")
    ties = np.searchsorted(low, x, side="right") - below
    observed = float((below + 0.5 * ties).mean() / len(x))  # P(swapped copy is more suspect than a given pair)
    return SelfCheck(len(x), true, predicted, (observed - rate) / (1 - 2 * rate))
