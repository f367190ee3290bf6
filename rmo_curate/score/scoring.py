"""The scoring job: log-probs of every scorable pair under one checkpoint, part by part, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from rmo_curate.score.crew import Alone, Crew, Described, Job, Loads, Part
from rmo_curate.score.engines.base import Work
from rmo_curate.score.shares import Share, share_folders
from rmo_curate.score.states import STATES, StateWriter
from rmo_train.console.progress import progress, say
from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData
from rmo_train.store.manifests import ScoresManifest, read_manifest
from rmo_train.store.tables import SCORE_SCHEMA, PartWriter

SpecFor = Callable[[str], Loads]  # of a model


@dataclass(frozen=True)
class Assignment:
    """Which model scores which pairs: one entry for a plain checkpoint, one a fold for cross-fitted proxies."""

    model: str
    rows: np.ndarray  # int64, in the order of the score parts
    fold: int = -1


@dataclass(frozen=True)
class ScoreStage:
    """One folder RUN/scores/<name>: its identity, and what its manifest says for the readers of the run."""

    name: str
    key: dict[str, Any]  # exactly what changes its bytes
    kind: Literal["base", "user", "proxy"]
    order: int  # among stages of the kind
    assignments: Sequence[Assignment]
    held_out: bool | None = None
    family: str | None = None
    step: int | None = None
    folds: int | None = None


@dataclass(frozen=True)
class OpenStage:
    """A stage that is being filled: its pairs, what its models are loaded from, and the writers that parts go to."""

    stage: ScoreStage
    data: PairData
    spec_for: SpecFor
    part_size: int
    writer: PartWriter[ScoresManifest]
    states: StateWriter | None  # kept of the same pass


def in_group_order(groups: np.ndarray) -> np.ndarray:
    """Rows ordered so that pairs of one prompt are neighbours, prompts in order of first appearance."""
    first: dict[str, int] = {}
    for group in groups:
        first.setdefault(group, len(first))
    return np.argsort([first[g] for g in groups], kind="stable")


def part_bounds(groups: np.ndarray, part_size: int) -> list[tuple[int, int]]:
    """(start, end) of parts of at least `part_size` rows that end where a prompt group ends; groups are contiguous."""
    bounds, start = [], 0
    for i in range(1, len(groups) + 1):
        ends_here = i == len(groups) or groups[i] != groups[i - 1]
        if ends_here and (i - start >= part_size or i == len(groups)):
            bounds.append((start, i))
            start = i
    return bounds


def part_rows(groups: np.ndarray, rows: np.ndarray, part_size: int, *, first: int = 0) -> dict[str, np.ndarray]:
    """Part file -> its pairs, for `rows` in group order; `first`: the number of the first part."""
    bounds = part_bounds(groups[rows], part_size)
    return {f"part-{first + n:05d}.parquet": rows[start:end] for n, (start, end) in enumerate(bounds)}


def score_stage(
    run: Path,
    data: PairData,
    stage: ScoreStage,
    spec_for: SpecFor,
    part_size: int,
    open_states: Callable[[Path], StateWriter] | None = None,
    crew: Crew | None = None,
) -> ScoresManifest:
    """Score what is not finished yet and write the stage's manifest; returns it. A finished stage loads no model.

    What shares of the run have finished is taken in first.

    open_states: opens states in a run or share folder, to be filled part by part beside the scores of a stage that is
    not finished; the engines must be ones that see states.
    """
    folder = run / "scores" / stage.name
    writer = PartWriter(folder, ScoresManifest, stage.key, SCORE_SCHEMA)
    if writer.complete:
        assert writer.manifest is not None
        say(f"{stage.name}: already scored")
        return writer.manifest
    for share in share_folders(run):
        writer.adopt(share / "scores" / stage.name)
    states = open_states(run) if open_states is not None else None
    if states is not None:
        for share in share_folders(run):
            states.writer.adopt(share / STATES)
    opened = OpenStage(stage, data, spec_for, part_size, writer, states)
    total, work, described = score_parts(opened, crew or Alone())
    layout = described[0]
    saved = f" ({work.saved:.0%} saved)" if work.saved >= 0.005 else ""  # padding may cost more than sharing saves
    say(
        f"{stage.name}: {work.sequences:,} answers, {work.distinct:,} distinct; computed {work.tokens_computed:,} of "
        f"{work.tokens_asked:,} tokens{saved}; {layout.reason}"
    )
    manifest = writer.finish(
        {"pairs": total},
        name=stage.name,
        kind=stage.kind,
        order=stage.order,
        family=stage.family,
        step=stage.step,
        folds=stage.folds,
        held_out=stage.held_out,
        noise_sd=float(np.mean([d.noise_sd for d in described])),
        layout=layout.recorded,
        computed_by=layout.computed_by,
        work=asdict(work) | {"saved": round(work.saved, 4)},
    )
    if states is not None:
        states.finish(total)
    return manifest


def score_share(
    run: Path,
    share: Share,
    data: PairData,
    stage: ScoreStage,
    spec_for: SpecFor,
    part_size: int,
    open_states: Callable[[Path], StateWriter] | None,
) -> int:
    """Score the parts of a stage that are this share's into its own folder; returns how many of them there are."""
    if read_manifest(run / "scores" / stage.name, ScoresManifest) is not None:
        say(f"{stage.name}: already scored")
        return 0
    folder = share.folder(run)
    writer = PartWriter(folder / "scores" / stage.name, ScoresManifest, stage.key, SCORE_SCHEMA)
    states = open_states(folder) if open_states is not None else None
    score_parts(OpenStage(stage, data, spec_for, part_size, writer, states), Alone(), share)
    return len(writer.finished)


