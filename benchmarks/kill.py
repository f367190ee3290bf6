"""kill -9 at random moments in score, proxy, probe, filter; running the command again must give the same result.

    python -m benchmarks.kill --kills 30

Every kill starts from a folder in which the command has nothing yet, ends the real command line (its own process group)
at a moment drawn uniformly between its first file and its end, and runs the same command to the end. Compared with the
undisturbed folder: every file, every log-prob (float32), every id; parts that were recorded as finished before the kill
must be the same files after it. A tiny random model on the demo pairs. Writes benchmarks/results/kill.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rmo_train.store.files import sha256_file, write_json
from rmo_train.store.manifests import MANIFEST, Parts, ScoresManifest, read_manifest
from rmo_train.store.tables import JOURNAL, SCORE_SCHEMA, read_table
from tests.tiny import write_tiny_model

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "demo" / "train.jsonl"
RESULTS = Path(__file__).parent / "results"
SEED = 0
TURNS = ("score", "probed", "proxy", "score", "filter", "probe", "score")  # the longest command, three times of seven
TOLERANCE = 1e-4  # nats


@dataclass(frozen=True)
class Command:
    """One command line and the folder that it fills."""

    name: str  # of the command, or `probed`: a `score` that fits a probe, too
    arguments: tuple[str, ...]
    writes: Path  # appears when it begins to write


@dataclass(frozen=True)
class Kill:
    """One kill and its outcome."""

    command: str
    after_seconds: float
    stage: str  # what was being filled
    resumed_seconds: float
    parts_finished_before: int
    parts_untouched: int  # of those: the same file, not written again
    files: int
    files_equal: int  # to the undisturbed folder's, byte for byte
    left_behind: int  # files that the undisturbed folder has not
    ids_once: bool
    max_logp_difference: float  # nats

    @property
    def passed(self) -> bool:
        untouched = self.parts_untouched == self.parts_finished_before
        return untouched and self.ids_once and self.max_logp_difference <= TOLERANCE and not self.left_behind


def commands(work: Path, data: Path, model: Path, limit: int) -> dict[str, Command]:
    """The commands on the folders of `work`."""
    run, shards = work / "run", work / "shards"
    score = ("score", data, "--model", model, "--out", run, "--limit", limit, "--part-size", 8, "--dtype", "float32")
    return {
        "score": Command("score", tuple(map(str, (*score, "--proxy", "lora"))), run / "pairs"),
        "probed": Command("probed", tuple(map(str, score)), run / "pairs"),
        "proxy": Command("proxy", ("proxy", str(run), "--kind", "lora", "--seed", "7"), run / "proxies"),
        "probe": Command("probe", ("proxy", str(run)), run / "states"),
        "filter": Command("filter", ("filter", str(run), "--out", str(shards)), shards.with_name(".shards.partial")),
    }


def start(command: Command) -> subprocess.Popen[bytes]:
    """The real command line in a process group of its own."""
    arguments = [sys.executable, "-m", "rmo_curate.cli", *command.arguments]
    log = command.writes.parent.parent / f"{command.name}.log"
    with log.open("ab") as out:
        return subprocess.Popen(arguments, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)


def finish(command: Command) -> float:
    """Run a command to its end; seconds."""
    began = time.monotonic()
    if code := start(command).wait():
        raise SystemExit(f"{' '.join(command.arguments)}: exit {code}; see {command.name}.log beside its folder")
    return time.monotonic() - began


def undisturbed(command: Command) -> tuple[float, float]:
    """(seconds until it writes its first file, seconds in all)."""
    there = set(command.writes.glob("*"))
    began = time.monotonic()
    process, first = start(command), None
    while process.poll() is None:
        if first is None and set(command.writes.glob("*")) != there:
            first = time.monotonic() - began
        time.sleep(0.01)
    total = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"{command.name}: exit {process.returncode}; see {command.name}.log")
    return first if first is not None else 0.8 * total, total


def kill(command: Command, after: float) -> bool:
    """Start the command and kill its process group after so many seconds; False where it had ended already."""
    process = start(command)
    try:
        process.wait(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def recorded_parts(work: Path) -> dict[str, tuple[str, int, int]]:
    """Parts that a manifest or a journal records: path -> hash, inode and time of change."""
    found = {}
    for record in (*work.rglob(MANIFEST), *work.rglob(JOURNAL)):
        text = record.read_text(encoding="utf-8")
        for path in record.parent.glob("*.parquet"):
            if f'"{path.name}"' in text:
                state = path.stat()
                found[path.relative_to(work).as_posix()] = (sha256_file(path), state.st_ino, state.st_mtime_ns)
    return found


def stage_of(command: Command) -> str:
    """What a killed command was writing, according to its files."""
    if command.name == "filter":
        return "shards" if command.writes.exists() else "before or after writing"
    run = command.writes.parent
    if not (run / "pairs" / MANIFEST).exists():
        return "pairs"
    if (run / "states").exists() and not (run / "states" / MANIFEST).exists():
        return "hidden states" if (run / "scores" / "base" / MANIFEST).exists() else "reference scores and states"
    for folder in sorted((run / "scores").glob("*")):
        if not (folder / MANIFEST).exists():
            return "reference scores" if folder.name == "base" else "proxy scores"
    unfinished = [f for f in (run / "proxies").glob("*") if not (f / MANIFEST).exists()]
    return "proxy training" if unfinished else "between two stages"


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file but the logs with times in them."""
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "metrics.jsonl" and p.suffix != ".log")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


