"""Batch margin diversification: deals pairs into batches so that the margins within each batch vary widely.

For k equal batches of G pairs, the sum of the within-batch (population) variances is
`k Var_total - sum_j (mean_j - mean)^2`. It is largest when all batches have the same mean margin; its upper bound is
`k Var_total`. A random partition reaches about 1 - 1/G of that bound. The order depends only on (margins, G, seed,
epoch), so a resumed run, or a run with the same G on another number of ranks, gets the same batches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rmo_train.console.errors import UserError

Indices = NDArray[np.int64]

# A round swaps at most one pair per batch. About 20 rounds suffice for normally distributed margins. With lognormal
# margins, a batch with an outlier needs many more rounds to fill all its other places with small margins.
ROUNDS_PER_PARTNER, MOST_ROUNDS = 16, 128
CLOSE_ENOUGH = 1e-6  # stop when the share of the bound still missing is below this
CHECK_EVERY = 8
# Fixed point, so that sums are exact. Float sums depend on the CPU's vector width, but all ranks need the same order.
RESOLUTION = 2.0**36
SHORT_BATCH_DRAWS = 32


def diversified_batches(margins: NDArray[np.floating], batch_size: int, *, seed: int, epoch: int) -> list[Indices]:
    """Every index once, in batches of `batch_size` whose mean margins are as equal as a few swaps can make them.

    First, each batch is dealt one pair from each of the G quantile strata of the margins. Then swaps equalise the
    means. Batches, and the pairs within them, come in random order. If `batch_size` does not divide n, the last batch
    is short.

    The deal shuffles whole strata. Shuffling within small blocks would give more equal means at once, but would put the
    same pairs together in every epoch; the swaps make up for the difference.

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
    """Indices 0..n-1 in random batches of `batch_size`; if it does not divide n, the last batch is short."""
    order = np.random.default_rng([seed, epoch]).permutation(n)
    return [order[start : start + batch_size] for start in range(0, n, batch_size)]


def bound_fraction(margins: NDArray[np.floating], batches: Sequence[Indices]) -> float:
    """Share of the upper bound that a partition reaches, in [0, 1]; 1 if all margins are equal.

    sum_j n_j Var_j / (n Var_total), with population variances. For equal batches this is the sum of the within-batch
    variances over `k Var_total`. With a short last batch, the weights n_j keep it at most 1 (law of total variance).
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
    """Margins as integers: centred on the median and scaled so that the largest deviation is RESOLUTION."""
    if not len(order):
        return np.zeros(0, dtype=np.int64)
    centred = margins - margins[order[len(order) // 2]]
    largest = max(abs(centred[order[0]]), abs(centred[order[-1]]))
    return np.rint(centred / (largest or 1.0) * RESOLUTION).astype(np.int64)


def _short_batch(values: Indices, order: Indices, size: int, rng: np.random.Generator) -> Indices:
    """`size` indices, one from each of `size` quantile strata: of several random draws, the one whose mean is nearest
    to the overall mean."""
    if size == 0:
        return order[:0]
    n, total = len(order), int(values.sum())
    edges = np.arange(size + 1) * n // size
    draws = order[rng.integers(edges[:-1], edges[1:], size=(SHORT_BATCH_DRAWS, size))]
    return min(draws, key=lambda draw: abs(n * int(values[draw].sum()) - size * total))  # Python integers: no overflow


def _deal(order: Indices, batch_size: int, rng: np.random.Generator) -> Indices:
    """[k, G] batches from k G indices in margin order; column s is stratum s, shuffled."""
    strata = order.reshape(batch_size, len(order) // batch_size)
    return np.ascontiguousarray(rng.permuted(strata, axis=1).T)


def _equalise(values: Indices, batches: Indices, rng: np.random.Generator) -> None:
    """Swap pairs between batches, in place, until the batches' sums are nearly equal.

    Each round couples the batches two by two. In each couple it swaps the two pairs whose difference is nearest to half
    the gap between the sums, if that narrows the gap. Even rounds couple the largest sum with the smallest, the second
    largest with the second smallest, and so on. Odd rounds couple at random, so that no couple is stuck without a
    useful swap. Of the G^2 possible swaps of a couple, a round looks only at one diagonal of G, so memory is O(n).
    """
    k, size = batches.shape
    held = values[batches]
    sums = held.sum(axis=1)
    target = int(sums.sum()) / max(k, 1)
    spread = math.fsum((held.ravel() - target / size) ** 2)  # fsum: like the sums, the same on every CPU
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
