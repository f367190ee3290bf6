"""Time and memory of `rmo-curate audit` on 100,000 pairs without a model, and its findings on given files.

    python -m benchmarks.audit --pairs 100000 [--data FILE …] [--overlap FILE HELDOUT]
    python -m benchmarks.audit --pairs 1000000

Makes pairs of the demo's words in a temporary folder, with known numbers of near-duplicates, reversed pairs, circles,
loops, cut answers and damaged characters, runs the command in a process of its own, and compares what it found with
what was put in; then audits every FILE. Memory is that of the command's whole process tree, what processes share
counted once. Writes benchmarks/results/audit.json, of a million pairs audit-million.json.
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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from benchmarks.stream import memory
from rmo_train.store.files import read_json, write_json

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SEED = 0
WORDS = (ROOT / "data" / "demo" / "train.jsonl").read_text(encoding="utf-8").split()[:20_000]
PLANTED = 0.005  # share of the pairs that get each defect
SAMPLE_EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Size:
    """What is to be reached with so many pairs, and the file that keeps what was."""

    seconds: float
    gib: float
    file: str


SIZES = {100_000: Size(60.0, 4.0, "audit.json"), 1_000_000: Size(600.0, 6.0, "audit-million.json")}


def text(rng: random.Random, least: int, most: int) -> str:
    """Words in random order, so that no two texts are similar by chance."""
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most))).replace("`", "") + "."


def pairs(n: int, rng: random.Random, planted: Counter[str]) -> Iterator[list[dict[str, Any]]]:
    """`n` pairs of answers of 20 to 200 words, a few at a time; `planted` counts the pairs that have each defect."""
    made = 0
    while made < n:
        pair = {"prompt": text(rng, 5, 60), "chosen": text(rng, 20, 200), "rejected": text(rng, 20, 200)}
        pair["source"] = f"source {made % 7}"
        found = [pair]
        if rng.random() < 5 * PLANTED:
            plant(pair, found, rng, planted)
        made += len(found)
        yield found


def plant(pair: dict[str, Any], found: list[dict[str, Any]], rng: random.Random, planted: Counter[str]) -> None:
    """Give `pair` a defect, or put pairs beside it into `found` with which it makes one."""
    kind = rng.choice(("near_duplicate", "reversed", "cycle", "repetitive", "encoding"))
    if kind == "near_duplicate":
        found.append(pair | {"chosen": pair["chosen"] + " indeed"})
        planted[kind] += 2
    elif kind == "reversed":
        found.append(pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]})
        planted[kind] += 2
    elif kind == "cycle":
        third = text(rng, 20, 200)
        found.append(pair | {"chosen": pair["rejected"], "rejected": third})
        found.append(pair | {"chosen": third, "rejected": pair["chosen"]})
        planted[kind] += 3
    elif kind == "repetitive":
        pair["chosen"] = "and then again " * 40
        planted[kind] += 1
    else:
        pair["rejected"] += " It\u00e2\u20ac\u2122s"
        planted[kind] += 1


def measure(n: int, folder: Path) -> dict[str, Any]:
    planted: Counter[str] = Counter()
    data, size = folder / "pairs.jsonl", SIZES[n]
    records = 0
    with data.open("w", encoding="utf-8") as lines:
        for made in pairs(n, random.Random(SEED), planted):
            records += len(made)
            lines.writelines(json.dumps(pair) + "\n" for pair in made)
    found = environment(records=records, data_GiB=round(data.stat().st_size / 2**30, 3))
    command = [sys.executable, "-m", "rmo_curate", "audit", str(data), "--out", str(folder / "out")]
    seconds, peak, cpu = watched(command)
    audit = json.loads((folder / "out" / "audit.json").read_text())
    return found | {
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(seconds, 1),
        "target_seconds": size.seconds,
        "cpu_seconds": round(cpu, 1),
        "peak_GiB": round(peak / 2**30, 2),
        "target_GiB": size.gib,
        "page_MB": round((folder / "out" / "report.html").stat().st_size / 1e6, 2),
        "planted": dict(planted),
        "found": {name: audit["findings"][name]["count"] for name in planted},
    }


def watched(command: list[str]) -> tuple[float, int, float]:
    """Run a command; its seconds, the most bytes of its process tree, and the seconds of processors it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while True:
        try:
            process.wait(SAMPLE_EVERY)
            break
        except subprocess.TimeoutExpired:
            peak = max(peak, memory(process.pid))
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"the audit failed with exit code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, peak, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def found_in(data: Path, folder: Path) -> dict[str, Any]:
    """The counts of one file's audit, without findings that do not occur."""
    command = [sys.executable, "-m", "rmo_curate", "audit", str(data), "--out", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    audit = json.loads((folder / "audit.json").read_text())
    kept = ("counts", "length_bias", "flagged", "flagged_share", "contradictions")
    findings = {name: found for name, found in audit["findings"].items() if found["count"]}
    page = (folder / "report.html").stat().st_size / 1e6
    return {"data": data.name, **{name: audit[name] for name in kept}, "findings": findings, "page_MB": round(page, 2)}


def overlap_of(data: Path, held_out: Path, folder: Path) -> dict[str, Any]:
    """What `--against` finds."""
    command = [sys.executable, "-m", "rmo_curate", "audit", str(data), "--against", str(held_out), "--out", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "audit.json").read_text())["overlap"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000, choices=SIZES)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--overlap", type=Path, nargs=2, help="data, and held-out data that must not be in them")
    parser.add_argument(
        "--files-only", action="store_true", help="count in --data again; speed and memory stay as kept"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kept = RESULTS / SIZES[given.pairs].file
        found = read_json(kept) if given.files_only else measure(given.pairs, Path(folder))
        if given.data:
            found["files"] = [found_in(data.resolve(), Path(folder) / f"of-{i}") for i, data in enumerate(given.data)]
        if given.overlap:
            found["overlap"] = overlap_of(*(path.resolve() for path in given.overlap), Path(folder) / "overlap")
    write_json(kept, found)
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["seconds"] <= found["target_seconds"] and found["peak_GiB"] <= found["target_GiB"] else 1)


if __name__ == "__main__":
    main()
