"""What each threshold would cost and catch: the curve under the page's slider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.swapped_copies import MIN_FLAGGED, Detection, telling
from rmo_train.evaluation.metrics import Interval

STEPS = 100


@dataclass(frozen=True)
class Step:
    """Dropping every pair at or above `threshold`."""

    threshold: float | None  # None: nothing is dropped
    dropped: int
    share: float  # of all pairs that have a value
    precision: Interval | None  # estimated from swapped copies: the share of wrong labels among the dropped pairs
    recall: Interval | None  # and, of all labels flipped at random among `judged_pairs`, the share that is dropped


@dataclass(frozen=True)
class Curve:
    """`unit` of the thresholds: that of the rule's suspicion, such as log-odds; or points. The first of `steps` drops
    nothing."""

    unit: str
    pairs: int  # pairs that have a value
    steps: tuple[Step, ...]
    start: int  # index in `steps` of the proposed cut: the pairs that the filter calls noisy

    @property
    def estimated(self) -> bool:
        """Whether anything is estimated at any step."""
        return any(step.precision or step.recall for step in self.steps)


def curve(
    values: np.ndarray,
    unit: str,
    detect: Callable[[np.ndarray], list[Detection | None]] | None = None,
    cut: float | None = None,
) -> Curve:
    """Thresholds over the positive `values` [n] (NaN: a pair without one), at even shares of the data, and at `cut`,
    the least value that is proposed to go (None: nothing is)."""
    finite = np.sort(values[np.isfinite(values)])[::-1]
    positive = finite[finite > 0]
    ranks = np.unique(np.linspace(1, len(positive), min(STEPS, len(positive))).round().astype(int)) - 1
    chosen = np.append(positive[ranks], [] if cut is None or cut <= 0 else cut) if len(positive) else np.zeros(0)
    thresholds = np.unique(chosen)[::-1]
    estimated = detect(thresholds) if detect else [None] * len(thresholds)
    steps = [Step(None, 0, 0.0, None, None)]
    for threshold, detection in zip(thresholds.tolist(), estimated, strict=True):
        dropped = int(np.searchsorted(-finite, -threshold, side="right"))
        precision, recall = (
            (telling(detection.precision), telling(detection.recall))
            if detection and dropped >= MIN_FLAGGED
            else (None, None)
        )
        steps.append(Step(threshold, dropped, dropped / len(finite), precision, recall))
    start = 0 if cut is None else int((thresholds >= cut).sum())
    return Curve(unit, len(finite), tuple(steps), start)