def score_parts(opened: OpenStage, crew: Crew, share: Share | None = None) -> tuple[int, Work, list[Described]]:
    """Compute and write what the two writers do not have; returns pairs, their work, and how each model computed.

    share: only its parts, and no word on how they were computed.
    """
    stage, data, writer, states = opened.stage, opened.data, opened.writer, opened.states
    for name in writer.repaired:
        say(f"{writer.folder}: {name} was damaged and will be scored again")
    if writer.finished:
        say(f"{stage.name}: resuming after {counted(len(writer.finished), 'finished part')}")
    jobs, fold_of = jobs_of(opened)
    if share is not None:
        jobs = jobs_of_share(jobs, share)
    parts = {part.file: part for job in jobs for part in job.parts}
    total = sum(len(part.rows) for part in parts.values())
    work, described = Work(), []
    with progress(f"score {stage.name}", total, "pair") as bar:
        for answer in crew.run(jobs, bar.advance):
            if isinstance(answer, Described):
                described.append(answer)
                continue
            work += answer.work
            rows = parts[answer.file].rows
            if answer.logps is not None:
                table = score_table(data, rows, answer.logps, fold_of[answer.file], stage.held_out)
                writer.write(answer.file, table)
            if states is not None and answer.differences is not None:
                states.write(answer.file, data, rows, answer.differences)
    return total, work, described


def jobs_of_share(jobs: Sequence[Job], share: Share) -> list[Job]:
    """The unfinished parts of a share; a model that has none of them is not loaded."""
    numbers = {part.file: n for n, part in enumerate(part for job in jobs for part in job.parts)}
    own = [
        replace(j, parts=[p for p in j.parts if p.wanted and share.has(numbers[p.file])], describe=False) for j in jobs
    ]
    return [job for job in own if job.parts]


def jobs_of(opened: OpenStage) -> tuple[list[Job], dict[str, int]]:
    """What each model of a stage computes, and the fold of each part file.

    A kill may come between a part's scores and its states: what one of the two folders has is not computed again.
    """
    data, writer, states = opened.data, opened.writer, opened.states
    jobs: list[Job] = []
    fold_of: dict[str, int] = {}
    for assignment in opened.stage.assignments:
        parts = part_rows(data.groups, assignment.rows, opened.part_size, first=len(fold_of))
        fold_of |= dict.fromkeys(parts, assignment.fold)
        wanted = [
            Part(
                file,
                data,
                rows,
                scores=file not in writer.finished,
                width=states.width if states is not None and not states.has(file) else 0,
            )
            for file, rows in parts.items()
        ]
        jobs.append(Job(opened.spec_for(assignment.model), wanted, data))
    return jobs, fold_of


def score_table(
    data: PairData, rows: np.ndarray, logps: np.ndarray, fold: int | np.ndarray, held_out: bool | None
) -> pa.Table:
    """Score rows of the pairs `rows`: logps [rows, 2] in nats, fold of all of them or of each."""
    n = len(rows)
    return pa.table(
        {
            "id": [str(i) for i in data.ids[rows]],
            "chosen_logp": logps[:, 0],
            "rejected_logp": logps[:, 1],
            "fold": np.zeros(n, dtype=np.int16) + np.asarray(fold, dtype=np.int16),
            "held_out": [held_out] * n,
        },
        schema=SCORE_SCHEMA,
    )
