"""Partitions of margins into batches: share of the upper bound, time, and pairs that share a batch in two epochs.

    python -m benchmarks.diversify            writes benchmarks/results/diversify.json

Compares `diversified_batches` with a random partition and with the search published with margin diversification:
from a random partition, swap two random pairs of two random batches, keep the swap if the sum of variances rises.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.environment import environment
from rmo_train.objective.diversify import Indices, bound_fraction, diversified_batches, random_batches

Margins = NDArray[np.float64]
DRAWS: dict[str, Callable[[np.random.Generator, int], Margins]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "student_t3": lambda rng, n: rng.standard_t(3, size=n),
    "lognormal": lambda rng, n: rng.lognormal(size=n),
}


def swap_search(margins: Margins, batch_size: int, swaps: int, *, seed: int) -> list[Indices]:
    """Random swaps, kept if the sum of variances rises. Pairs that do not fill a batch are left out, as published.

    With equal batches the sum of variances rises exactly when the sum of squared batch sums falls, which takes two sums
    to update instead of two variances: kinder to this search than recomputing variances.
    """
    rng = random.Random(seed)
    k = len(margins) // batch_size
    held = rng.sample(range(len(margins)), k * batch_size)
    values = (margins - margins.mean())[held].tolist()
    sums = [sum(values[i * batch_size : (i + 1) * batch_size]) for i in range(k)]
    for _ in range(swaps):
        a, b = rng.randrange(len(held)), rng.randrange(len(held))
        i, j = a // batch_size, b // batch_size
        moved = values[b] - values[a]  # from batch j to batch i; the squared sums change by 2 moved (S_i - S_j + moved)
        if i != j and moved * (sums[i] - sums[j] + moved) < 0:
            held[a], held[b], values[a], values[b] = held[b], held[a], values[b], values[a]
            sums[i] += moved
            sums[j] -= moved
    return list(np.array(held).reshape(k, batch_size))


def shared_over_chance(first: list[Indices], second: list[Indices], n: int, batch_size: int) -> float:
    """How often two pairs that share a batch of `first` share one of `second`, over how often chance gives that."""
    batch_of = np.empty(n, dtype=np.int64)
    for j, batch in enumerate(second):
        batch_of[batch] = j
    met = np.sort(batch_of[np.array([b for b in first if len(b) == batch_size])], axis=1)
    again = sum(int((met[:, step:] == met[:, :-step]).sum()) for step in range(1, batch_size))
    return again / (len(met) * batch_size * (batch_size - 1) / 2) * (n - 1) / (batch_size - 1)


def timed(make: Callable[[int], list[Indices]], margins: Margins, repeats: int) -> dict[str, float]:
    """Median fraction of the bound and median, least and greatest seconds over seeds 0..repeats-1.

    `cpu_seconds`, the process's own, say what the wall clock would without the machine's other work.
    """
    seconds, cpu_seconds, fractions = [], [], []
    for seed in range(repeats):
        start, cpu_start = time.perf_counter(), time.process_time()
        batches = make(seed)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        fractions.append(bound_fraction(margins, batches))
    return {
        "bound_fraction": statistics.median(fractions),
        "bound_fraction_min": min(fractions),
        "seconds": statistics.median(seconds),
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "cpu_seconds": statistics.median(cpu_seconds),
    }


def measure(draw: str, n: int, batch_size: int, repeats: int, swaps: list[int]) -> list[dict[str, object]]:
    """One row per method, on the same margins."""
    margins = DRAWS[draw](np.random.default_rng(0), n)

    def ours(seed: int, epoch: int = 0) -> list[Indices]:
        return diversified_batches(margins, batch_size, seed=seed, epoch=epoch)

    methods: dict[str, Callable[[int], list[Indices]]] = {
        "diversified": ours,
        "random": lambda seed: random_batches(n, batch_size, seed=seed, epoch=0),
    }
    for count in swaps:
        methods[f"swap search, {count:,} swaps"] = lambda seed, count=count: swap_search(  # type: ignore[misc]
            margins, batch_size, count, seed=seed
        )
    rows = [
        {"margins": draw, "n": n, "batch_size": batch_size, "method": name, **timed(make, margins, repeats)}
        for name, make in methods.items()
    ]
    rows[0]["epochs_share_over_chance"] = shared_over_chance(ours(0), ours(0, epoch=1), n, batch_size)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", type=int, nargs="*", default=[8_000, 60_000], help="sizes with the swap search")
    parser.add_argument("--alone", type=int, nargs="*", default=[1_000_000], help="sizes without it")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--swaps", type=int, nargs="*", default=[100_000, 1_000_000], help="tries of the swap search")
    parser.add_argument("--repeats", type=int, default=5, help="seeds a row is the median of")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "diversify.json")
    arguments = parser.parse_args()

    ran_on = environment()
    rows = []
    for n, swaps in [(n, arguments.swaps) for n in arguments.compare] + [(n, []) for n in arguments.alone]:
        for draw in DRAWS:
            for row in measure(draw, n, arguments.batch_size, arguments.repeats, swaps):
                print(
                    f"{row['n']:>9,} {draw:<10} {row['method']:<28} {row['bound_fraction']:.5%} of the bound, "
                    f"{row['seconds']:.3f} s ({row['cpu_seconds']:.3f} s CPU)",
                    flush=True,
                )
                rows.append(row)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    report = {"command": ["-m", "benchmarks.diversify", *sys.argv[1:]], "environment": ran_on, "rows": rows}
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
