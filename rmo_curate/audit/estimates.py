"""What is estimated of a scored run beyond its counts: the noise rate, and precision and recall of a threshold.

The one place where the audit asks for them. None: not known for this run, and page, JSON and --fail-on say so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.decisions import Decisions
from rmo_curate.runs import Run


@dataclass(frozen=True)
class NoiseRate:
    """Estimated share of pairs whose label is the wrong way round, with its interval."""

    rate: float
    low: float
    high: float


@dataclass(frozen=True)
class Detection:
    """Estimated for dropping every pair above a threshold: the share of wrong labels among them (precision), and the
    share of all wrong labels that they hold (recall)."""

    precision: float | None
    recall: float | None


def noise_rate(run: Run, decisions: Decisions) -> NoiseRate | None:
    """The run's noise rate."""
    return None


def detection(run: Run, decisions: Decisions, thresholds: np.ndarray) -> list[Detection]:
    """Precision and recall at each of `thresholds` (suspicion, [m]): pairs of a suspicion at or above it would go."""
    return [Detection(None, None)] * len(thresholds)
