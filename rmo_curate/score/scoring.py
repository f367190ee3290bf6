"""The scoring job: log-probs of every scorable pair under one checkpoint, part by part, resumable after a kill."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from rmo_curate.score.engines.base import Engine, LayoutOfEngine, StateEngine, Work
from rmo_curate.score.states import StateWriter
from rmo_train.console.progress import progress, say
from rmo_train.data.pairs import PairData
from rmo_train.store.manifests import ScoresManifest
from rmo_train.store.tables import SCORE_SCHEMA, PartWriter

EngineFactory = Callable[[str], Engine]


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
    engine_for: EngineFactory,
    part_size: int,
    open_states: Callable[[], StateWriter] | None = None,
) -> ScoresManifest:
    """Score what is not finished yet and write the stage's manifest; returns it. A finished stage loads no model.

    open_states: opens RUN/states, to be filled part by part beside the scores of a stage that is not finished; the
    engines must be ones that see states.
    """
    folder = run / "scores" / stage.name
    writer = PartWriter(folder, ScoresManifest, stage.key, SCORE_SCHEMA)
    if writer.complete:
        assert writer.manifest is not None
        say(f"{stage.name}: already scored")
        return writer.manifest
    for name in writer.repaired:
        say(f"{folder}: {name} was damaged and is scored again")
    if writer.finished:
        say(f"{stage.name}: going on after {len(writer.finished)} finished parts")
    states = open_states() if open_states is not None else None
    total = sum(len(a.rows) for a in stage.assignments)
    results: list[_Scored] = []
    first_part = 0
    with progress(f"score {stage.name}", total, "pair") as bar:
        for assignment in stage.assignments:
            parts = part_rows(data.groups, assignment.rows, part_size, first=first_part)
            results.append(_score_assignment(data, stage, assignment, parts, writer, states, engine_for, bar.advance))
            first_part += len(parts)
    work = sum((r.work for r in results), Work())
    saved = f" ({work.saved:.0%} saved)" if work.saved >= 0.005 else ""  # padding may cost more than sharing saves
    say(
        f"{stage.name}: {work.sequences:,} sequences asked, {work.distinct:,} distinct; {work.tokens_computed:,} of "
        f"{work.tokens_asked:,} tokens computed{saved}; {results[0].layout.reason}"
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
        noise_sd=float(np.mean([r.noise_sd for r in results])),
        layout=results[0].layout.recorded,
        computed_by=results[0].layout.computed_by,
        work=asdict(work) | {"saved": round(work.saved, 4)},
    )
    if states is not None:
        states.finish(total)
    return manifest


@dataclass(frozen=True)
class _Scored:
    """What is known of one model's part of a stage besides the scores; the same after a resumed run."""

    work: Work
    noise_sd: float
    layout: LayoutOfEngine


def _score_assignment(
    data: PairData,
    stage: ScoreStage,
    assignment: Assignment,
    parts: Mapping[str, np.ndarray],
    writer: PartWriter,
    states: StateWriter | None,
    engine_for: EngineFactory,
    advance: Callable[[float], None],
) -> _Scored:
    """Score one model's pairs: `parts` are its files, with their rows. The model is freed at the end.

    A kill may come between a part's scores and its states: what one of the two folders has is not computed again.
    """
    engine = engine_for(assignment.model)
    work = Work()
    for file, rows in parts.items():
        work += engine.work(data, rows)
        scored, stated = file in writer.finished, states is None or states.has(file)
        if scored and stated:
            advance(len(rows))
            continue
        logps, differences = _read(engine, data, rows, advance, scores=not scored, states=not stated)
        if logps is not None:
            writer.write(file, score_table(data, rows, logps, assignment.fold, stage.held_out))
        if states is not None and differences is not None:
            states.write(file, data, rows, differences)
    return _Scored(work, engine.noise_sd(data), engine.layout)


def _read(
    engine: Engine, data: PairData, rows: np.ndarray, advance: Callable[[float], None], *, scores: bool, states: bool
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Log-probs of the pairs `rows` and differences of their states, in one pass; None for what is not asked for."""
    if not states:
        return engine.score(data, rows, advance), None
    assert isinstance(engine, StateEngine), engine
    if not scores:
        return None, engine.state_differences(data, rows, advance)
    return engine.score_with_states(data, rows, advance)


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
