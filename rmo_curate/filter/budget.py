"""How many noisy pairs there may be at most: by --high-q, --noise-rate or --precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence import swapped_copies
from rmo_curate.evidence.label_noise import LEAST_FOR_RATE, Resampled
from rmo_curate.evidence.rules import Rule
from rmo_curate.filter import thresholds
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores
from rmo_train.evaluation.metrics import Interval


@dataclass(frozen=True)
class Budget:
    pairs: int
    noise_rate: Interval | None = None  # that was estimated for it; None: none was
    few: bool = False  # too few pairs to cut by an estimate


def noisy_budget(rule: Rule, scores: Scores, suspicion: np.ndarray, n: int, settings: FilterSettings) -> Budget:
    """The budget of n scorable pairs. suspicion: the rule's [pairs]."""
    if not rule.ranks or settings.action in ("weight", "soft-label"):
        return Budget(0)
    if settings.high_q is not None:
        return Budget(thresholds.noisy_budget(n, settings.high_q))
    if settings.noise_rate not in (None, "auto"):
        return Budget(thresholds.noisy_budget(n, 1 - float(settings.noise_rate)))
    if settings.precision is None and n < LEAST_FOR_RATE:
        return Budget(0, few=True)
    assert scores.posterior is not None
    rate = Resampled(margins.where_scored(scores.posterior.margin, scores), scores.posterior.groups).rate
    if settings.precision is None:
        return Budget(int(rate.value * n), rate)
    of_swapped = rule.suspicion_of_swapped(scores)
    return Budget(swapped_copies.budget_of_precision(suspicion, of_swapped, rate.value, settings.precision), rate)
