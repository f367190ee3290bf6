"""Cells of the detection grid: the pairs, the flipped labels, and the evidence learned under these labels.

A data set is scored once, as given. A flip exchanges a pair's log-probs and reverses the difference of its states and
of its style, exactly, so everything that is learned from labels is learned again under the flipped ones without
another forward pass (a test compares that with the commands on the flipped file).
"""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import flips
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.texts import Texts
from rmo_curate.runs.manifests import StatesManifest
from rmo_curate.runs.run import Scores
from rmo_curate.score.categories import Categories
from rmo_train.store.files import read_json, write_json


@dataclass(frozen=True)
class Cell:
    """One experiment."""

    data: str  # a data set of the plan
    flips: str  # none, uniform, or a reason: longer, formatted, generator
    rate: float
    seed: int
    pairs: int | None = None  # of whole prompts drawn by the seed, for the learning curve; None: all
    generators: bool = False  # whether the names of the answers' models are evidence

    @property
    def name(self) -> str:
        more = (f"-n{self.pairs}" if self.pairs else "") + ("-generators" if self.generators else "")
        return f"{self.data}-{self.flips}{round(100 * self.rate)}{more}-s{self.seed}"


def cells(plan: dict[str, Any]) -> list[Cell]:
    """The grid: the first seed of every cell before the second of any."""
    found = [
        Cell(seed=seed, **{k: v for k, v in row.items() if k != "seeds"})
        for row in plan["cells"]
        for seed in row["seeds"]
    ]
    return sorted(found, key=lambda cell: cell.seed)


# ---------------------------------------------------------------------------------------------------- a data set


def records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, each with an id."""
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return [{"id": f"{path.name}-{n}", **json.loads(line)} for n, line in enumerate(f)]


def prompt_of(row: dict[str, Any]) -> str:
    """What comes before the answers: of whole dialogues, all but the last turn."""
    return row["prompt"] if "prompt" in row else row["chosen"].rpartition("\n\nAssistant:")[0]


@dataclass(frozen=True)
class DataSet:
    """A scored data set: its records that are pairs, in the order of the run, and what the run holds of them."""

    rows: list[dict[str, Any]]
    scores: Scores  # of the base
    states: np.ndarray  # float32 [pairs, numbers], chosen less rejected
    texts: Texts
    groups: np.ndarray  # [pairs], equal where prompts are
    gold: dict[str, dict[str, Any]]  # by id; empty where there is no judge
    reference: dict[str, Any]  # what it was scored with
    minutes: dict[str, float]

    @cached_property
    def prompts(self) -> np.ndarray:
        """Number of each pair's prompt, in the order in which prompts appear: int [pairs]."""
        first: dict[str, int] = {}
        return np.array([first.setdefault(prompt_of(row), len(first)) for row in self.rows])


def scored(name: str, path: Path, gold: Path | None, model: str, work: Path) -> DataSet:
    """Score a data set with `rmo-curate score`, once and on any machine, and read what it made."""
    from rmo_curate.evidence.texts import read_texts
    from rmo_curate.runs.run import Trajectory, open_run
    from rmo_curate.score.states import STATES, read_states
    from rmo_train.data.pairs import open_pairs
    from rmo_train.store.manifests import read_manifest

    folder = work / f"{name}-as-given"
    folder.mkdir(parents=True, exist_ok=True)
    rows = records(path)
    file = folder / "pairs.jsonl"
    if not file.exists():
        flips.write_flipped(rows, np.zeros(len(rows), dtype=bool), file)
    minutes = timed(folder / "minutes.json", ("score", file, "--model", model, "--out", folder / "run"))
    run, data = open_run(folder / "run"), open_pairs(folder / "run")
    manifest = read_manifest(folder / "run" / STATES, StatesManifest)
    assert manifest is not None
    by_id = {row["id"]: row for row in rows}
    judged = {}
    if gold is not None:
        with gzip.open(gold, "rt", encoding="utf-8") as f:
            judged = {row["id"]: row for row in map(json.loads, f)}
    return DataSet(
        rows=[by_id[i] for i in data.ids],
        scores=run.scores(Trajectory(run.checkpoints[:1], None)),
        states=read_states(folder / "run", manifest, data),
        texts=read_texts(run.pair_parts(("prompt", "chosen", "rejected"))),
        groups=data.groups,
        gold=judged,
        reference=data.reference.model_dump(),
        minutes=minutes,
    )


def timed(timing: Path, arguments: tuple[Any, ...]) -> dict[str, float]:
    """Wall-clock and CPU minutes of one command; it is skipped if `timing` already has them."""
    if not timing.exists():
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "rmo_curate", *map(str, arguments)], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        write_json(timing, {"clock": (time.perf_counter() - start) / 60, "processor": processor / 60})
    minutes: dict[str, float] = read_json(timing)
    return minutes


# ---------------------------------------------------------------------------------------------------- a cell


