"""Start-up time, speed and memory of training by number of pairs.

    python -m benchmarks.growth SHARDS

SHARDS, a folder that `rmo-curate filter` made, is repeated under new ids up to each size of benchmarks/plan.yaml, and
`rmo-train run` takes some steps on it in a process of its own. Writes benchmarks/results/growth.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from benchmarks.environment import environment
from rmo_train.store import files, manifests, tables

HERE = Path(__file__).parent
PART = 20_000  # pairs a file
PAIRS_PER_STEP = 16  # the trainer's default


def repeated(shards: Path, pairs: int, out: Path) -> None:
    """The kept pairs of `shards` again and again, with new ids, until there are `pairs`."""
    manifest = manifests.require_manifest(shards, manifests.ShardsManifest, "rmo-curate filter")
    some = pa.concat_tables(tables.iter_parts(shards, manifest))
    parts = []
    for at in range(0, pairs, PART):
        rows = range(at, min(at + PART, pairs))
        table = some.take(pa.array([i % some.num_rows for i in rows]))
        table = table.set_column(0, "id", pa.array([f"{i:08d}" for i in rows]))
        (out / "data").mkdir(parents=True, exist_ok=True)
        path = out / "data" / f"train-{at:08d}.parquet"
        parts.append(tables.write_table(path, table, table.schema, out))
    counts = {**manifest.counts, "kept": pairs, "pairs": pairs + manifest.counts["pairs"] - some.num_rows}
    manifest.model_copy(update={"parts": tuple(parts), "counts": counts}).write(out)


def train(shards: Path, model: str, steps: int, out: Path) -> dict[str, Any]:
    """One run's seconds before its first step, its speed and its peak memory."""
    command = (sys.executable, "-m", "rmo_train", "run", shards, "--model", model, "--out", out, "--max-steps", steps)
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics, started = out / "metrics.jsonl", None
    while process.poll() is None:
        if started is None and metrics.exists() and metrics.stat().st_size:
            started = time.perf_counter() - start
        time.sleep(0.01)
    assert process.returncode == 0 and started is not None, command
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {
        "seconds_before_first_step": started - PAIRS_PER_STEP / lines[0]["pairs_per_second"],
        "pairs_per_second": lines[-1]["pairs_per_second"],
        "peak_gib": lines[-1]["peak_memory_gib"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["growth"]
    result: dict[str, Any] = {"environment": environment(), "plan": plan, "runs": []}
    for _ in range(plan["rounds"]):
        for pairs in plan["pairs"]:
            with tempfile.TemporaryDirectory() as folder:
                repeated(given.shards, pairs, Path(folder) / "shards")
                found = train(Path(folder) / "shards", plan["model"], plan["steps"], Path(folder) / "out")
            result["runs"].append({"pairs": pairs, **found})
            print(result["runs"][-1], flush=True)
            files.write_json(HERE / "results" / "growth.json", result)


if __name__ == "__main__":
    main()
