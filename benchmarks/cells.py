"""Cells of the detection grid: which labels are flipped, and scores under them, by command or from states read once."""

from __future__ import annotations

import gzip
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_curate.runs import Scores
from rmo_train.id_hash import fractions
from rmo_train.tables import read_json, write_json


@dataclass(frozen=True)
class Cell:
    """One experiment: which labels are flipped, and how the proxies are trained."""

    data: str
    flips: str  # none, uniform or longer
    rate: float
    folds: int
    seed: int
    epochs: int = 1
    learning_rate: float | None = None  # None: the proxies' default
    full: bool = False
    probe: bool = False  # a probe in place of trained proxies; it has no epochs

    @property
    def labels(self) -> str:
        """Name of the data with these flips, the same for every way to train proxies on it."""
        return f"{self.data}-{self.flips}{round(100 * self.rate)}-s{self.seed}"

    @property
    def name(self) -> str:
        if self.probe:
            return f"{self.labels}-k{self.folds}-probe"
        rate = f"-lr{self.learning_rate:g}" if self.learning_rate else ""
        return f"{self.labels}-k{self.folds}-e{self.epochs}{rate}{'-full' if self.full else ''}"

    @property
    def proxy_options(self) -> tuple[str, ...]:
        rate = ("--learning-rate", str(self.learning_rate)) if self.learning_rate else ()
        shape = ("--folds", str(self.folds), "--epochs", str(self.epochs), "--seed", str(self.seed))
        return (*shape, *rate, *(("--full",) if self.full else ()))


def cells(plan: dict[str, Any]) -> list[Cell]:
    """The grid: the first seed of every cell before the second of any."""
    found = [
        Cell(seed=seed, **{k: v for k, v in row.items() if k != "seeds"})
        for row in plan["cells"]
        for seed in row["seeds"]
    ]
    return sorted(found, key=lambda cell: cell.seed)


# ---------------------------------------------------------------------------------------------------- a cell's data


def records(plan: dict[str, Any], data: str, path: Path) -> list[dict[str, Any]]:
    """The records that the plan takes of a file, each with an id of its own."""
    with gzip.open(path, "rt", encoding="utf-8") as f:
        rows = [{"id": f"{data}-{n}", **json.loads(line)} for n, line in enumerate(f)]
    if "prompts" not in plan["data"][data]:
        return rows[: plan["data"][data].get("pairs")]
    prompts: dict[str, None] = {}
    for row in rows:
        prompts.setdefault(row["prompt"])
    start = plan["data"][data].get("after", 0)
    taken = set(list(prompts)[start : start + plan["data"][data]["prompts"]])
    return [row for row in rows if row["prompt"] in taken]


def prompt_of(row: dict[str, Any]) -> str:
    """What comes before the answers: of whole dialogues, all but the last turn."""
    return row["prompt"] if "prompt" in row else row["chosen"].rpartition("\n\nAssistant:")[0]


def flipped_ids(rows: list[dict[str, Any]], cell: Cell) -> set[str]:
    """Ids of the pairs whose labels are exchanged."""
    ids = [row["id"] for row in rows]
    drawn = dict(zip(ids, fractions("flip", cell.seed, pa.array(ids, pa.string())), strict=True))
    if cell.flips == "uniform":
        return {i for i, draw in drawn.items() if draw < cell.rate}
    if cell.flips == "longer":
        shorter_won = [row["id"] for row in rows if len(row["chosen"]) < len(row["rejected"])]
        return set(sorted(shorter_won, key=lambda i: drawn[i])[: round(cell.rate * len(rows))])
    return set()


