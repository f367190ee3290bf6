"""Profile of scoring and training: time by kind of operator, and the rate of matrix products.

    python -m benchmarks.forward --data judged=FILE --data hh=FILE

The grid is benchmarks/plan.yaml. The same pairs are scored with and without torch.profiler, so its overhead is
known. Operations are counted from the model's shape, not by the profiler. Writes benchmarks/results/forward.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from benchmarks.data import load
from benchmarks.environment import environment
from benchmarks.score import operations_of, work_of
from rmo_train.forward.layout import Workload
from rmo_train.store.files import write_json
from rmo_train.training.throughput import matmul_rate, training_flop

HERE = Path(__file__).parent
KINDS = {  # of operators, by a part of their name; the first that fits; the rest is elementwise
    "matrix products": ("mm", "linear"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "reading embeddings and targets": ("embedding", "index_select", "gather"),
}


def kind_of(operator: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(p in operator for p in parts)), "elementwise and copies")


def measure(plan: dict[str, Any], path: str) -> dict[str, Any]:
    from rmo_curate.score.engines.transformers import TransformersEngine

    loaded = load(path, plan["pairs"], plan["model"])
    data = loaded.tokens
    engine = TransformersEngine(plan["model"], plan["dtype"], Workload.of(data))
    rows = np.arange(len(data))
    engine.score(data, rows)  # warms up
    operations = operations_of(work_of(loaded), plan["model"])["trees"]
    return {"layout": engine.layout.reason} | split(lambda: engine.score(data, rows), operations, plan["dtype"])


def measure_training(plan: dict[str, Any], path: str, lora: int | None) -> dict[str, Any]:
    """Forward and backward of one optimizer batch of the trainer, and its update."""
    from rmo_train.objective.losses import loss_named
    from rmo_train.training.job import build_job
    from rmo_train.training.loop import forward_backward, packed_batch
    from rmo_train.training.optimizer import MasterAdamW
    from rmo_train.training.plan import make_plan
    from rmo_train.training.settings import TrainSettings

    loaded = load(path, plan["pairs_per_step"], plan["model"])
    zeros = np.zeros(len(loaded.tokens))
    data = replace(loaded.tokens, ref_chosen=zeros, ref_rejected=zeros)
    settings = TrainSettings(
        lora=lora,
        per_device_train_batch_size=len(data),
        gradient_accumulation_steps=1,
        bf16=plan["dtype"] == "bfloat16",
    )
    with tempfile.TemporaryDirectory() as out:
        job = build_job(data, make_plan(data, settings), plan["model"], Path(out), settings, {})
    job.model.train()
    optimizer, rows, loss = MasterAdamW(job.model.parameters(), 1e-6, 0.0), np.arange(len(data)), loss_named("dpo")

    def step() -> None:
        for packs, members in packed_batch(job, rows):
            forward_backward(job, loss, rows, packs, members)
        optimizer.clip(1.0)
        optimizer.step(1e-6)

    step()  # warms up
    decoder, head = training_flop(job.model)
    packs = [pack for packs, _ in packed_batch(job, rows) for pack in packs]
    operations = decoder * sum(p.size for p in packs) + head * sum(len(p.targets) for p in packs)
    return split(step, operations, plan["dtype"])


def split(work: Callable[[], Any], operations: int, dtype: str) -> dict[str, Any]:
    """Seconds of `work` by kind of operator; `operations`: what its matrix products need."""
    start = time.perf_counter()
    work()
    alone = time.perf_counter() - start
    rate = matmul_rate(torch.device("cpu"), getattr(torch, dtype))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
    seconds: dict[str, float] = {}
    for event in profiled.key_averages():
        kind = kind_of(event.key)
        seconds[kind] = seconds.get(kind, 0.0) + event.self_cpu_time_total / 1e6
    total = sum(seconds.values())
    slowest = sorted(profiled.key_averages(), key=lambda e: -e.self_cpu_time_total)[:12]
    return {
        "seconds": alone,
        "seconds_profiled": total,
        "share": {kind: s / total for kind, s in seconds.items()},
        "slowest_operators": {e.key: e.self_cpu_time_total / 1e6 for e in slowest},
        "matmul_gflops": rate / 1e9,
        "matrix_products_gflops": operations / seconds["matrix products"] / 1e9,
        "share_of_matmul_rate": operations / alone / rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="NAME=FILE; repeatable")
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["forward"]
    result: dict[str, Any] = {"environment": environment(), "plan": plan}
    for name, path in dict(item.split("=", 1) for item in given.data).items():
        result[f"{name} score"] = measure(plan, path)
        result[f"{name} train full"] = measure_training(plan, path, None)
        result[f"{name} train lora"] = measure_training(plan, path, plan["lora"])
        write_json(HERE / "results" / "forward.json", result)
    for what in [k for k in result if k not in ("environment", "plan")]:
        print(what, {k: f"{v:.1%}" for k, v in result[what]["share"].items()}, flush=True)


if __name__ == "__main__":
    main()
