"""Time and memory of `rmo-curate audit` on 100,000 pairs without a model, and its findings on given files.

    python -m benchmarks.audit --pairs 100000 [--data FILE …] [--overlap FILE HELDOUT]

Makes pairs of the demo's words in a temporary folder, with known numbers of near-duplicates, reversed pairs, circles,
loops, cut answers and damaged characters, runs the command in a separate process, and compares its findings with
the planted defects; then audits every FILE. Writes benchmarks/results/audit.json.
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
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from rmo_train.store.files import write_json

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SEED = 0
WORDS = (ROOT / "data" / "demo" / "train.jsonl").read_text(encoding="utf-8").split()[:20_000]
PLANTED = 0.005  # share of the pairs that get each defect
TARGET_SECONDS, TARGET_GIB = 60.0, 4.0


def text(rng: random.Random, least: int, most: int) -> str:
    """Words in random order, so that no two texts are similar by chance."""
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most))).replace("`", "") + "."


def pairs(n: int, rng: random.Random, planted: Counter[str]) -> list[dict[str, Any]]:
    """`n` pairs of answers of 20 to 200 words; `planted` counts the pairs that have each defect."""
    found: list[dict[str, Any]] = []
    while len(found) < n:
        pair = {"prompt": text(rng, 5, 60), "chosen": text(rng, 20, 200), "rejected": text(rng, 20, 200)}
        pair["source"] = f"source {len(found) % 7}"
        found.append(pair)
        if rng.random() >= 5 * PLANTED:
            continue
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
    return found


def measure(n: int, folder: Path) -> dict[str, Any]:
    planted: Counter[str] = Counter()
    data = folder / "pairs.jsonl"
    made = pairs(n, random.Random(SEED), planted)
    data.write_text("".join(json.dumps(pair) + "\n" for pair in made), encoding="utf-8")
    found = environment(records=len(made), data_GiB=round(data.stat().st_size / 2**30, 3))
    began = time.monotonic()
    command = [sys.executable, "-m", "rmo_curate", "audit", str(data), "--out", str(folder / "out")]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # KiB on Linux
    audit = json.loads((folder / "out" / "audit.json").read_text())
    return found | {
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(seconds, 1),
        "target_seconds": TARGET_SECONDS,
        "peak_GiB": round(peak, 2),
        "target_GiB": TARGET_GIB,
        "page_MB": round((folder / "out" / "report.html").stat().st_size / 1e6, 2),
        "planted": dict(planted),
        "found": {name: audit["findings"][name]["count"] for name in planted},
    }


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
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--overlap", type=Path, nargs=2, help="data, and held-out data that must not be in them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.pairs, Path(folder))
        found["files"] = [found_in(data.resolve(), Path(folder) / f"of-{i}") for i, data in enumerate(given.data)]
        if given.overlap:
            found["overlap"] = overlap_of(*(path.resolve() for path in given.overlap), Path(folder) / "overlap")
    write_json(RESULTS / "audit.json", found)
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["seconds"] <= TARGET_SECONDS and found["peak_GiB"] <= TARGET_GIB else 1)


if __name__ == "__main__":
    main()
