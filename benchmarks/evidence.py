"""Time and memory of all evidence on many scored pairs: reading texts, fitting and weighting everything.

    python -m benchmarks.evidence [--pairs 1000000]

Pairs of the demo's words, answers of 20 to 200 words, four answers and three pairs a prompt; margins of a reference and
of a probe as normals, 20% of the labels flipped. The pairs lie in part files of 1,024 rows, as `score` writes them, and
are read by the code that `filter`, `rules` and `audit` read them with. Each size is a process of its own. Writes
benchmarks/results/evidence.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.audit import text
from benchmarks.environment import environment
from rmo_curate.evidence.columns import Columns
from rmo_curate.evidence.gather import REFERENCE, STATES, together
from rmo_curate.evidence.posterior import Source
from rmo_curate.evidence.texts import read_texts
from rmo_train.store.files import write_json
from rmo_train.store.tables import MESSAGES

PART = 1024
TEXTS = 20_000  # distinct answers; every pair takes two of them
RATE = 0.2
TARGET = {"seconds": 60.0, "peak_gib": 6.0}
SCHEMA = pa.schema([("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES)])


def make(folder: Path, n: int) -> None:
    """n pairs in part files: texts alone, which is all that evidence reads of them."""
    rng, drawn = random.Random(0), np.random.default_rng(0)
    answers = [[{"role": "assistant", "content": text(rng, 20, 200)}] for _ in range(TEXTS)]
    asked = [text(rng, 5, 60) for _ in range(2000)]
    for start in range(0, n, PART):
        rows = np.arange(start, min(n, start + PART))
        prompt = rows // 3
        first = prompt * 4 % TEXTS
        chosen, rejected = (first + drawn.integers(0, 4, len(rows))) % TEXTS, (first + rows % 3) % TEXTS
        chosen = np.where(chosen == rejected, (chosen + 1) % TEXTS, chosen)
        table = {
            "prompt": [[{"role": "user", "content": f"{asked[p % len(asked)]} {p}"}] for p in prompt.tolist()],
            "chosen": [answers[k] for k in chosen.tolist()],
            "rejected": [answers[k] for k in rejected.tolist()],
        }
        pq.write_table(pa.table(table, schema=SCHEMA), folder / f"part-{start // PART:05d}.parquet")


def parts(folder: Path) -> Iterator[pa.Table]:
    for path in sorted(folder.glob("part-*.parquet")):
        yield pq.ParquetFile(path).read(columns=["prompt", "chosen", "rejected"])


def measured(folder: Path, n: int) -> dict[str, Any]:
    """Seconds of both halves, and peak memory of the process."""
    rng = np.random.default_rng(0)
    sign = np.where(rng.random(n) < RATE, -1, 1)
    quality = rng.standard_normal(n) + 0.8
    base = np.column_stack([20 * (rng.standard_normal(n) + 0.2 * quality), rng.standard_normal(n)])
    probe = 0.8 * (quality + rng.standard_normal(n))
    start = time.perf_counter()
    texts = read_texts(parts(folder))
    read = time.perf_counter() - start
    sources = [Source(REFERENCE, base * sign[:, None]), Source(STATES, (probe * sign)[:, None], learned=True)]
    posterior = together(sources, texts, Columns(), [])
    return {
        "seconds": time.perf_counter() - start,
        "read_seconds": read,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "noise_rate": posterior.noise.rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "evidence.json")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measured(Path(given.child[0]), int(given.child[1]))))
        return
    rows = []
    for n in given.pairs:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), n)
            line = [sys.executable, "-m", "benchmarks.evidence", "--child", folder, str(n)]
            done = subprocess.run(line, check=True, capture_output=True, text=True)
        rows.append({"pairs": n} | json.loads(done.stdout) | {"load_average": os.getloadavg()[0]})
        print(json.dumps(rows[-1]), flush=True)
        write_json(given.out, {"environment": environment(), "target": TARGET, "rows": rows})


if __name__ == "__main__":
    main()
