"""Training on a GPU beside TRL's DPOTrainer: pairs a second and peak memory on the same random pairs.

TRL gets token ids and reference log-probs, so neither side tokenizes or scores references. Its precision and its
micro-batch are tuned: every combination takes the same steps, and the fastest counts. `benchmarks/gpu_day.py` runs it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch

from benchmarks.gpu import SHAPES, Bench, Figures, make_trees, random_model, spread, tried
from benchmarks.gpu_train import LEARNING_RATE, recomputes, train
from rmo_train.forward.packing import Tree
from rmo_train.training.throughput import peak_memory
from tests.tiny import make_tokenizer

MICRO_BATCHES = (4, 16, 32)  # pairs
PRECISIONS = {"bfloat16": torch.bfloat16, "float32 under autocast": torch.float32}


def beside_trl(
    shape: str, mix: str, tokens: int, names: Sequence[str], lora: int | None, bench: Bench
) -> Iterator[tuple[str, Figures]]:
    """Our attention paths `names`, TRL by precision and micro-batch, and our fastest path over its fastest run."""
    trees = make_trees(mix, tokens, SHAPES[shape]["vocab_size"])
    sizes = [size for size in MICRO_BATCHES if size <= len(trees)] or [1]
    trees = trees[: len(trees) // sizes[-1] * sizes[-1]]
    kind = f"{shape} {mix} {'full' if lora is None else 'LoRA'}"
    found: dict[str, dict[str, Figures]] = {"ours": {}, "trl": {}}
    for name, figures in train(shape, mix, tokens, names, lora, bench, pairs=len(trees)):
        found["ours"][name] = figures
        yield name, figures
    # Frozen float32 weights of an 8B model would be 32 GB for nothing.
    precisions = [p for p in PRECISIONS if lora is None or p == "bfloat16"]
    for precision, micro in product(precisions, sizes):
        name = f"{kind} TRL, {precision}, {micro} pairs a micro-batch"
        bench.free()  # of the model before
        figures = tried(lambda p=precision, m=micro: trl_steps(shape, trees, PRECISIONS[p], m, lora, bench))
        found["trl"][name] = figures
        yield name, figures
    fastest = {who: quickest(of) for who, of in found.items()}
    if fastest["ours"] and fastest["trl"]:
        (ours, a), (trl, b) = fastest["ours"], fastest["trl"]
        yield (
            f"{kind} beside TRL",
            {
                "ours": ours,
                "trl": trl,
                "times_trl": a["pairs_per_second"] / b["pairs_per_second"],
                "memory_over_trl": a["peak_gib"] / b["peak_gib"],
            },
        )


def quickest(found: dict[str, Figures]) -> tuple[str, Figures] | None:
    """The run with the most pairs a second; None if every one failed."""
    measured = [(name, f) for name, f in found.items() if "pairs_per_second" in f]
    return max(measured, key=lambda run: run[1]["pairs_per_second"], default=None)


def trl_steps(
    shape: str, trees: Sequence[Tree], weights: torch.dtype, micro: int, lora: int | None, bench: Bench
) -> Figures:
    """DPOTrainer's optimizer steps over all of `trees`, references given as 0; the first one warms up."""
    from transformers import TrainerCallback

    from benchmarks.trl_trainer import Steps, dpo_trainer

    class Clock(TrainerCallback):
        began = 0.0

        def on_step_begin(self, *arguments: Any, **more: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            if bench.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - self.began)

    seconds: list[float] = []
    steps = Steps(
        number=bench.repeats + 1,
        pairs=len(trees),
        micro_batch=micro,
        learning_rate=LEARNING_RATE,
        autocast=weights == torch.float32,
        lora=lora,
        recompute=recomputes(shape),
    )
    model = random_model(shape, bench.device).to(weights)
    with tempfile.TemporaryDirectory() as out:
        trainer = dpo_trainer(model, make_tokenizer(), [as_row(tree) for tree in trees], steps, Clock(), out)
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    measured = spread(seconds) | {"peak_gib": peak_memory(bench.device)}
    return measured | {"pairs_per_second": len(trees) / measured["seconds"]}


def as_row(tree: Tree) -> dict[str, Any]:
    """A pair as TRL holds it after tokenizing and scoring references."""
    ids = {"prompt_ids": tree.prompt, "chosen_ids": tree.responses[0], "rejected_ids": tree.responses[1]}
    return {name: row.tolist() for name, row in ids.items()} | {"ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0}
