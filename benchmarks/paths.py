"""Cost of the attention paths at different lengths, the basis of the rule in `rmo_train/forward/layout.py` on a CPU.

    python -m benchmarks.paths

Writes benchmarks/results/paths.json: for each shape of pairs the processor seconds of scoring and of a training step
by segments, by a dense mask and by plain rows. Random tokens, SmolLM2-135M; one thread, and the processor's own time,
so that other work on the machine matters little. Each is done twice, and the faster one counts.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import environment
from rmo_train.forward.attention import use_attention
from rmo_train.forward.layout import CPU_TOKENS_PER_BATCH, Layout
from rmo_train.forward.logps import pack_logps, response_logps
from rmo_train.forward.packing import Tree
from rmo_train.model.policy import load_model
from rmo_train.store.files import write_json

RESULT = Path(__file__).parent / "results" / "paths.json"
MODEL, DTYPE = "smollm2-135m", "bfloat16"
PATHS = ("segments", "dense", "rows")
# (prompts, answers to each, tokens of a prompt, tokens of an answer)
SHAPES = {
    "score": [
        (20, 2, 10, 10),
        (8, 2, 30, 20),
        (3, 8, 30, 20),
        (4, 2, 60, 60),
        (3, 2, 200, 5),
        (3, 2, 8, 100),
        (1, 2, 20, 400),
    ],
    "train": [(8, 2, 30, 20)],
}
REPEATS = 2


def random_trees(shape: tuple[int, int, int, int]) -> list[Tree]:
    """Trees of random tokens, lengths within 30% of those of the shape."""
    prompts, answers, prompt_tokens, answer_tokens = shape
    rng = np.random.default_rng(0)

    def ids(tokens: int) -> np.ndarray:
        return rng.integers(0, 40_000, max(2, round(tokens * rng.uniform(0.7, 1.3)))).astype(np.int32)

    return [
        Tree(ids(prompt_tokens), tuple(ids(answer_tokens) for _ in range(answers)), tuple(range(k, k + answers)))
        for k in range(0, prompts * answers, answers)
    ]


def run_once(model: Any, work: str, trees: list[Tree], layout: Layout) -> None:
    slots = sum(len(t.responses) for t in trees)
    if work == "score":
        response_logps(model, trees, slots, layout)
        return
    for pack in layout.packs(trees, layout.budget):
        pack_logps(model, pack, slots).sum().backward()
    model.zero_grad()


def measured(model: Any, work: str, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    """Seconds by path, as they are and over those of plain rows, and the share of the tokens that sharing saves."""
    trees = random_trees(shape)
    layouts = {path: Layout(path, CPU_TOKENS_PER_BATCH[path]) for path in PATHS}
    seconds: dict[str, list[float]] = {path: [] for path in PATHS}
    for _ in range(REPEATS):
        for path, layout in layouts.items():
            use_attention(model, path)
            start = time.process_time()
            run_once(model, work, trees, layout)
            seconds[path].append(time.process_time() - start)
    best = {path: min(found) for path, found in seconds.items()}
    plain = sum(len(t.prompt) + len(r) - 1 for t in trees for r in t.responses)
    return {
        "work": work,
        "shape": dict(zip(("prompts", "answers", "prompt_tokens", "answer_tokens"), shape, strict=True)),
        "saved": 1 - sum(t.tokens for t in trees) / plain,
        "seconds": best,
        "over_rows": {path: best[path] / best["rows"] for path in PATHS},
    }


def main() -> None:
    torch.set_num_threads(1)
    ran_on = environment()
    model = load_model(MODEL, DTYPE)
    cells = [measured(model, work, shape) for work, shapes in SHAPES.items() for shape in shapes]
    write_json(RESULT, {"environment": ran_on, "model": MODEL, "dtype": DTYPE, "cells": cells})
    for cell in cells:
        print(cell["work"], cell["shape"], f"saved {cell['saved']:.0%}", cell["over_rows"])


if __name__ == "__main__":
    main()
