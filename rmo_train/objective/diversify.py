"""Batch margin diversification: a sampler of pair indices that spreads the margins inside every batch.

For k equal batches of G pairs the sum of within-batch (population) variances is
`k Var_total - sum_j (mean_j - mean)^2`: it is greatest when all batches have the same mean margin, and `k Var_total` is
its upper bound. A random partition reaches about 1 - 1/G of that bound. The order is a function of (margins, G, seed,
epoch) alone, so that a resumed run, or one on another number of ranks with the same G, sees the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rmo_train.console.errors import UserError

Indices = NDArray[np.int64]

# A round swaps at most one pair of a batch. Some 20 rounds are enough for normal margins; a batch that holds an outlier
# needs many more to collect small margins in all its other places (lognormal).
ROUNDS_PER_PARTNER, MOST_ROUNDS = 16, 128
CLOSE_ENOUGH = 1e-6  # share of the bound that may be missing
CHECK_EVERY = 8
# Fixed point, so that sums are exact: float sums depend on the CPU's vector width, and ranks must agree on the order.
RESOLUTION = 2.0**36
SHORT_BATCH_DRAWS = 32


def diversified_batches(margins: NDArray[np.floating], batch_size: int, *, seed: int, epoch: int) -> list[Indices]:
    """Every index once, in batches of `batch_size` with mean margins as equal as a few swaps can make them.

    Dealt in margin order (each batch gets one pair of each of the G quantile strata), then repaired by swaps; batches
    and the pairs in them come in random order. When `batch_size` does not divide n, the last batch is the short one.

    The deal shuffles whole strata: the repair regains what that costs, while shuffling in small blocks would bring the
    same pairs together epoch after epoch.

    margins: [n], any unit, finite.
    """
    margins = _checked(margins, batch_size)
    rng = np.random.default_rng([seed, epoch])
    order = np.argsort(margins, kind="stable")
    values = _fixed_point(margins, order)
    short = _short_batch(values, order, len(margins) % batch_size, rng)
    batches = _deal(order[~np.isin(order, short)], batch_size, rng)
    _equalise(values, batches, rng)
    batches = rng.permuted(batches[rng.permutation(len(batches))], axis=1)
    return [*batches, rng.permutation(short)] if len(short) else list(batches)


def random_batches(n: int, batch_size: int, *, seed: int, epoch: int) -> list[Indices]:
    """Indices 0..n-1 in random batches of `batch_size`; the last batch is short when it does not divide n."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]


def bound_fraction(margins: NDArray[np.floating], batches: Sequence[Indices]) -> float:
    """Share of the upper bound that a partition reaches, in [0, 1]; 1 when all margins are equal.

    sum_j n_j Var_j / (n Var_total) with population variances: for equal batches that is the sum of within-batch
    variances over `k Var_total`; the weights n_j keep it at most 1 with a short last batch (law of total variance).
    """
    sizes = np.array([len(batch) for batch in batches])
    x = np.asarray(margins, dtype=np.float64)[np.concatenate(batches)]
    if x.min() == x.max():
        return 1.0
    x = x - x.mean()
    x = x / np.abs(x).max()  # squares of tiny margins would underflow
    sums = np.add.reduceat(x, np.cumsum(sizes) - sizes)
    return float(1.0 - (sums**2 / sizes).sum() / (x**2).sum())


def _checked(margins: NDArray[np.floating], batch_size: int) -> NDArray[np.float64]:
    if batch_size < 1:
        raise UserError(f"batch size {batch_size}: expected at least 1 pair")
    checked: NDArray[np.float64] = np.asarray(margins, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(checked))
    if len(bad):
        raise UserError(
            f"the margin of pair {bad[0]} (counted from 0) is {margins[bad[0]]}; {len(bad)} of {len(margins)} margins "
            "are not finite numbers; score the pairs again, or train with --no-diversify"
        )
    return checked


def _fixed_point(margins: NDArray[np.float64], order: Indices) -> Indices:
    """Margins as integers: centred on the median, the largest deviation becoming RESOLUTION."""
    if not len(order):
        return np.zeros(0, dtype=np.int64)
    centred = margins - margins[order[len(order) // 2]]
    largest = max(abs(centred[order[0]]), abs(centred[order[-1]]))
    return np.rint(centred / (largest or 1.0) * RESOLUTION).astype(np.int64)


def _short_batch(values: Indices, order: Indices, size: int, rng: np.random.Generator) -> Indices:
    """`size` indices, one of each of `size` quantile strata: of some random draws the one nearest the overall mean."""
    if size == 0:
        return order[:0]
    n, total = len(order), int(values.sum())
    edges = np.arange(size + 1) * n // size
    draws = order[rng.integers(edges[:-1], edges[1:], size=(SHORT_BATCH_DRAWS, size))]
    return min(draws, key=lambda draw: abs(n * int(values[draw].sum()) - size * total))  # Python integers: no overflow


def _deal(order: Indices, batch_size: int, rng: np.random.Generator) -> Indices:
    """[k, G] batches from k G indices in margin order: column s is stratum s, shuffled."""
    strata = order.reshape(batch_size, len(order) // batch_size)
    return np.ascontiguousarray(rng.permuted(strata, axis=1).T)


def _equalise(values: Indices, batches: Indices, rng: np.random.Generator) -> None:
    """Swap pairs between batches, in place, until their sums are nearly equal.

    Each round couples the batches two by two and swaps, in every couple, the two pairs whose difference is nearest to
    half the couple's gap, if that narrows it. Even rounds couple the greatest sum with the smallest, the second with
    the second smallest and so on; odd rounds couple at random, which frees couples that have nothing more to swap. Only
    G of the G^2 possible swaps are looked at in a round, one diagonal of them: memory stays O(n).
    """
    k, size = batches.shape
    held = values[batches]
    sums = held.sum(axis=1)
    target = int(sums.sum()) / max(k, 1)
    spread = math.fsum((held.ravel() - target / size) ** 2)  # fsum: the same on every CPU, as the sums are
    couple = np.arange(k // 2)
    for round_ in range(min(ROUNDS_PER_PARTNER * (size - 1), MOST_ROUNDS)):
        if round_ % CHECK_EVERY == 0 and math.fsum((sums - target) ** 2) / size <= CLOSE_ENOUGH * spread:
            break
        ranked = np.argsort(sums, kind="stable") if round_ % 2 == 0 else rng.permutation(k)
        low, high = ranked[: k // 2], ranked[::-1][: k // 2]
        inverted = sums[low] > sums[high]
        low, high = np.where(inverted, high, low), np.where(inverted, low, high)
        gap = sums[high] - sums[low]
        partner = np.roll(np.arange(size), int(rng.integers(size)))
        moved = held[high][:, partner] - held[low]
        best = np.abs(2 * moved - gap[:, None]).argmin(axis=1)
        amount = moved[couple, best]
        narrows = np.abs(2 * amount - gap) < gap
        low, high, amount = low[narrows], high[narrows], amount[narrows]
        in_low, in_high = best[narrows], partner[best[narrows]]
        for table in (held, batches):
            table[low, in_low], table[high, in_high] = table[high, in_high], table[low, in_low]
        sums[low] += amount
        sums[high] -= amount
