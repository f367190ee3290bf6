"""How many noisy pairs there may be at most: by --high-q, --noise-rate or --precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence import swapped_copies
from rmo_curate.evidence.label_noise import Judgeable, Resampled
from rmo_curate.evidence.rules import Rule
from rmo_curate.filter import thresholds
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores
from rmo_train.evaluation.metrics import Interval


@dataclass(frozen=True)
class Budget:
    pairs: int
    resampled: Resampled | None = None  # of the noise rate that was estimated for it; None: none was
    too_few: Judgeable | None = None  # to cut by an estimate; None: enough, or none was asked for

    @property
    def noise_rate(self) -> Interval | None:
        return self.resampled.rate if self.resampled else None


def noisy_budget(rule: Rule, scores: Scores, suspicion: np.ndarray, n: int, settings: FilterSettings) -> Budget:
    """The budget of n scorable pairs. suspicion: the rule's [pairs]."""
    if not rule.ranks or settings.action in ("weight", "soft-label"):
        return Budget(0)
    if settings.high_q is not None:
        return Budget(thresholds.noisy_budget(n, settings.high_q))
    if settings.noise_rate not in (None, "auto"):
        return Budget(thresholds.noisy_budget(n, 1 - float(settings.noise_rate)))
    assert scores.posterior is not None
    margin, groups = margins.where_scored(scores.posterior.margin, scores), scores.posterior.groups
    judged = Judgeable.of(margin, groups)
    if settings.precision is None and not judged.enough:
        return Budget(0, too_few=judged)
    resampled = Resampled(margin, groups)
    rate = resampled.rate.value
    if settings.precision is None:
        return Budget(int(rate * n), resampled)
    of_swapped = rule.suspicion_of_swapped(scores)
    return Budget(swapped_copies.budget_of_precision(suspicion, of_swapped, rate, settings.precision), resampled)
