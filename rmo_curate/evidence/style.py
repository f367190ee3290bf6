"""Evidence from the style of answers: judges prefer some styles, and a label against that is less likely right.

Dropping pairs that contradict a preference makes the remaining data more one-sided than the truth; `gaps` measures
this effect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from rmo_curate.score import logistic

RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)  # on the weights of features of unit size, divided by the root of their number
LEAST_PAIRS = 40  # minimum for a category to have preferences of its own
MOST_PAIRS = 5000  # maximum used to learn the preferences of a category: about twenty weights need no more
LEAST_GAP = 0.15  # minimum difference between chosen and rejected answers to report, in sd


@dataclass(frozen=True)
class Style:
    """Which styles win in n pairs. `weights` apply to the unscaled differences of the features."""

    difference: np.ndarray  # float32 [n, features], chosen minus rejected
    weights: np.ndarray  # [folds, tastes, features], learned without the fold
    fold: np.ndarray  # int [n]
    taste: np.ndarray  # int [n]: 0 for the preferences of all pairs, otherwise those of a category
    categories: tuple[str, ...] = ()  # of the preferences from index 1

    @classmethod
    def of(cls, difference: np.ndarray, folds: np.ndarray, category: np.ndarray | None = None) -> Style:
        """Learn from the pairs of the other folds.

        category: str [n], "" if unknown. Preferences depend on the kind of prompt: a category of at least `LEAST_PAIRS`
        pairs has weights of its own, shrunk towards those of all pairs, if these predict held-out labels better.
        """
        size = logistic.unit_columns(difference) * np.sqrt(difference.shape[1])
        x = difference / size.astype(np.float32)
        fitted = logistic.cross_fit(x, folds, RIDGES)
        weights, taste, names = fitted.weights[:, None], np.zeros(len(x), dtype=np.int64), ()
        if category is not None:
            kinds, numbers, counts = np.unique(category, return_inverse=True, return_counts=True)
            own = (counts >= LEAST_PAIRS) & (kinds != "")
            taste, names = np.where(own, np.cumsum(own), 0)[numbers], tuple(kinds[own].tolist())
            weights = _by_category(x, folds, taste, fitted)
        return cls(difference, weights / size, folds, taste, names)

    @classmethod
    def unknown(cls, difference: np.ndarray) -> Style:
        """For too few prompts to learn from."""
        n, features = difference.shape
        nothing = np.zeros(n, dtype=np.int64)
        return cls(difference, np.zeros((1, 1, features)), nothing, nothing)

    def by_feature(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What each feature adds to the log-odds that the chosen answer wins: [rows, features]."""
        return self.difference[rows] * self.weights[self.fold[rows], self.taste[rows]]

    @property
    def margin(self) -> np.ndarray:
        """The sum over features: held-out log-odds [n]."""
        return np.einsum("nf,nf->n", self.difference, self.weights[self.fold, self.taste], dtype=np.float64)

    def category_of(self, row: int) -> str | None:
        """The category whose preferences a pair is judged by; None: those of all pairs."""
        taste = int(self.taste[row])
        return self.categories[taste - 1] if taste else None

    def swapped(self) -> Style:
        return replace(self, difference=-self.difference)


def _by_category(x: np.ndarray, folds: np.ndarray, taste: np.ndarray, of_all: logistic.CrossFit) -> np.ndarray:
    """Weights [folds, tastes, features]: those of all pairs, and each category's deviations from them.

    The deviations are fitted with the prediction of all pairs as an offset. Their ridge is the one that predicts
    held-out labels best, tried from the strongest until a weaker one is worse; without an improvement they are 0.
    """
    best = np.repeat(of_all.weights[:, None], 1 + int(taste.max(initial=0)), axis=1)
    least = logistic.least_loss(of_all.margin)
    for ridge in sorted(RIDGES, reverse=True):
        weights = np.repeat(of_all.weights[:, None], best.shape[1], axis=1)
        for fold, number in product(np.unique(folds), range(1, best.shape[1])):
            rows = np.flatnonzero((taste == number) & (folds != fold))
            rows = rows[:: 1 + len(rows) // MOST_PAIRS]
            if len(rows):
                own = x[rows]
                weights[fold, number] += logistic.fit_beside(own, own @ of_all.weights[fold], ridge)
        lost = logistic.least_loss(np.einsum("nf,nf->n", x, weights[folds, taste], dtype=np.float64))
        if lost >= least:
            break
        best, least = weights, lost
    return best


@dataclass(frozen=True)
class Gap:
    """Mean difference in a feature between chosen and rejected answers, in sd of the difference."""

    feature: str
    before: float  # all pairs
    after: float  # among the kept pairs, with their training weights

    @property
    def ratio(self) -> float:
        return self.after / self.before


def gaps(
    difference: np.ndarray, kept: np.ndarray, effect: np.ndarray | None = None, least: float = LEAST_GAP
) -> list[Gap]:
    """How keeping only `kept` (bool [n]) changes every feature with a gap of at least `least` sd, largest first.

    difference: features [n, features], chosen minus rejected. effect: the signed weight of a kept pair [n], negative if
    its answers are exchanged, a fraction for a soft label; default 1.
    """
    from rmo_curate.evidence.texts import STYLE

    counted = np.where(kept, 1.0 if effect is None else effect, 0.0)
    size = np.sqrt(np.mean(np.square(difference, dtype=np.float64), axis=0))
    before = difference.mean(axis=0, dtype=np.float64)
    total = np.abs(counted).sum()
    after = counted @ difference / total if total else np.zeros(len(before))
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = before / size, after / size
    large = np.flatnonzero(np.abs(before) >= least)
    names = list(STYLE)
    return [Gap(names[f], float(before[f]), float(after[f])) for f in large[np.argsort(-np.abs(before[large]))]]
