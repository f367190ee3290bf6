"""What labels of which some are wrong are worth, as a number of clean pairs, under each action.

A pair whose label is right with probability p pulls a preference loss by 2p - 1 in the mean, at a noise of 1 whatever
p; n pairs of weights w are then worth (sum w (2p - 1))^2 / sum w^2 clean ones. So n pairs of which a share e is wrong
are worth n (1 - 2e)^2; after a cut that drops a share q and leaves e', n (1 - q) (1 - 2e')^2; and soft labels, whose
weights are the best there are (2p - 1: Cauchy and Schwarz), sum (2p - 1)^2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_GAIN = 1.02  # over the labels as given, below which an action is not worth its while


def clean_pairs(right: np.ndarray, weight: np.ndarray | float = 1.0) -> float:
    """Clean pairs that pairs with P(label right) `right` [n] are worth under weights [n], which may be negative."""
    weight = np.broadcast_to(np.asarray(weight, dtype=np.float64), right.shape)
    total = float(np.square(weight).sum())
    return float((weight * (2 * right - 1)).sum()) ** 2 / total if total else 0.0


def by_action(right: np.ndarray) -> dict[str, float]:
    """Clean pairs that n pairs are worth under each action, in the order in which they are told.

    `drop` drops every pair that is more likely wrong than right, as `--noise-rate auto` does.
    """
    return {
        "drop": clean_pairs(right, right >= 0.5),
        "weight": clean_pairs(right, right),
        "soft-label": clean_pairs(right, 2 * right - 1),
    }


def best_action(right: np.ndarray) -> str | None:
    """The action under which n pairs are worth most; None where none is worth more than the labels as given."""
    pairs = by_action(right)
    best = max(pairs, key=pairs.__getitem__)
    return best if pairs[best] >= LEAST_GAIN * clean_pairs(right) else None


@dataclass(frozen=True)
class Worth:
    """What labels are worth, in clean pairs."""

    as_given: float
    by_action: dict[str, float]  # in the order in which they are told


def worth(right: np.ndarray) -> Worth:
    return Worth(clean_pairs(right), by_action(right))
