"""What each threshold would cost and catch: the curve under the page's slider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.swapped_copies import MIN_FLAGGED, Detection
from rmo_train.evaluation.metrics import Interval

STEPS = 100


@dataclass(frozen=True)
class Step:
    """Dropping every pair at or above `threshold`."""

    threshold: float | None  # None: nothing is dropped
    dropped: int
    share: float  # of all pairs that have a value
    precision: Interval | None  # estimated from swapped copies: the share of wrong labels among the dropped pairs
    recall: Interval | None  # and the share of all wrong labels that are dropped


@dataclass(frozen=True)
class Curve:
    """`unit`: of the thresholds: nats, nats per token or points. `steps` start with dropping nothing."""

    unit: str
    pairs: int
    steps: tuple[Step, ...]


def curve(values: np.ndarray, unit: str, detect: Callable[[np.ndarray], list[Detection | None]] | None = None) -> Curve:
    """Thresholds over the positive `values` [n] (NaN: a pair without one), at even shares of the data."""
    finite = np.sort(values[np.isfinite(values)])[::-1]
    positive = finite[finite > 0]
    ranks = np.unique(np.linspace(1, len(positive), min(STEPS, len(positive))).round().astype(int)) - 1
    thresholds = np.unique(positive[ranks])[::-1] if len(positive) else np.zeros(0)
    estimated = detect(thresholds) if detect else [None] * len(thresholds)
    steps = [Step(None, 0, 0.0, None, None)]
    for threshold, detection in zip(thresholds.tolist(), estimated, strict=True):
        dropped = int(np.searchsorted(-finite, -threshold, side="right"))
        precision, recall = (
            (detection.precision, detection.recall) if detection and dropped >= MIN_FLAGGED else (None, None)
        )
        steps.append(Step(threshold, dropped, dropped / len(finite), precision, recall))
    return Curve(unit, len(finite), tuple(steps))
