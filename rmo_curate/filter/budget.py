"""How many noisy pairs there may be at most: by --high-q, --noise-rate or --precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence import swapped_copies
from rmo_curate.evidence.gather import JudgedLabels
from rmo_curate.evidence.label_noise import Judgeable
from rmo_curate.evidence.rules import Rule
from rmo_curate.filter import thresholds
from rmo_curate.filter.settings import WEIGHING, FilterSettings
from rmo_curate.filter.worth import Cut, best_cut
from rmo_curate.runs.run import Scores
from rmo_train.evaluation.metrics import Interval


@dataclass(frozen=True)
class Budget:
    pairs: int
    noise_rate: Interval | None = None  # that was estimated for it; None: none was
    too_few: Judgeable | None = None  # to cut by an estimate; None: enough, or none was asked for
    cut: Cut | None = None  # where as many go as it pays to drop


def noisy_budget(
    rule: Rule, scores: Scores, labels: JudgedLabels | None, suspicion: np.ndarray, n: int, settings: FilterSettings
) -> Budget:
    """The budget of n scorable pairs. labels: None where no evidence was weighed. suspicion: the rule's [pairs]."""
    if not rule.ranks or settings.action in WEIGHING:
        return Budget(0)
    if settings.high_q is not None:
        return Budget(thresholds.noisy_budget(n, settings.high_q))
    if settings.noise_rate not in (None, "auto"):
        return Budget(thresholds.noisy_budget(n, 1 - float(settings.noise_rate)))
    assert labels is not None
    if settings.precision is None:
        if not labels.of.enough:
            return Budget(0, too_few=labels.of)
        order = most_suspect_first(labels, suspicion)
        cut = paying_cut(labels, order, n, instead=-1.0 if settings.action == "flip" else 0.0)
        return Budget(cut.pairs, labels.resampled.rate, cut=cut)
    rate, of_swapped = labels.resampled.rate, rule.suspicion_of_swapped(scores)
    pairs = swapped_copies.budget_of_precision(suspicion, of_swapped, rate.value, settings.precision)
    return Budget(pairs, rate)


def paying_cut(labels: JudgedLabels, order: np.ndarray, n: int, instead: float = 0.0) -> Cut:
    """The best cut of n scorable pairs: of those in `order` (`most_suspect_first`), at most as many as labels are
    estimated to be wrong. instead: as `best_cut` takes it."""
    most = int(labels.resampled.rate.value * n)
    return best_cut(order[:most], labels.right, labels.margin, labels.resampled, instead)


def most_suspect_first(labels: JudgedLabels, suspicion: np.ndarray) -> np.ndarray:
    """The pairs with a suspicion [pairs] above 0, in the order in which they would go: int."""
    with np.errstate(invalid="ignore"):
        doubted = np.flatnonzero((suspicion > 0) & np.isfinite(labels.margin))
    return doubted[np.argsort(-suspicion[doubted], kind="stable")]
