"""Coverage of 95% intervals of an accuracy: the bootstrap over prompts and the score interval.

    python -m benchmarks.coverage            writes benchmarks/results/coverage.json

Right and wrong answers are drawn with a known accuracy, one pair per prompt, or three with correlated outcomes (each
prompt has its own accuracy, from a beta distribution; correlation 0.5). Beyond the limits `MANY_PROMPTS` and
`LEAST_RARE` of `rmo_train/evaluation/intervals.py` the bootstrap has its nominal coverage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from rmo_train.evaluation.intervals import Weighted, wilson
from rmo_train.store.files import write_json

OUT = Path(__file__).parent / "results" / "coverage.json"
PROMPTS, ACCURACIES = (6, 10, 20, 50, 100, 200), (0.5, 0.7, 0.85, 0.95)
ALIKE = {"one pair a prompt": (1, 0.0), "three alike": (3, 0.5)}  # pairs of a prompt, and their correlation
DATA_SETS, DRAWS = 400, 300


def drawn(rng: np.random.Generator, prompts: int, pairs: int, alike: float, accuracy: float) -> np.ndarray:
    """1 where a pair is right: [prompts, pairs]."""
    own = np.full(prompts, accuracy)
    if alike:
        strength = (1 - alike) / alike
        own = rng.beta(accuracy * strength, (1 - accuracy) * strength, prompts)
    return (rng.random((prompts, pairs)) < own[:, None]).astype(float)


def intervals(rng: np.random.Generator, right: np.ndarray) -> dict[str, tuple[float, float]]:
    """Both intervals of one data set [prompts, pairs]; the bootstrap's is `metrics.bootstrap`'s, resampled at once."""
    prompts, pairs = right.shape
    times = rng.multinomial(prompts, np.full(prompts, 1 / prompts), DRAWS)
    low, high = np.quantile(times @ right.mean(axis=1) / prompts, [0.025, 0.975])
    of = Weighted.of(np.repeat(np.arange(prompts), pairs))
    values = right.ravel()
    share = of.mean(values)
    score = wilson(share, of.effective(values - share, share * (1 - share)), of.quantile)
    return {"bootstrap": (float(low), float(high)), "score": score}


def covered(prompts: int, kind: str, accuracy: float) -> dict[str, Any]:
    """How often each interval of one cell held the accuracy, and its mean width."""
    rng = np.random.default_rng([prompts, list(ALIKE).index(kind), round(100 * accuracy)])
    found = [intervals(rng, drawn(rng, prompts, *ALIKE[kind], accuracy)) for _ in range(DATA_SETS)]
    row: dict[str, Any] = {"prompts": prompts, "pairs": kind, "accuracy": accuracy}
    for name in ("bootstrap", "score"):
        ends = np.array([one[name] for one in found])
        holds = (ends[:, 0] <= accuracy + 1e-12) & (accuracy - 1e-12 <= ends[:, 1])
        row[name] = {"coverage": float(holds.mean()), "width": round(float(np.ptp(ends, axis=1).mean()), 3)}
    return row


def main() -> None:
    about = environment(data_sets=DATA_SETS, draws=DRAWS)
    cells = [covered(m, kind, p) for kind in ALIKE for m in PROMPTS for p in ACCURACIES]
    write_json(OUT, {"environment": about, "cells": cells})
    for cell in cells:
        print(*(cell[name] for name in ("pairs", "prompts", "accuracy", "bootstrap", "score")))


if __name__ == "__main__":
    main()