def members(cell: Cell, data: DataSet, part: dict[str, Any]) -> np.ndarray:
    """The pairs of a cell: int, ascending. part: of the plan; `prompts` and `after` count prompts of the file."""
    first = part.get("after", 0)
    inside = (data.prompts >= first) & (data.prompts < first + part.get("prompts", len(data.rows)))
    rows = np.flatnonzero(inside)
    if cell.pairs is None:
        return rows
    prompts = np.random.default_rng(cell.seed).permutation(np.unique(data.prompts[rows]))
    rank = np.empty(data.prompts.max() + 1, dtype=int)
    rank[prompts] = np.arange(len(prompts))
    drawn = rows[np.argsort(rank[data.prompts[rows]], kind="stable")]
    return np.sort(drawn[: cell.pairs])


def flipped(cell: Cell, data: DataSet, rows: np.ndarray) -> np.ndarray:
    """Which of the pairs `rows` have their labels exchanged: bool [rows]."""
    known = [data.rows[i] | data.gold.get(data.rows[i]["id"], {}) for i in rows]
    return flips.flipped(known, cell.flips, cell.rate, cell.seed)


def signs(wrong: np.ndarray) -> np.ndarray:
    """What differences of pairs are multiplied by under flipped labels: float32 [pairs, 1]."""
    return np.where(wrong, -1, 1).astype(np.float32)[:, None]


def texts_under_labels(data: DataSet, rows: np.ndarray, wrong: np.ndarray) -> Texts:
    """What the texts of the pairs `rows` give where the labels `wrong` are flipped."""
    texts = data.texts.take(rows)
    chosen, rejected = (
        np.where(wrong, a, b) for a, b in ((texts.rejected, texts.chosen), (texts.chosen, texts.rejected))
    )
    return replace(texts, chosen=chosen, rejected=rejected, style=texts.style * signs(wrong))


def without_model(data: DataSet, rows: np.ndarray, wrong: np.ndarray) -> Posterior:
    """The posterior of the same labels without any model."""
    from rmo_curate.evidence.columns import Columns
    from rmo_curate.evidence.gather import together
    from rmo_curate.evidence.posterior import Lack, Missing

    return together([], texts_under_labels(data, rows, wrong), Columns(), [Missing(Lack.MODEL)])


def folds_of(data: DataSet, rows: np.ndarray, seed: int) -> np.ndarray:
    """The probe's fold of each of the pairs `rows`."""
    from rmo_curate.score.probe import FOLDS
    from rmo_curate.score.proxies import assign_folds

    return assign_folds(data.groups[rows], min(FOLDS, len(np.unique(data.groups[rows]))), seed)


def under_labels(
    data: DataSet,
    rows: np.ndarray,
    wrong: np.ndarray,
    seed: int,
    *,
    generators: bool = False,
    categories: Categories | None = None,
    style_by: np.ndarray | None = None,
    margin: np.ndarray | None = None,
) -> Scores:
    """Scores (base, probe) of the pairs `rows` with their posterior, learned where the labels `wrong` are flipped.

    categories: those with preferences of their own in the probe. style_by: category of each pair [rows], for style.
    margin: what another head than the probe's says over `folds_of`, held-out log-odds of the flipped labels [rows].
    """
    from rmo_curate.evidence.columns import Columns
    from rmo_curate.evidence.gather import of_proxy, reference, together
    from rmo_curate.runs.margins import swapped
    from rmo_curate.runs.run import Checkpoint
    from rmo_curate.score.probe import BETA, FOLDS, cross_fitted, tilted

    base, other = data.scores, swapped(data.scores)
    chosen, rejected, chosen_tokens, rejected_tokens = (
        np.where(wrong, getattr(other, name)[rows].T, getattr(base, name)[rows].T).T
        for name in ("chosen_logp", "rejected_logp", "chosen_tokens", "rejected_tokens")
    )
    sign, texts = signs(wrong), texts_under_labels(data, rows, wrong)
    folds = folds_of(data, rows, seed)
    if margin is None:
        margin = cross_fitted(data.states[rows] * sign, folds, categories).margin
    end = tilted(chosen[:, 0], rejected[:, 0], margin / BETA)
    assert base.ids is not None
    found = replace(
        base,
        names=("base", "oof-probe"),
        chosen_logp=np.column_stack([chosen, end[0]]),
        rejected_logp=np.column_stack([rejected, end[1]]),
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
        held_out=np.full(len(rows), True, dtype=object),
        fold=folds,
        ids=base.ids.combine_chunks().take(pa.array(rows)),
        groups=texts.prompt,
        of_probe=True,
    )
    probe = Checkpoint("oof-probe", "proxy", "oof-probe", None, FOLDS, True, None)
    by = None
    if generators:
        names = [
            (data.gold[data.rows[i]["id"]]["chosen_model"], data.gold[data.rows[i]["id"]]["rejected_model"])
            for i in rows
        ]
        both = np.array([names[k][::-1] if wrong[k] else names[k] for k in range(len(rows))])
        by = (both[:, 0], both[:, 1])
    columns = Columns(by, style_by)
    return replace(found, posterior=together([reference(found), of_proxy(found, probe)], texts, columns, []))


def read_scores(run_folder: Path) -> Scores:
    """The scores of a run's own trajectory, with their posterior."""
    from rmo_curate.evidence.gather import with_posterior
    from rmo_curate.runs.run import open_run

    run = open_run(run_folder)
    return with_posterior(run, run.scores(run.trajectory()))