def logps(run: Path) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(stage, id) -> the log-probs recorded for it: one pair of them, where nothing is wrong."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for folder in sorted((run / "scores").glob("*")):
        manifest = read_manifest(folder, ScoresManifest) or Parts()
        for row in read_table(folder, manifest, SCORE_SCHEMA).to_pylist():
            found.setdefault((folder.name, row["id"]), []).append((row["chosen_logp"], row["rejected_logp"]))
    return found


def ids_of(work: Path) -> list[str]:
    """The ids of RUN/pairs, and those of shards and dropped pairs together, where there are some."""
    found = []
    for place in ("run/pairs", "shards"):
        ids = [
            i
            for p in sorted((work / place).rglob("*.parquet"))
            for i in pq.read_table(p, columns=["id"])["id"].to_pylist()
        ]
        found += [f"{place}:{i}" for i in ids]
    return found


def compare(work: Path, whole: Path, command: str, after: float, stage: str, before: dict, seconds: float) -> Kill:
    """The folder after the kill and the rerun, beside the undisturbed one."""
    found, expected = files_of(work), files_of(whole)
    ours, theirs = logps(work / "run"), logps(whole / "run")
    once = ours.keys() == theirs.keys() and all(len(v) == 1 for v in ours.values())
    ids = ids_of(work)
    worst = max((float(np.abs(np.subtract(ours[k][0], theirs[k][0])).max()) for k in theirs if k in ours), default=0.0)
    now = recorded_parts(work)
    return Kill(
        command=command,
        after_seconds=round(after, 2),
        stage=stage,
        resumed_seconds=round(seconds, 2),
        parts_finished_before=len(before),
        parts_untouched=sum(now.get(file) == state for file, state in before.items()),
        files=len(expected),
        files_equal=sum(found.get(file) == content for file, content in expected.items()),
        left_behind=len(found.keys() - expected.keys()),
        ids_once=once and len(set(ids)) == len(ids) and sorted(ids) == sorted(ids_of(whole)),
        max_logp_difference=worst,
    )


def measure(work: Path, kills: int, limit: int, seed: int = SEED) -> tuple[list[Kill], dict[str, list[float]]]:
    """`kills` kills in folders of `work`; also, by command, the seconds to its first file and to its end."""
    model = write_tiny_model(work / "model", hidden=64, layers=4)
    whole, times = {}, {}
    place = work / "undisturbed"
    place.mkdir()
    for name, command in commands(place / "work", DATA, model, limit).items():
        before = work / f"before-{name}"
        if name in ("score", "probed"):
            before.mkdir()
        else:
            shutil.copytree(whole["score"], before)
        shutil.rmtree(place / "work", ignore_errors=True)
        shutil.copytree(before, place / "work")
        times[name] = undisturbed(command)
        whole[name] = Path(shutil.copytree(place / "work", work / f"whole-{name}"))
    rng, done, lasts = np.random.default_rng(seed), [], dict(times)
    shown = commands(place / "work", DATA, model, limit)
    while len(done) < kills:
        name = TURNS[len(done) % len(TURNS)]
        command, (first, total) = shown[name], lasts[name]
        shutil.rmtree(place / "work")
        shutil.copytree(work / f"before-{name}", place / "work", copy_function=shutil.copy2)
        after = first + float(rng.random()) * (total - first)
        if not kill(command, after):
            # It was faster than the undisturbed one, which may have run beside other work: an earlier moment is drawn.
            lasts[name] = (0.8 * first, 0.8 * total)
            continue
        stage, survivors = stage_of(command), recorded_parts(place / "work")
        seconds = finish(command)
        done.append(compare(place / "work", whole[name], name, after, stage, survivors, seconds))
        print(f"{len(done):3} {done[-1]}", flush=True)
    return done, {name: [round(x, 2) for x in pair] for name, pair in times.items()}


def summary(kills: list[Kill], times: dict[str, list[float]]) -> dict:
    return {
        "kills": len(kills),
        "passed": sum(k.passed for k in kills),
        "by_command": Counter(k.command for k in kills),
        "by_stage": Counter(f"{k.command}: {k.stage}" for k in kills),
        "max_logp_difference_nats": max(k.max_logp_difference for k in kills),
        "files_equal": [sum(k.files_equal for k in kills), sum(k.files for k in kills)],
        "parts_untouched": [sum(k.parts_untouched for k in kills), sum(k.parts_finished_before for k in kills)],
        "left_behind": sum(k.left_behind for k in kills),
        "seconds_to_first_file_and_to_end": times,
        "resumed_seconds_median": {
            name: float(np.median([k.resumed_seconds for k in kills if k.command == name])) for name in times
            if any(k.command == name for k in kills)
        },
        "seed": SEED,
        "each": [asdict(k) for k in kills],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=35)
    parser.add_argument("--limit", type=int, default=272, help="records of the demo data")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kills, times = measure(Path(folder), given.kills, given.limit)
    found = summary(kills, times)
    write_json(RESULTS / "kill.json", found)
    print({k: v for k, v in found.items() if k != "each"})
    sys.exit(0 if found["passed"] == found["kills"] else 1)


if __name__ == "__main__":
    main()
