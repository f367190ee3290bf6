"""What the style of answers says of a label: judges have a taste, and a label against it is less likely right.

And what a taste does to data: dropping what contradicts it makes the rest more one-sided than the truth. `gaps`
measures that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from rmo_curate.score import logistic

RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)  # of weights of features of unit size over the root of their number
LEAST_PAIRS = 40  # of a category that may have a taste of its own
MOST_PAIRS = 5000  # of a category that its taste is learned from: some twenty weights need no more
LEAST_GAP = 0.15  # sd by which chosen and rejected answers differ at least where a gap is worth a figure


@dataclass(frozen=True)
class Style:
    """Which styles win in n pairs. `weights` are of the features' differences as they are."""

    difference: np.ndarray  # float32 [n, features], chosen less rejected
    weights: np.ndarray  # [folds, tastes, features], learned without the fold
    fold: np.ndarray  # int [n]
    taste: np.ndarray  # int [n]: 0 the one of all pairs, else that of a category
    categories: tuple[str, ...] = ()  # of the tastes from 1

    @classmethod
    def of(cls, difference: np.ndarray, folds: np.ndarray, category: np.ndarray | None = None) -> Style:
        """Learned from the pairs of the other folds.

        category: str [n], "" where unknown. What wins depends on what was asked: a category of at least `LEAST_PAIRS`
        pairs has weights of its own, drawn towards those of all pairs, if that foretells held-out labels better.
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
        """Of too few prompts to learn from."""
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
        """The category whose taste a pair is judged by; None: that of all pairs."""
        taste = int(self.taste[row])
        return self.categories[taste - 1] if taste else None

    def swapped(self) -> Style:
        return replace(self, difference=-self.difference)


def _by_category(x: np.ndarray, folds: np.ndarray, taste: np.ndarray, of_all: logistic.CrossFit) -> np.ndarray:
    """Weights [folds, tastes, features]: those of all pairs, and what each category adds to them.

    What a category adds is fitted beside what all pairs say. Of several ridges on it the one that foretells held-out
    labels best is taken, from the strongest until a weaker one foretells worse; none, where that is no better.
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
    """By how much chosen answers have more of a feature than rejected ones, in sd of the difference."""

    feature: str
    before: float  # all pairs
    after: float  # the kept ones, weighed as they will be trained on

    @property
    def ratio(self) -> float:
        return self.after / self.before


def gaps(
    difference: np.ndarray, kept: np.ndarray, effect: np.ndarray | None = None, least: float = LEAST_GAP
) -> list[Gap]:
    """What keeping `kept` (bool [n]) does to every feature with a gap of at least `least` sd, the largest first.

    difference: of the features [n, features], chosen less rejected. effect: what a kept pair counts [n], negative where
    its answers are exchanged, in part where its label is believed in part; default 1.
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