def flipped_file(cell: Cell, rows: list[dict[str, Any]], path: Path) -> Path:
    """The records with the cell's labels, as a file."""
    flipped = flipped_ids(rows, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as f:
        for row in rows:
            if row["id"] in flipped:
                row = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def run_cell(cell: Cell, rows: list[dict[str, Any]], model: str, work: Path) -> dict[str, dict[str, float]]:
    """Score the cell's pairs and its proxies; minutes of both. A finished stage costs nothing and keeps its time, and
    cells with the same labels share the reference's scores."""
    labelled, folder = work / cell.labels, work / cell.name
    pairs = flipped_file(cell, rows, labelled / "pairs.jsonl")
    score = ("score", pairs, "--model", model, "--out", labelled / "run", "--proxy-folds", 0)
    reference = timed(labelled / "minutes.json", score)
    if not folder.exists():
        folder.mkdir()
        shutil.copytree(labelled / "run", folder / "run")
    proxy = ("proxy", folder / "run", *cell.proxy_options, *steps_of_epochs(cell, len(rows)))
    return {"reference": reference, "proxies": timed(folder / "minutes.json", proxy)}


def scored_as_given(cell: Cell, rows: list[dict[str, Any]], model: str, work: Path) -> tuple[Path, dict[str, Any]]:
    """The run folder of a data set with its own labels and hidden states, and the minutes of both: once a data set."""
    as_given = replace(cell, flips="none", rate=0.0, seed=0)
    folder = work / f"{cell.data}-as-given"
    pairs = flipped_file(as_given, rows, folder / "pairs.jsonl")
    score = ("score", pairs, "--model", model, "--out", folder / "run", "--proxy-folds", 0)
    reference = timed(folder / "minutes.json", score)
    return folder / "run", {
        "reference": reference,
        "proxies": timed(folder / "probe-minutes.json", ("probe", folder / "run")),
    }


def with_probe(run_folder: Path, flipped: set[str], cell: Cell, ridge: float | None = None) -> Scores:
    """Scores of a run under other labels: (base, probe fitted on these labels), with prompt groups."""
    from rmo_curate.margins import swapped
    from rmo_curate.probe import BETA, RIDGE, STATES, cross_fitted, read_states, tilted
    from rmo_curate.proxies import assign_folds
    from rmo_curate.runs import Trajectory, open_run
    from rmo_train.pairs import open_pairs
    from rmo_train.tables import read_manifest

    run, data = open_run(run_folder), open_pairs(run_folder)
    given = run.scores(Trajectory(run.checkpoints[:1], None))
    manifest = read_manifest(run_folder / STATES)
    assert manifest is not None and given.ids is not None and given.ids.to_pylist() == list(data.ids)
    wrong = np.array([i in flipped for i in data.ids])
    other = swapped(given)
    chosen, rejected, chosen_tokens, rejected_tokens = (
        np.where(wrong, getattr(other, name).T, getattr(given, name).T).T
        for name in ("chosen_logp", "rejected_logp", "chosen_tokens", "rejected_tokens")
    )
    states = read_states(run_folder, manifest, data) * np.where(wrong, -1, 1)[:, None].astype(np.float32)
    folds_of = assign_folds(data.groups, cell.folds, cell.seed)
    margins = cross_fitted(states, folds_of, cell.folds, ridge or RIDGE) / BETA
    end = tilted(chosen[:, 0], rejected[:, 0], margins)
    return replace(
        given,
        names=("base", "oof-probe" if cell.folds > 1 else "insample-probe"),
        chosen_logp=np.column_stack([chosen, end[0]]),
        rejected_logp=np.column_stack([rejected, end[1]]),
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
        held_out=np.full(len(wrong), cell.folds > 1, dtype=object),
        fold=folds_of if cell.folds > 1 else np.full(len(wrong), -1, dtype=np.int16),
        groups=np.unique(data.groups, return_inverse=True)[1],
        of_probe=True,
    )


def timed(timing: Path, arguments: tuple[Any, ...]) -> dict[str, float]:
    """Minutes of one command, of the clock and of both processors' work; kept in `timing` by the run that did it."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "rmo_curate", *map(str, arguments)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not timing.exists():
        write_json(timing, {"clock": (time.perf_counter() - start) / 60, "processor": processor / 60})
    minutes: dict[str, float] = read_json(timing)
    return minutes


def steps_of_epochs(cell: Cell, pairs: int) -> tuple[str, ...]:
    """Proxies of several epochs are scored after each."""
    if cell.epochs == 1:
        return ()
    seen = pairs if cell.folds == 1 else pairs * (cell.folds - 1) // cell.folds
    return ("--steps", ",".join(str(seen // 16 * epoch) for epoch in range(1, cell.epochs)))


def read_scores(run_folder: Path) -> Scores:
    """The scores of a run's own trajectory, with the prompt groups where they are held out."""
    from rmo_curate.runs import open_run

    run = open_run(run_folder)
    trajectory = run.trajectory()
    assert trajectory.end is not None
    scores = run.scores(trajectory)
    return run.with_groups(scores, trajectory) if trajectory.end.cross_fitted else scores
