"""Memory and speed of reading, rendering and writing a large preference set, quarantine included.

    python -m benchmarks.stream --pairs 1000000

Makes the records (about 1% of them no pairs, of several kinds) in a temporary folder, runs the first stage of
`rmo-curate score` in a process of its own and samples the memory of its whole process tree: proportional set sizes,
so that what processes share counts once. Writes benchmarks/results/stream.json.
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
from pathlib import Path
from typing import Any

from rmo_train.store.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SEED = 0
WORDS = (ROOT / "data" / "demo" / "train.jsonl").read_text(encoding="utf-8").split()[:20_000]
BAD_SHARE = 0.01
SAMPLE_EVERY = 0.5  # seconds
TARGET_GIB = 2.0


def record(i: int, rng: random.Random) -> str:
    """Line i: a pair of answers of 20 to 160 words, with an id and two other columns; 1% are broken in six ways."""

    def text(least: int, most: int) -> str:
        start = rng.randrange(len(WORDS) - most)
        return f"{i} {' '.join(WORDS[start : start + rng.randint(least, most)])}"

    value: dict[str, Any] = {
        "id": f"record-{i}",
        "prompt": [{"role": "user", "content": text(5, 60)}],
        "chosen": [{"role": "assistant", "content": text(20, 160)}],
        "rejected": [{"role": "assistant", "content": text(20, 160)}],
        "score": rng.random(),
        "origin": f"annotator {i % 97}",
    }
    if i < 1000 or rng.random() >= BAD_SHARE:
        return json.dumps(value)
    kind = rng.randrange(6)
    if kind == 0:
        return json.dumps(value)[:-20]  # broken line
    if kind == 1:
        del value["rejected"]
    elif kind == 2:
        value["chosen"] = value["rejected"]
    elif kind == 3:
        value["chosen"] = [{"role": "assistant", "content": " "}]
    elif kind == 4:
        value["chosen"] = [{"role": "narrator", "content": "once"}]
    else:
        return json.dumps([1, 2, 3])
    return json.dumps(value)


def make_data(path: Path, n: int) -> None:
    rng = random.Random(SEED)
    with path.open("w", encoding="utf-8") as out:
        for i in range(n):
            out.write(record(i, rng) + "\n")


def tree(pid: int) -> list[int]:
    """The process and all that it started."""
    found = [pid]
    for at in found:
        try:
            for task in Path(f"/proc/{at}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:  # it has just ended
            continue
    return found


def memory(pid: int) -> int:
    """Bytes of the process tree: the sum of proportional set sizes."""
    total = 0
    for at in tree(pid):
        try:
            lines = Path(f"/proc/{at}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def stage(data: Path, run: Path, model: str, workers: int | None) -> None:
    """What `rmo-curate score` does before it scores; prints its numbers as JSON. Runs in a process of its own."""
    from rmo_curate.read.sources import open_source
    from rmo_curate.score.pairs_stage import write_pairs
    from rmo_train.data.rendering import Renderer
    from rmo_train.model.models import load_tokenizer

    began = time.monotonic()
    renderer = Renderer(load_tokenizer(model))
    loaded = time.monotonic()
    source = open_source([str(data)])
    looked = time.monotonic()
    manifest = write_pairs(source, renderer, run, {}, part_size=1024, max_length=1024, workers=workers)
    seconds = {
        "load the tokenizer": loaded - began,
        "look through": looked - loaded,
        "read, render and write": time.monotonic() - looked,
    }
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = {name: u.ru_utime + u.ru_stime for name, u in zip(("reading process", "workers"), used, strict=True)}
    print(json.dumps({"counts": manifest.counts, "seconds": seconds, "cpu_seconds": cpu}))


def measure(pairs: int, model: str, workers: int | None, folder: Path) -> dict[str, Any]:
    data = folder / "pairs.jsonl"
    make_data(data, pairs)
    arguments = [sys.executable, "-m", "benchmarks.stream", "--stage", str(data), str(folder / "run"), "--model", model]
    if workers is not None:
        arguments += ["--workers", str(workers)]
    peak, processes = 0, 0
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak, processes = max(peak, memory(process.pid)), max(processes, len(tree(process.pid)))
        time.sleep(SAMPLE_EVERY)
    assert process.stdout is not None
    printed = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"the stage failed with exit code {process.returncode}")
    found = json.loads(printed.splitlines()[-1])
    total = sum(found["seconds"].values())
    return {
        "records": pairs,
        "model": model,
        "cores": len(os.sched_getaffinity(0)),
        "processes": processes,
        "data_GiB": round(data.stat().st_size / 2**30, 3),
        "peak_GiB": round(peak / 2**30, 3),
        "target_GiB": TARGET_GIB,
        "records_per_second": round(pairs / total, 1),
        **{key: found[key] for key in ("counts", "seconds", "cpu_seconds")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--model", default="smollm2-135m", help="whose tokenizer and chat template render")
    parser.add_argument("--workers", type=int, help="processes that render (default: as `rmo-curate score` chooses)")
    parser.add_argument("--stage", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        stage(*given.stage, given.model, given.workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.pairs, given.model, given.workers, Path(folder))
    write_json(RESULTS / "stream.json", found)
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["peak_GiB"] <= TARGET_GIB else 1)


if __name__ == "__main__":
    main()
