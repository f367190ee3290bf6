"""What labels of which some are wrong are worth, as a number of clean pairs, under each action.

A pair whose label is right with probability p pulls a preference loss by 2p - 1 in the mean, at a noise of 1 whatever
p; n pairs of weights w are then worth (sum w (2p - 1))^2 / sum w^2 clean ones. So n pairs of which a share e is wrong
are worth n (1 - 2e)^2; after a cut that drops a share q and leaves e', n (1 - q) (1 - 2e')^2; and soft labels, whose
weights are the best there are (2p - 1: Cauchy and Schwarz), sum (2p - 1)^2.

Every p rests on two estimates: the noise rate and the strength of the evidence. A few hundred pairs leave both wide
open, and a cut that pays at the likeliest rate then costs right labels if fewer are wrong. So what an action brings has
an 80% interval, over draws of prompts and noise, and by default as many pairs go as bring most at its low end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.label_noise import Resampled
from rmo_train.evaluation.metrics import Interval

Q = (0.1, 0.9)  # quantiles of the intervals: a wider one would forgo more on noisy data than it saves on clean ones
LEAST_GAIN = 1.02  # over the labels as given, at the low end; with less, nothing is done
CUTS = 64  # that are tried at most, evenly spaced
AS_GIVEN = Interval(1.0, 1.0, 1.0)


def clean_pairs(right: np.ndarray, weight: np.ndarray | float = 1.0) -> float:
    """Clean pairs that pairs with P(label right) `right` [n] are worth under weights [n], which may be negative."""
    weight = np.broadcast_to(np.asarray(weight, dtype=np.float64), right.shape)
    total = float(np.square(weight).sum())
    return float((weight * (2 * right - 1)).sum()) ** 2 / total if total else 0.0


@dataclass(frozen=True)
class Cut:
    """How many of the most suspect pairs go."""

    pairs: int
    of: int  # pairs that could go
    times: Interval  # what that makes the labels worth, as a multiple of the labels as given
    times_of_all: Interval  # the same if all go that could


def surest_cut(
    most_suspect: np.ndarray, right: np.ndarray, margin: np.ndarray, resampled: Resampled, instead: float = 0.0
) -> Cut:
    """The cut that makes labels worth most at the low end of its interval; of 0 pairs where none is worth its while.

    most_suspect: int, the pairs that could go, in the order in which they go. right, margin: [pairs], of the evidence;
    NaN where there is none. instead: the weight of the pairs that go: 0 drops them, -1 exchanges their answers.
    """
    if not len(most_suspect):
        return Cut(0, 0, AS_GIVEN, AS_GIVEN)
    cuts = np.unique(np.linspace(0, len(most_suspect), min(CUTS, len(most_suspect)) + 1).round().astype(int))
    part = np.full(len(margin), len(cuts) - 1)  # of a pair: the last cut by which it stays
    part[most_suspect] = np.searchsorted(cuts, np.arange(len(most_suspect)), side="right") - 1
    part = part[resampled.known]

    def times(counted: np.ndarray, leaning: np.ndarray) -> np.ndarray:
        """Of every cut, as a multiple of no cut."""
        pull, square = (
            np.bincount(part, values, len(cuts)).cumsum() for values in (counted * leaning, counted.astype(float))
        )
        gone_pull, gone = (np.concatenate([[0.0], sums[:-1]]) for sums in (pull, square))
        kept_pull = pull[-1] - (1 - instead) * gone_pull
        return np.square(kept_pull) / np.maximum(square[-1] - (1 - instead**2) * gone, 1e-9) / _as_given(pull, square)

    leaning = 2 * right[resampled.known] - 1
    value = times(np.ones(len(part)), leaning)
    low, high = np.quantile([times(*drawn) for drawn in resampled.leanings(margin)], Q, axis=0)
    best = int(low.argmax()) if low.max() >= LEAST_GAIN else 0
    of = [Interval(float(value[k]), float(low[k]), float(high[k])) for k in (best, -1)]
    return Cut(int(cuts[best]), len(most_suspect), *of)


def _as_given(pull: np.ndarray, square: np.ndarray) -> float:
    return max(float(pull[-1]) ** 2 / float(square[-1]), 1e-9)


@dataclass(frozen=True)
class Worth:
    """What labels are worth: as given, in clean pairs; and under each action, as a multiple of that."""

    as_given: float
    times: Mapping[str, Interval]  # in the order in which they are told


def worth(right: np.ndarray, margin: np.ndarray, resampled: Resampled, kept: np.ndarray) -> Worth:
    """right, margin: [pairs], NaN where there is no evidence. kept: where dropping leaves a pair, bool [pairs]."""
    known = right[resampled.known]
    weights = np.stack([np.ones(len(known)), kept[resampled.known].astype(float), known, 2 * known - 1])

    def times(counted: np.ndarray, leaning: np.ndarray) -> np.ndarray:
        pairs = np.square(weights @ (counted * leaning)) / np.maximum(np.square(weights) @ counted, 1e-9)
        return np.asarray(pairs / max(float(pairs[0]), 1e-9))

    value = times(np.ones(len(known)), 2 * known - 1)
    low, high = np.quantile([times(*drawn) for drawn in resampled.leanings(margin)], Q, axis=0)
    of = [Interval(float(v), float(a), float(b)) for v, a, b in zip(value, low, high, strict=True)]
    return Worth(clean_pairs(known), dict(zip(("drop", "weight", "soft-label"), of[1:], strict=True)))


def best_action(worth: Worth) -> str:
    """The action whose gain is surest; to drop, where that is not worth its while: where no cut is sure to pay, none is
    made."""
    best = max(worth.times, key=lambda action: worth.times[action].low)
    return best if worth.times[best].low >= LEAST_GAIN else "drop"
