"""What labels of which some are wrong are worth, as a number of clean pairs, under each action.

A pair whose label is right with probability p pulls a preference loss by 2p - 1 in the mean, at a noise of 1 whatever
p; n pairs of weights w are then worth (sum w (2p - 1))^2 / sum w^2 clean ones. So n pairs of which a share e is wrong
are worth n (1 - 2e)^2; after a cut that drops a share q and leaves e', n (1 - q) (1 - 2e')^2; and soft labels, whose
weights are the best there are (2p - 1: Cauchy and Schwarz), sum (2p - 1)^2.

Every p rests on two estimates: the noise rate and the strength of the evidence. A few hundred pairs leave both wide
open, and what pays at the likeliest rate then costs right labels if fewer are wrong. So what an action brings is a
geometric mean over draws of prompts and noise, with an 80% interval; the draws are weighted as if noise were rare.
Labels are softened by the share s of what p says that is expected to bring most, which makes the weights
1 - 2s (1 - p), and a cut takes as many pairs as are expected to bring most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.label_noise import Resampled
from rmo_train.evaluation.metrics import Interval

Q = (0.1, 0.9)  # quantiles of the intervals
# Draws are weighted by 1 / eps^2 above this rate. The prior that they were drawn under, eps (1 - 2 eps), becomes
# (1 - 2 eps) / eps, by which a rate from 2.5% to 5% is as likely as one above 12.5%: most data are good.
RARE = 0.025
LEAST_GAIN = 1.05  # over the labels as given, expected; with less, nothing is done
LEAST = 0.01  # of the worth in a draw, as a multiple: below, what is left is worth nothing either way
CUTS = 64  # that are tried at most, evenly spaced
SOFTNESS = np.linspace(0, 1, 21)  # that are tried
CELLS = 4096  # more pairs are taken together where their margins are alike: the same figures at a bounded cost
SAMPLE = 100_000  # pairs, at most, by which margins are called alike
AS_GIVEN = Interval(1.0, 1.0, 1.0)


def clean_pairs(right: np.ndarray, weight: np.ndarray | float = 1.0) -> float:
    """Clean pairs that pairs with P(label right) `right` [n] are worth under weights [n], which may be negative."""
    weight = np.broadcast_to(np.asarray(weight, dtype=np.float64), right.shape)
    total = float(np.square(weight).sum())
    return float((weight * (2 * right - 1)).sum()) ** 2 / total if total else 0.0


@dataclass(frozen=True)
class Cells:
    """Pairs that stay or go together and have like margins; where pairs are few, every pair for itself."""

    part: np.ndarray  # int [cells]
    likeliest: np.ndarray  # 2 P(the label is right) - 1 at the likeliest noise [cells]
    counted: np.ndarray  # pairs, in the draws of `Resampled` [draws, cells]
    leaning: np.ndarray  # 2 P - 1 at the noise of each draw [draws, cells]
    probability: np.ndarray  # of each draw [draws]

    @classmethod
    def of(cls, part: np.ndarray, right: np.ndarray, margin: np.ndarray, resampled: Resampled) -> Cells:
        """part: of each pair, int; right, margin: [pairs], NaN where there is no evidence, as `resampled` knows."""
        part, right, margin = part[resampled.known], right[resampled.known], margin[resampled.known]
        if len(part) <= CELLS:
            counted = resampled.times[:, resampled.group]
        else:
            parts = int(part.max()) + 1
            bins = CELLS // parts
            edges = np.quantile(margin[:: -(-len(margin) // SAMPLE)], np.linspace(0, 1, bins + 1)[1:-1])
            cell = part * bins + np.searchsorted(edges, margin)
            held, counted = np.bincount(cell, minlength=parts * bins), resampled.counted(cell, parts * bins)
            part = np.repeat(np.arange(parts), bins)
            right, margin = (np.bincount(cell, of, len(part)) / np.maximum(held, 1) for of in (right, margin))
        caution = np.maximum(resampled.rates, RARE) ** -2.0
        return cls(part, 2 * right - 1, counted, resampled.leanings(margin), caution / caution.sum())

    def times(self, weights: np.ndarray, given: np.ndarray) -> list[Interval]:
        """What the pairs are worth under each of the weights [k, cells], as a multiple of what they are worth under
        weights `given` [cells]: geometric means over the draws, and quantiles."""
        drawn = self._drawn(weights, given)
        return [Interval(float(v), *self._quantiles(of)) for v, of in zip(self._mean(drawn), drawn.T, strict=True)]

    def expected(self, weights: np.ndarray) -> np.ndarray:
        """The means alone, as multiples of weights of 1: [k]."""
        return self._mean(self._drawn(weights, np.ones(len(self.part))))

    def _drawn(self, weights: np.ndarray, given: np.ndarray) -> np.ndarray:
        return np.maximum(self._worth(weights) / np.maximum(self._worth(given[None]), 1e-9), LEAST)  # [draws, k]

    def _mean(self, drawn: np.ndarray) -> np.ndarray:
        return np.exp(self.probability @ np.log(drawn))

    def _quantiles(self, values: np.ndarray) -> tuple[float, float]:
        """Of values [draws], in the middle of the steps of their distribution."""
        order = np.argsort(values)
        below = np.cumsum(self.probability[order]) - self.probability[order] / 2
        low, high = np.interp(Q, below, values[order])
        return float(low), float(high)

    def _worth(self, weights: np.ndarray) -> np.ndarray:
        pull, square = (self.counted * self.leaning) @ weights.T, self.counted @ np.square(weights).T
        return np.square(pull) / np.maximum(square, 1e-9)


def paying(expected: np.ndarray) -> int | None:
    """The best of some ways of which `expected` [k] is what each makes the labels worth; None where none pays."""
    best = int(expected.argmax())
    return best if expected[best] >= LEAST_GAIN else None


@dataclass(frozen=True)
class Cut:
    """How many of the most suspect pairs go."""

    pairs: int
    of: int  # pairs that could go


def best_cut(
    most_suspect: np.ndarray, right: np.ndarray, margin: np.ndarray, resampled: Resampled, instead: float = 0.0
) -> Cut:
    """The cut that is expected to make labels worth most; of 0 pairs where none is worth its while.

    most_suspect: int, the pairs that could go, in the order in which they go. right, margin: [pairs], of the evidence;
    NaN where there is none. instead: the weight of the pairs that go: 0 drops them, -1 exchanges their answers.
    """
    if not len(most_suspect):
        return Cut(0, 0)
    cuts = np.unique(np.linspace(0, len(most_suspect), min(CUTS, len(most_suspect)) + 1).round().astype(int))
    part = np.full(len(margin), len(cuts) - 1)  # of a pair: the last cut by which it stays
    part[most_suspect] = np.searchsorted(cuts, np.arange(len(most_suspect)), side="right") - 1
    cells = Cells.of(part, right, margin, resampled)
    goes = cells.part < np.arange(1, len(cuts))[:, None]  # bool [cuts but that of none, cells]
    best = paying(cells.expected(np.where(goes, instead, 1.0)))
    return Cut(0 if best is None else int(cuts[1 + best]), len(most_suspect))


def best_softness(right: np.ndarray, margin: np.ndarray, resampled: Resampled) -> float:
    """How far to soften labels, which is expected to make them worth most: the trainer takes a label for right with
    probability 1 - softness (1 - p). 0: as they are given, where nothing is worth its while; 1: p itself.

    right, margin: [pairs], of the evidence; NaN where there is none.
    """
    cells = Cells.of(np.zeros(len(right), dtype=int), right, margin, resampled)
    best = paying(cells.expected(1 - SOFTNESS[:, None] * (1 - cells.likeliest)))
    return 0.0 if best is None else float(SOFTNESS[best])


@dataclass(frozen=True)
class Worth:
    """What labels are worth: as given, in clean pairs; and under each action, as a multiple of what the labels of those
    pairs are worth that other steps leave."""

    as_given: float
    left: float  # the same of the pairs that are left
    times: Mapping[str, Interval]  # of the action's own default, in the order in which they are told
    decided: Interval | None = None  # of another cut than that of --action drop, or of a flip


def worth(
    right: np.ndarray,
    margin: np.ndarray,
    resampled: Resampled,
    softness: float,
    stays: np.ndarray,
    left: np.ndarray,
    decided: np.ndarray | None = None,
) -> Worth:
    """right, margin: [pairs], NaN where there is no evidence. stays: where --action drop leaves a pair; left: where
    other steps do, bool [pairs]. decided: what pairs count under decisions of another kind, -1, 0 or 1 [pairs]."""
    code = left + 2 * stays + (0 if decided is None else 4 * (1 + decided).astype(np.int8))
    cells = Cells.of(code.astype(np.int64), right, margin, resampled)
    given, stay, leaning = cells.part & 1, cells.part >> 1 & 1, cells.likeliest
    weights = {
        "auto": 1 - softness * (1 - leaning),
        "soft-label": leaning,
        "weight": (1 + leaning) / 2,
        "drop": stay,
    }
    if decided is not None:
        weights["decided"] = (cells.part >> 2) - 1.0
    times = dict(zip(weights, cells.times(given * np.stack(list(weights.values())), given), strict=True))
    if softness == 1:
        times["auto"] = times["soft-label"]  # to the last digit, as below
    if softness == 0:
        times["auto"] = AS_GIVEN
    if stays.all():
        times["drop"] = AS_GIVEN
    return Worth(
        as_given=clean_pairs(right[resampled.known]),
        left=clean_pairs(right[resampled.known & left]),
        decided=times.pop("decided", None),
        times=times,
    )
