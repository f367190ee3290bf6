"""Where the time of the scoring forward goes: operators by kind, and the rate of the matrix products among them.

    python -m benchmarks.forward --data judged=FILE --data hh=FILE

The grid is benchmarks/plan.yaml; torch.profiler's own cost is a few per cent. Writes benchmarks/results/forward.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from benchmarks.data import load
from benchmarks.environment import environment
from rmo_train.tables import write_json
from rmo_train.throughput import matmul_rate

HERE = Path(__file__).parent
KINDS = {  # of operators, by a part of their name; the first that fits; the rest is elementwise
    "matrix products": ("mm", "linear"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "reading embeddings and targets": ("embedding", "index_select", "gather"),
}


def kind_of(operator: str) -> str:
    return next((kind for kind, parts in KINDS.items() if any(p in operator for p in parts)), "elementwise and copies")


def measure(plan: dict[str, Any], path: str) -> dict[str, Any]:
    from rmo_curate.engines.transformers import TransformersEngine

    data = load(path, plan["pairs"], plan["model"]).tokens
    engine = TransformersEngine(plan["model"], plan["dtype"], data)
    rows = np.arange(len(data))
    engine.score(data, rows)  # warms up
    rate = matmul_rate(torch.device("cpu"), getattr(torch, plan["dtype"]))
    with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiled:
        engine.score(data, rows)
    seconds: dict[str, float] = {}
    operations = 0
    for event in profiled.key_averages():
        kind = kind_of(event.key)
        seconds[kind] = seconds.get(kind, 0.0) + event.self_cpu_time_total / 1e6
        operations += event.flops if kind == "matrix products" else 0
    total = sum(seconds.values())
    products = operations / seconds["matrix products"]
    return {
        "layout": engine.layout.reason,
        "seconds": seconds,
        "share": {kind: s / total for kind, s in seconds.items()},
        "matmul_gflops": rate / 1e9,
        "matrix_products_gflops": products / 1e9,
        "share_of_matmul_rate": operations / total / rate,
        "reachable_share": seconds["matrix products"] / total,  # if its products ran at the rate measured alone
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="NAME=FILE; repeatable")
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["forward"]
    result: dict[str, Any] = {"environment": environment(), "plan": plan}
    for name, path in dict(item.split("=", 1) for item in given.data).items():
        result[name] = measure(plan, path)
        print(name, {k: f"{v:.1%}" for k, v in result[name]["share"].items()}, flush=True)
        write_json(HERE / "results" / "forward.json", result)


if __name__ == "__main__":
    main()
