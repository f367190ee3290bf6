"""Evidence from the style of answers: judges prefer some styles, and a label against that is less likely right.

Dropping pairs that contradict a preference makes the remaining data more one-sided than the truth; `gaps` measures
this effect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rmo_curate.score import logistic
from rmo_curate.score.categories import Categories, fit_categories

RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)  # on the weights of features of unit size, divided by the root of their number
LASSO = (1.0, 1.5, 2.0, 3.0, 4.0)  # strengths, on a category's deviations: a kind of prompt wants few things of its own
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

        category: str [n], "" if unknown. Preferences depend on the kind of prompt: a large category has weights of its
        own, shrunk towards those of all pairs, if these predict held-out labels better.
        """
        size = logistic.unit_columns(difference) * np.sqrt(difference.shape[1])
        x = difference / size.astype(np.float32)
        own = Categories.none(len(x)) if category is None else Categories.among(category)
        fitted = fit_categories(x, folds, own, logistic.cross_fit(x, folds, RIDGES), LASSO, logistic.lasso, afresh=True)
        return cls(difference, fitted.weights / size, folds, fitted.categories.of, fitted.categories.names)

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
