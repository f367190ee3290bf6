"""What the style of answers says of a label: judges have a taste, and a label against it is less likely right.

And what a taste does to data: dropping what contradicts it makes the rest more one-sided than the truth. `gaps`
measures that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rmo_curate.evidence import logistic

RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)  # of weights of features of unit size over the root of their number
LEAST_GAP = 0.15  # sd by which chosen and rejected answers differ at least where a gap is worth a figure


@dataclass(frozen=True)
class Style:
    """Which styles win in n pairs. `weights` are of the features' differences as they are."""

    difference: np.ndarray  # float32 [n, features], chosen less rejected
    weights: np.ndarray  # [folds, features], learned without the fold
    fold: np.ndarray  # int [n]

    @classmethod
    def of(cls, difference: np.ndarray, folds: np.ndarray) -> Style:
        """Learned from the pairs of the other folds."""
        size = logistic.unit_columns(difference) * np.sqrt(difference.shape[1])
        fitted = logistic.cross_fit(difference / size.astype(np.float32), folds, RIDGES)
        return cls(difference, fitted.weights / size, folds)

    @classmethod
    def unknown(cls, difference: np.ndarray) -> Style:
        """Of too few prompts to learn from."""
        n, features = difference.shape
        return cls(difference, np.zeros((1, features)), np.zeros(n, dtype=np.int64))

    def by_feature(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What each feature adds to the log-odds that the chosen answer wins: [rows, features]."""
        return self.difference[rows] * self.weights[self.fold[rows]]

    @property
    def margin(self) -> np.ndarray:
        """The sum over features: held-out log-odds [n]."""
        return np.einsum("nf,nf->n", self.difference, self.weights[self.fold], dtype=np.float64)

    def swapped(self) -> Style:
        return replace(self, difference=-self.difference)


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
