"""Shards: what the filter decided, written as the table that the trainer reads.

No reader ever sees half of a shard folder: it is made beside its place (`rmo_curate.runs.replacing`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_curate.filter.card import dataset_card
from rmo_curate.filter.decisions import Decisions
from rmo_curate.filter.grounds import ground
from rmo_curate.filter.reviews import file_sha256
from rmo_curate.filter.settings import AUTO, FilterSettings
from rmo_curate.filter.wording import counts_line
from rmo_curate.runs.replacing import refuse_foreign_files, replacing
from rmo_curate.runs.run import Run, Trajectory
from rmo_train.console.errors import UserError
from rmo_train.store import files, manifests, tables
from rmo_train.store.folder_lock import making
from rmo_train.store.manifests import ShardsManifest
from rmo_train.store.replacing import restore

MAKER = "rmo-curate filter"
ROWS_PER_FILE = 50_000
FLIPPED = "flipped"  # the flag of a pair whose answers were exchanged


def write_shards(
    run: Run, decisions: Decisions, settings: FilterSettings, out: Path, *, overwrite: bool = False
) -> ShardsManifest:
    """Write the shard folder `out` and return its manifest; a folder that is already these shards stays as it is."""
    if not decisions.counts["kept"]:
        raise UserError(
            f"no pairs are left to train on ({counts_line(decisions.counts)}); lower --low-q or --noise-rate, or raise "
            "--high-q"
        )
    with making(out, "rmo-curate"):
        done = None if overwrite else find_shards(run, decisions.trajectory, settings, out)
        if done is not None:
            return done
        with replacing(out, "shards", MAKER) as partial:
            return fill(partial, run, decisions, settings)


def find_shards(run: Run, trajectory: Trajectory, settings: FilterSettings, out: Path) -> ShardsManifest | None:
    """The manifest of `out` when it already is what these settings make of this run, else None.

    A folder of other settings, or one that is no shard folder, is a UserError. A shard file that is gone or cut short
    makes the folder count as unfinished.
    """
    out = out.resolve()
    restore(out)
    refuse_foreign_files(out, "shards", MAKER)
    manifest = manifests.read_manifest(out, ShardsManifest)
    if manifest is None:
        return None
    manifests.check_key(manifest.key, shards_key(run, trajectory, settings), out)
    parts = [(out / p.file, p.bytes) for p in manifest.parts + manifest.dropped.parts]
    whole = all(path.is_file() and path.stat().st_size == size for path, size in parts)
    return manifest if whole and (out / "README.md").is_file() else None


def shards_key(run: Run, trajectory: Trajectory, settings: FilterSettings) -> dict[str, Any]:
    """What the shards' bytes depend on: the pairs, the trajectory's scores, those that are evidence, every setting."""
    names = [*trajectory.names, *(c.name for c in run.checkpoints if c.held_out and c.name not in trajectory.names)]
    stages = {"pairs": run.pairs_manifest, **{f"scores/{name}": run.scores_manifest(name) for name in names}}
    hashes = {name: [part.sha256 for part in stage.parts] for name, stage in stages.items()}
    reference = run.manifest.reference.model_dump(exclude_none=True)
    fingerprint = files.sha256_text(files.canonical_json([hashes, reference]))
    end = trajectory.end.name if trajectory.end else None
    reviewed = None if settings.decisions is None else file_sha256(settings.decisions)
    asked = settings.model_dump(mode="json")
    if asked["noise_rate"] == AUTO:
        asked["noise_rate"] = None  # the action's own default, which nobody who is refused has asked for
    return {"run": fingerprint, **asked, "end": end, "decisions": reviewed}


class PartFiles:
    """Rows in, files of ROWS_PER_FILE rows out: at least one file, so that its schema is always there to read."""

    def __init__(self, root: Path, schema: pa.Schema, name: Callable[[int], str]):
        self.root, self.schema, self.name = root, schema, name
        self.parts: list[manifests.PartFile] = []
        self.waiting = schema.empty_table()

    def add(self, rows: pa.Table) -> None:
        self.waiting = pa.concat_tables([self.waiting, rows.select(self.schema.names).cast(self.schema)])
        while self.waiting.num_rows >= ROWS_PER_FILE:
            self._write(self.waiting[:ROWS_PER_FILE])
            self.waiting = self.waiting[ROWS_PER_FILE:]

    def close(self) -> list[manifests.PartFile]:
        if self.waiting.num_rows or not self.parts:
            self._write(self.waiting)
        return self.parts

    def _write(self, rows: pa.Table) -> None:
        path = self.root / self.name(len(self.parts))
        self.parts.append(tables.write_table(path, rows, self.schema, self.root))


def fill(folder: Path, run: Run, decisions: Decisions, settings: FilterSettings) -> ShardsManifest:
    """Write data/, dropped/, README.md and, last, manifest.json into `folder`; returns the manifest."""
    parts, dropped = write_parts(folder, run, decisions)
    trajectory = decisions.trajectory
    end = trajectory.end
    manifest = ShardsManifest(
        key=shards_key(run, trajectory, settings),
        counts=decisions.counts,
        parts=parts,  # the kept pairs alone: whoever reads the parts of a shard folder trains on them
        dropped=manifests.Parts(parts=dropped),
        reference=run.manifest.reference,
        checkpoints=trajectory.names,
        end=end.name if end else None,
        held_out=end.held_out if end else None,
        thresholds=decisions.thresholds,
        settings=settings.model_dump(mode="json"),
        flipped=int(decisions.flipped.sum()),
        action=decisions.settings.action,
        softness=decisions.softness,
        noise_sd={c.name: c.noise_sd for c in trajectory.checkpoints},
        max_length=run.manifest.max_length,
        longest=run.manifest.longest,
        context=run.manifest.context,
    )
    card = dataset_card(manifest, run.manifest.inputs)
    files.write_bytes(folder / "README.md", card.encode())
    manifest.write(folder)
    return manifest


def write_parts(
    folder: Path, run: Run, decisions: Decisions
) -> tuple[tuple[manifests.PartFile, ...], tuple[manifests.PartFile, ...]]:
    """Write data/ and dropped/; what was written of each."""
    kept = decisions.kept
    total = max(1, -(-int(kept.sum()) // ROWS_PER_FILE))
    data: PartFiles | None = None
    dropped: PartFiles | None = None
    start = 0
    for pairs in run.pair_parts():
        if data is None or dropped is None:
            schema = tables.with_columns(pairs.schema.remove_metadata(), tables.SHARD_COLUMNS)
            data = PartFiles(folder, schema, lambda i: f"data/train-{i:05d}-of-{total:05d}.parquet")
            with_reason = tables.with_columns(schema, tables.DROP_COLUMNS)
            dropped = PartFiles(folder, with_reason, lambda i: f"dropped/part-{i:05d}.parquet")
        rows = slice(start, start := start + pairs.num_rows)
        table = with_decisions(pairs, decisions, rows)
        data.add(table.filter(pa.array(kept[rows])))
        dropped.add(table.filter(pa.array(~kept[rows])))
    assert data is not None and dropped is not None and start == len(kept), (start, len(kept))
    parts, dropped_parts = tuple(data.close()), tuple(dropped.close())
    assert sum(p.rows for p in (*parts, *dropped_parts)) == decisions.counts["pairs"], "kept + dropped != pairs"
    return parts, dropped_parts


def with_decisions(pairs: pa.Table, decisions: Decisions, rows: slice) -> pa.Table:
    """The pairs of one part with the shard columns and the drop columns; null where a pair has no scores."""
    chosen, rejected = decisions.scores.chosen_logp[rows], decisions.scores.rejected_logp[rows]
    flipped = decisions.flipped[rows]
    if flipped.any():
        pairs = with_answers_exchanged(pairs, flipped)
        chosen, rejected = (
            np.where(flipped[:, None], rejected, chosen),
            np.where(flipped[:, None], chosen, rejected),
        )
    columns = {
        "chosen_logps": per_checkpoint(chosen),
        "rejected_logps": per_checkpoint(rejected),
        "margins": per_checkpoint(chosen - rejected),
        "ref_chosen_logps": number(chosen[:, 0]),
        "ref_rejected_logps": number(rejected[:, 0]),
        "suspicion": number(decisions.suspicion[rows]),
        "weight": number(decisions.weight[rows]),
        "label_confidence": number(decisions.label_confidence[rows]),
        "drop_reason": pa.array(decisions.reason[rows], pa.string()),
        "keep_probability": number(decisions.keep_probability[rows]),
        "draw": number(decisions.draw[rows]),
        "noisy_because": grounds(decisions, rows),
    }
    for field in (*tables.SHARD_COLUMNS, *tables.DROP_COLUMNS):
        pairs = pairs.append_column(field, columns[field.name])
    return pairs


def grounds(decisions: Decisions, rows: slice) -> pa.Array:
    """What decided on each pair that is dropped as noisy; null for any other."""
    noisy = decisions.reason[rows] == "noisy"
    grounds: list[dict[str, Any] | None] = [None] * len(noisy)
    for i in np.flatnonzero(noisy).tolist():
        because = ground(decisions, rows.start + i)
        assert because is not None
        grounds[i] = asdict(because)
    return pa.array(grounds, tables.NOISY_BECAUSE)


def with_answers_exchanged(pairs: pa.Table, flipped: np.ndarray) -> pa.Table:
    """The pairs with every chosen and rejected column exchanged where `flipped` [pairs], and the flag `flipped` there.

    The source's own couples of columns (chosen_score and rejected_score, score_chosen and score_rejected) go along.
    `tokens_sha` stays that of the pair as it was given.
    """
    n = pairs.num_rows
    take = pa.array(np.where(flipped, np.arange(n) + n, np.arange(n)))
    for name in [n for n in pairs.column_names if "chosen" in n]:
        other = name.replace("chosen", "rejected")
        if other in pairs.column_names and pairs[name].type == pairs[other].type:
            a, b = pairs[name].combine_chunks(), pairs[other].combine_chunks()
            pairs = put(pairs, name, pa.concat_arrays([a, b]).take(take))
            pairs = put(pairs, other, pa.concat_arrays([b, a]).take(take))
    flags = [[*row, FLIPPED] if f else row for row, f in zip(pairs["flags"].to_pylist(), flipped, strict=True)]
    return put(pairs, "flags", pa.array(flags, pairs["flags"].type))


def put(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(at), values)


def number(values: np.ndarray) -> pa.Array:
    """float64 with null for NaN."""
    return pa.array(values, pa.float64(), from_pandas=True)


def per_checkpoint(values: np.ndarray) -> pa.Array:
    """[pairs, checkpoints] -> list<float64>, null where a pair has no scores."""
    n, m = values.shape
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * m)
    unscored = pa.array(np.isnan(values).any(axis=1))
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()), mask=unscored)
