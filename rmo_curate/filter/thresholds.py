"""Where to cut: budgets, quantiles and the soft cut, all of them quantiles of the data at hand.

A sum of log-probs grows with length, so a constant in nats means something else on every dataset.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa

from rmo_train.store.id_hash import Strings, fractions, hash64

STEEPNESS = 2.0  # tau / gamma: the soft cut's width is half of its position


def noisy_budget(n: int, high_q: float) -> int:
    """floor((1 - high_q) * n), with high_q taken as the decimal that was typed: 0.95 of 100 pairs leaves 5, not 4."""
    return math.floor((1 - Fraction(repr(float(high_q)))) * n)


def most_suspect(suspicion: np.ndarray, ids: Strings, budget: int) -> np.ndarray:
    """The first `budget` pairs by (suspicion descending, hash of id) among those with suspicion > 0: bool [pairs].

    Ids are hashed only where a tie runs across the cut, which makes 10,000,000 pairs a matter of a second.
    """
    eligible = suspicion > 0  # False for NaN
    if eligible.sum() <= budget:
        return eligible
    if budget == 0:
        return np.zeros_like(eligible)
    values = suspicion[eligible]
    cut = np.partition(values, len(values) - budget)[len(values) - budget]
    picked = suspicion > cut
    tied = np.flatnonzero(suspicion == cut)
    room = budget - int(picked.sum())
    if len(tied) > room:
        tied = tied[np.argsort(hash64(ids.take(pa.array(tied))), kind="stable")[:room]]
    picked[tied] = True
    return picked


def drop_probability(ambiguity: np.ndarray, tau: float) -> np.ndarray:
    """P(drop) = 0.5 (1 - tanh((a - tau) / gamma)), gamma = tau / 2: [pairs], NaN where a is.

    RMO's expression (AAAI 2026) for ambiguous pairs; it is largest at a = 0, so it is the probability of dropping: 0.98
    at 0, 0.5 at tau, and about the share low_q in all when tau is the low_q quantile. At tau = 0 it is its own limit:
    0.98 where a = 0, else 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(ambiguity == 0, 0.0, ambiguity / np.float64(tau))
    return 0.5 * (1 - np.tanh(STEEPNESS * (ratio - 1)))


def draws(seed: int, ids: Strings) -> np.ndarray:
    """The draw of every id, [pairs] in [0, 1): a function of ("ambiguous", seed, id) alone."""
    return fractions("ambiguous", seed, ids)
