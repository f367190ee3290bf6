"""Scoring by one process and by workers, on an idle and on a busy machine: pairs per second.

    python -m benchmarks.workers --data train.jsonl --limit 280 [--model smollm2-135m]

Every method is the command itself in a process of its own, scoring the same pairs under the reference alone; methods
take turns, `--rounds` times. The rate is that of the whole command, including its start. The overhead of Ray is the
difference between one worker and one process with one thread, which compute the same. Writes
benchmarks/results/workers.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environment import environment
from rmo_curate.runs.run import open_run
from rmo_train.store.files import write_json

RESULT = Path(__file__).parent / "results" / "workers.json"
PART_SIZE = 16


@dataclass(frozen=True)
class Method:
    flags: tuple[str, ...] = ()
    threads: int | None = None
    neighbours: int = 0  # busy processes beside it


METHODS = {
    "one process": Method(),
    "one process, one thread": Method(threads=1),
    "one worker": Method(("--workers", "1")),
    "a worker a core": Method(("--workers", "auto")),
    "one process, busy neighbour": Method(neighbours=1),
    "a worker a core, busy neighbour": Method(("--workers", "auto"), neighbours=1),
}


def spin() -> None:
    while True:
        pass


@contextmanager
def busy(neighbours: int) -> Iterator[None]:
    processes = [multiprocessing.Process(target=spin, daemon=True) for _ in range(neighbours)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def seconds(method: Method, data: Path, limit: int, model: str) -> tuple[float, int]:
    """Wall time of the command, and the pairs that it scored."""
    folder = Path(tempfile.mkdtemp(prefix="workers-"))
    command = [sys.executable, "-m", "rmo_curate", "score", str(data), "--model", model, "--out", str(folder / "run")]
    command += ["--proxy", "none", "--limit", str(limit), "--part-size", str(PART_SIZE), *method.flags]
    threads = {} if method.threads is None else {"OMP_NUM_THREADS": str(method.threads)}
    try:
        with busy(method.neighbours):
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env={**os.environ, **threads})
            took = time.perf_counter() - start
        return took, open_run(folder / "run").manifest.counts["scorable"]
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=280)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    took: dict[str, list[float]] = {name: [] for name in METHODS}
    pairs = 0
    for _ in range(asked.rounds):
        for name, method in METHODS.items():
            took_now, pairs = seconds(method, asked.data, asked.limit, asked.model)
            took[name].append(took_now)
            print(f"{name}: {took_now:.0f} s, {pairs / took_now:.2f} pairs/s", flush=True)
            write_json(asked.out, result(took, pairs, asked))


def result(took: dict[str, list[float]], pairs: int, asked: argparse.Namespace) -> dict[str, object]:
    rates = {name: [pairs / s for s in times] for name, times in took.items() if times}
    median = {name: statistics.median(values) for name, values in rates.items()}
    found: dict[str, object] = {
        "environment": environment(model=asked.model),
        "data": asked.data.name,
        "pairs": pairs,
        "seconds": took,
        "pairs_per_second": median,
    }
    if len(median) == len(METHODS):
        quiet, beside = "a worker a core", "a worker a core, busy neighbour"
        found["quiet, over one process"] = median[quiet] / median["one process"]
        found["beside a busy neighbour, over one process"] = median[beside] / median["one process, busy neighbour"]
        ray, alone = (statistics.median(took[n]) for n in ("one worker", "one process, one thread"))
        found["seconds that Ray costs"] = ray - alone
    return found


if __name__ == "__main__":
    main()
