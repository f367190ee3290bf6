"""Time and memory of the filter's decisions on millions of scored pairs, and of writing the shards.

    python -m benchmarks.filter            writes benchmarks/results/filter.json

Synthetic pairs: ids of 32 hex digits, four pairs a prompt, Gaussian margins, 20% flipped, 1% too long, 0.5% repeats;
the proxy's scores lie fold by fold, as a cross-fitted run has them. Every measurement is a process of its own:

- memory: duplicates, rule, thresholds, draws and reasons of columns that are in memory already
- rules: the suspicion of every rule, four checkpoints, and the report of `rmo-curate rules`
- files: `decide` on a run folder, every file verified, the scores joined by id (texts of a few words)
- command: `rmo-curate filter`, shards written (texts and tokens as long as those of judged_pairs)
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.environment import environment
from rmo_curate.evidence.gather import STATES
from rmo_curate.evidence.label_noise import LabelNoise
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.style import Style
from rmo_curate.filter.command import run_filter
from rmo_curate.filter.decisions import decide, decide_scored, repeats
from rmo_curate.filter.rule_comparison import COMPARED, HIGH_Q, compare_rules
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs.margins import reward
from rmo_curate.runs.run import Checkpoint, Scores, Trajectory, open_run
from rmo_train.store import tables
from rmo_train.store.files import write_json
from rmo_train.store.manifests import InputFile, Manifest, PairsManifest, Reference, RunManifest, ScoresManifest

PART = 1024  # rows of a part, the default of `score`
FLIPS, TOO_LONG, REPEATS = 0.2, 0.01, 0.005
PROMPT, CHOSEN, REJECTED = 65, 151, 104  # tokens, the means of judged_pairs
BASE = Checkpoint("base", "base", None, None, None, None, 0.01)
FORM = "synthetic"
INPUTS = (InputFile(name="synthetic", bytes=0, sha256="0" * 64),)
END = Checkpoint("oof-16", "proxy", "oof", 16, 2, True, 0.01)


def hex_strings(n: int, width: int, rng: np.random.Generator, repeated: float = 0.0) -> pa.StringArray:
    """n strings of hex digits, a share of them equal to an earlier one."""
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    text = np.empty((n, width), dtype=np.uint8)
    for start in range(0, n, 2**20):
        text[start : start + 2**20] = digits[rng.integers(0, 16, text[start : start + 2**20].shape, dtype=np.uint8)]
    again = 1 + rng.choice(n - 1, int(repeated * n), replace=False)
    text[again] = text[rng.integers(0, again)]
    offsets = np.arange(n + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))


def scored(n: int, checkpoints: int, rng: np.random.Generator) -> tuple[np.ndarray, Scores]:
    """too_long [n], and log-probs: D_0 of sd 20 nats; the last checkpoint adds 3 +- 5 nats, or takes them of a flip."""
    too_long = rng.random(n) < TOO_LONG
    sign = np.where(rng.random(n) < FLIPS, -1.0, 1.0)
    rejected = np.full((n, checkpoints), -np.inf)
    chosen = np.empty_like(rejected)
    margin, rejected[:] = rng.normal(0, 20, n), rng.normal(-200, 40, (n, 1))
    for m in range(checkpoints):
        chosen[:, m] = rejected[:, m] + margin
        margin += sign * rng.normal(3, 5, n) / max(checkpoints - 1, 1)
    chosen[too_long] = rejected[too_long] = np.nan
    tokens = [rng.integers(mean // 2, mean * 3 // 2, n, dtype=np.int32) for mean in (CHOSEN, REJECTED)]
    names = ("base", *(f"oof-{m}" for m in range(1, checkpoints)))
    return too_long, Scores(names, chosen, rejected, tokens[0], tokens[1], np.full(n, True, dtype=object))


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(work: Callable[[], Any], name: str = "") -> tuple[dict[str, float], Any]:
    """Wall-clock seconds and CPU seconds; the latter estimate the time on an idle machine."""
    start, cpu_start = time.perf_counter(), time.process_time()
    result = work()
    found = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu_start}
    return {f"{name}{'_' if name else ''}{k}": v for k, v in found.items()}, result


# ------------------------------------------------------------------------------------------------- the run folder


def texts(n: int, tokens: np.ndarray, role: str, rng: np.random.Generator, small: bool) -> tuple[pa.Array, pa.Array]:
    """Messages and token ids of n texts: of `tokens` words each, or of two words and tokens whatever their count."""
    lengths = np.full(n, 2) if small else tokens
    vocabulary = np.array(["margin", "the", "answer", "of", "pair", "reward", "to", "a", "is", "prompt", "why", "it"])
    words = vocabulary[rng.integers(0, len(vocabulary), int(lengths.sum()))].tolist()
    ends = np.cumsum(lengths).tolist()
    content = [" ".join(words[a:b]) for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    message = pa.StructArray.from_arrays([pa.array([role] * n), pa.array(content)], names=["role", "content"])
    ids = pa.array(rng.integers(0, 49152, int(lengths.sum()), dtype=np.int32))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32)), message), pa.ListArray.from_arrays(
        offsets, ids
    )


def write_stage(folder: Path, of: type[Manifest], parts: Iterator[pa.Table], schema: pa.Schema, **of_kind: Any) -> None:
    written = [tables.write_table(folder / f"part-{i:05d}.parquet", t, schema, folder) for i, t in enumerate(parts)]
    counts = {"pairs": sum(f.rows for f in written)}
    of(key={"made_for": "filter"}, counts=counts, parts=tuple(written), **of_kind).write(folder)


def make_run(folder: Path, n: int, small: bool) -> None:
    """A run folder of n pairs with the base and one cross-fitted proxy, in parts of PART rows."""
    rng = np.random.default_rng(0)
    too_long, scores = scored(n, 2, rng)
    ids, shas = hex_strings(n, 32, rng), hex_strings(n, 64, rng, REPEATS)
    fold = rng.integers(0, 2, -(-n // 4))[np.arange(n) // 4].astype(np.int16)

    def pair_parts() -> Iterator[pa.Table]:
        for start in range(0, n, PART):
            rows = slice(start, min(start + PART, n))
            size = rows.stop - start
            counts = {
                "prompt": rng.integers(PROMPT // 2, PROMPT * 3 // 2, size),
                "chosen": scores.chosen_tokens[rows],
                "rejected": scores.rejected_tokens[rows],
            }
            columns: dict[str, Any] = {name: pa.nulls(size, kind) for name, kind in zip(
                tables.PAIR_SCHEMA.names, tables.PAIR_SCHEMA.types, strict=True
            )}  # fmt: skip
            for name, tokens in counts.items():
                role = "user" if name == "prompt" else "assistant"
                columns[name], columns[f"{name}_ids"] = texts(size, tokens, role, rng, small)
            columns |= {"id": ids[rows], "tokens_sha": shas[rows]}
            columns |= {"chosen_tokens": counts["chosen"], "rejected_tokens": counts["rejected"]}
            columns["flags"] = pa.array(
                [["too_long"] if long else [] for long in too_long[rows]], pa.list_(pa.string())
            )
            yield pa.table(columns)

    def score_parts(m: int, order: np.ndarray) -> Iterator[pa.Table]:
        for start in range(0, len(order), PART):
            rows = order[start : start + PART]
            yield pa.table(
                {
                    "id": ids.take(pa.array(rows)),
                    "chosen_logp": scores.chosen_logp[rows, m],
                    "rejected_logp": scores.rejected_logp[rows, m],
                    "fold": fold[rows] if m else np.full(len(rows), -1, dtype=np.int16),
                    "held_out": pa.array([True] * len(rows)) if m else pa.nulls(len(rows), pa.bool_()),
                }
            )

    scorable = np.flatnonzero(~too_long)
    write_stage(folder / "pairs", PairsManifest, pair_parts(), tables.PAIR_SCHEMA, form=FORM, inputs=INPUTS)
    write_stage(
        folder / "scores/base", ScoresManifest, score_parts(0, scorable), tables.SCORE_SCHEMA, **vars(BASE), order=0
    )
    by_fold = scorable[np.argsort(fold[scorable], kind="stable")]
    write_stage(
        folder / "scores/oof-16", ScoresManifest, score_parts(1, by_fold), tables.SCORE_SCHEMA, **vars(END), order=0
    )
    RunManifest(
        inputs=INPUTS,
        form=FORM,
        max_length=1024,
        counts={"records": n, "pairs": n, "rejects": 0, "too_long": int(too_long.sum()), "scorable": len(scorable)},
        rejects={},
        reference=Reference(name="synthetic", dtype="float32", engine="none"),
        checkpoints=(BASE, END),
        noise_sd={},
    ).write(folder)


# ------------------------------------------------------------------------------------------------- measurements


def judged(scores: Scores, prompt: np.ndarray) -> Posterior:
    """A posterior of the probe's margin alone, at once: what evidence costs is measured by benchmarks/evidence.py."""
    none = np.zeros((len(prompt), 2), dtype=np.int8)
    style = Style.unknown(np.zeros((len(prompt), 0), dtype=np.float32))
    margin = 0.24 * reward(scores)[:, None]  # 2 x 3 / 5^2: the log-odds of a movement that `scored` draws
    return Posterior((STATES,), margin, LabelNoise(FLIPS, 1.0), prompt, (), 0.0, none, none, style)


def in_memory(n: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    too_long, scores = scored(n, 2, rng)
    ids, shas = hex_strings(n, 32, rng), hex_strings(n, 64, rng, REPEATS)
    before = peak_gib()
    trajectory = Trajectory((BASE, END), END)
    scores = replace(scores, posterior=judged(scores, np.arange(n) // 4))
    took, decisions = timed(
        lambda: decide_scored(ids, too_long, repeats(shas), scores, trajectory, FilterSettings()),
    )
    return took | {"peak_gib": peak_gib(), "peak_gib_before": before, "counts": decisions.counts}


def every_rule(n: int) -> dict[str, Any]:
    """Each rule by itself, all of them in a row, and the report of `rmo-curate rules` on scores that were read."""
    rng = np.random.default_rng(0)
    _, scores = scored(n, 4, rng)
    prompt = np.arange(n) // 4
    scores = replace(scores, ids=hex_strings(n, 32, rng), groups=prompt, fold=(prompt % 2).astype(np.int16))
    scores = replace(scores, posterior=judged(scores, prompt))
    before = peak_gib()
    each: dict[str, dict[str, float]] = {}
    for name, rule in COMPARED.items():
        each[name], _ = timed(lambda rule=rule: rule.suspicion(scores))  # type: ignore[misc]
    total = {unit: sum(took[unit] for took in each.values()) for unit in ("seconds", "cpu_seconds")}
    peak = peak_gib()
    reported, _ = timed(lambda: compare_rules(scores, scores.names[-1], HIGH_Q), "report")
    return (
        total | reported | {"peak_gib": peak, "report_peak_gib": peak_gib(), "peak_gib_before": before, "rules": each}
    )


def from_files(run: Path) -> dict[str, Any]:
    took, decisions = timed(lambda: decide(open_run(run), FilterSettings()))
    return took | {"peak_gib": peak_gib(), "counts": decisions.counts}


def command(run: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=run.parent) as out:
        took, _ = timed(lambda: run_filter(run, Path(out) / "shards", FilterSettings()))
        written = sum(f.stat().st_size for f in Path(out).rglob("*.parquet"))
    decided, decisions = timed(lambda: decide(open_run(run), FilterSettings()), "decisions")
    counts = decisions.counts
    rates = {
        f"written_pairs_per_{unit}": counts["pairs"] / (took[f"{unit}s"] - decided[f"decisions_{unit}s"])
        for unit in ("second", "cpu_second")
    }
    return took | decided | rates | {"written_bytes": written, "peak_gib": peak_gib(), "counts": counts}


def in_a_process(what: str, *arguments: object, repeats: int) -> dict[str, Any]:
    """The median of each number of `repeats` processes, with the least and greatest seconds."""
    line = [sys.executable, "-m", "benchmarks.filter", "--child", what, *map(str, arguments)]
    runs = []
    for _ in range(repeats):
        done = subprocess.run(line, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout or "{}"))
    row = {k: statistics.median(r[k] for r in runs) if isinstance(v, float) else v for k, v in runs[0].items()}
    if "seconds" in row:
        row |= {"seconds_min": min(r["seconds"] for r in runs), "seconds_max": max(r["seconds"] for r in runs)}
    row = {"what": what, **row}
    print(json.dumps(row), flush=True)
    return row


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a measurement."""
    again = arguments.repeats
    for n in arguments.memory:
        yield {"pairs": n} | in_a_process("memory", n, repeats=again)
    for n in arguments.rules:
        yield {"pairs": n, "checkpoints": 4} | in_a_process("rules", n, repeats=again)
    for what, sizes, small in (("files", arguments.files, "small"), ("command", arguments.command, "full")):
        for n in sizes:
            with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
                run = Path(scratch) / "run"
                in_a_process("make", run, n, small, repeats=1)
                size = sum(f.stat().st_size for f in run.rglob("*.parquet"))
                row = in_a_process(what, run, repeats=again)
            yield {"pairs": n, "part_rows": PART, "run_bytes": size} | row


def child(what: str, *given: str) -> None:
    if what == "make":
        make_run(Path(given[0]), int(given[1]), given[2] == "small")
    elif what in ("memory", "rules"):
        print(json.dumps({"memory": in_memory, "rules": every_rule}[what](int(given[0]))))
    else:
        print(json.dumps({"files": from_files, "command": command}[what](Path(given[0]))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", type=int, nargs="*", default=[1_000_000, 10_000_000], help="sizes, pairs")
    parser.add_argument("--rules", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--files", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--command", type=int, nargs="*", default=[200_000])
    parser.add_argument("--repeats", type=int, default=3, help="processes a row is the median of")
    parser.add_argument("--scratch", type=Path, help="where run folders are made (1 GB)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "filter.json")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    settings = {"flips": FLIPS, "too_long": TOO_LONG, "repeats": REPEATS, "filter": FilterSettings().model_dump()}
    head = {"command": ["-m", "benchmarks.filter", *sys.argv[1:]], "environment": environment(), "settings": settings}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in measure(arguments):
        rows.append(row | {"load_average": os.getloadavg()[0]})
        write_json(arguments.out, head | {"rows": rows})


if __name__ == "__main__":
    main()
