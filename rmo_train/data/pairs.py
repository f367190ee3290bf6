"""Pairs for the trainer: token ids, reference log-probs and a shard's columns, from a run or shard folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from rmo_train.console.errors import UserError
from rmo_train.data.ragged import Ragged
from rmo_train.store.files import canonical_json, sha256_text
from rmo_train.store.manifests import (
    MANIFEST,
    PairsManifest,
    Parts,
    Reference,
    RunManifest,
    ScoresManifest,
    ShardsManifest,
    read_manifest,
    read_one_of,
)
from rmo_train.store.tables import (
    PAIR_SCHEMA,
    SCORE_SCHEMA,
    SHARD_COLUMNS,
    TOO_LONG,
    flagged,
    iter_parts,
    prompt_group,
    read_table,
    with_columns,
)

Confidence = TypeVar("Confidence", float, np.ndarray)
TOKEN_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


def softened(confidence: Confidence, softness: float) -> Confidence:
    """P(label right) as training takes it, in [0, 1]: `confidence` at a softness of 1, certain at 0."""
    return 1 - softness * (1 - confidence)


@dataclass(frozen=True)
class PairData:
    """n pairs; every array has length n and is aligned with `ids`. Log-probs: float64 nats, summed over a response."""

    folder: Path
    manifest: RunManifest | ShardsManifest | None
    ids: np.ndarray  # str
    groups: np.ndarray  # str: hash of the prompt
    prompt: Ragged  # token ids, int32
    chosen: Ragged
    rejected: Ragged
    weight: np.ndarray
    label_confidence: np.ndarray
    ref_chosen: np.ndarray | None = None
    ref_rejected: np.ndarray | None = None
    end_chosen: np.ndarray | None = None  # under T, the trajectory's end
    end_rejected: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def reference(self) -> Reference:
        """The reference model; all fields are None for unscored data."""
        return Reference() if self.manifest is None else self.manifest.reference

    @property
    def has_references(self) -> bool:
        return self.ref_chosen is not None and self.ref_rejected is not None

    @property
    def fingerprint(self) -> str:
        """Hash of the ids, tokens and reference log-probs, which must be unchanged when training resumes."""
        digest = [sha256_text(canonical_json([str(i) for i in self.ids]))]
        for array in (self.prompt, self.chosen, self.rejected):
            digest.append(sha256_text(array.values.tobytes().hex()))
        for column in (self.ref_chosen, self.ref_rejected, self.weight, self.label_confidence):
            digest.append("" if column is None else sha256_text(column.tobytes().hex()))
        return sha256_text(canonical_json(digest))

    @property
    def content_sha256(self) -> str:
        """Hash of the ids and tokens, independent of their order: equal for models with the same tokenisation."""
        order = np.argsort(self.ids.astype(str), kind="stable")
        digest = [str(i) for i in self.ids[order]]
        for ragged in (self.prompt, self.chosen, self.rejected):
            taken = ragged.take(order)
            digest += [sha256_text(array.tobytes().hex()) for array in (taken.lengths, taken.values)]
        return sha256_text(canonical_json(digest))

    def labelled(self, soft: bool | None) -> PairData:
        """The pairs with every label certain or, with `soft`, with labels softened by `label_confidence`: as far as the
        filter decided, in full if it did not.

        None: as the filter decided.
        """
        decided = self.manifest.softness if isinstance(self.manifest, ShardsManifest) else 0.0
        softness = decided if soft is None else float(soft) * (decided or 1.0)
        return replace(self, label_confidence=softened(self.label_confidence, softness))

    def subset(self, rows: np.ndarray) -> PairData:
        """The pairs at `rows`, in that order."""
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Ragged):
                changed[field.name] = value.take(rows)
            elif isinstance(value, np.ndarray):
                changed[field.name] = value[rows]
        return replace(self, **changed)

    def spread(self, n: int) -> np.ndarray:
        """At most `n` evenly spaced rows, first and last included, int64: a deterministic sample."""
        return np.linspace(0, len(self) - 1, min(n, len(self))).astype(np.int64)

    def longest(self) -> int:
        """Tokens of the longest prompt + response."""
        if not len(self):
            return 0
        return int((self.prompt.lengths + np.maximum(self.chosen.lengths, self.rejected.lengths)).max())


def open_pairs(folder: Path) -> PairData:
    """The scorable pairs of a run folder, or the kept pairs of a shard folder.

    Raises a UserError if the folder is neither, is unfinished or damaged, or if a reference log-prob is NaN.
    """
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "no such folder"
        raise UserError(f"{folder}: {found}; expected a run folder (scored pairs) or a shard folder (filtered pairs)")
    manifest = read_one_of(folder, RunManifest, ShardsManifest)
    if manifest is None:
        raise UserError(
            f"{folder}: not a finished run or shard folder (it has no {MANIFEST} of either); score or filter the pairs "
            "first"
        )
    data = _from_shards(folder, manifest) if isinstance(manifest, ShardsManifest) else _from_run(folder)
    if not len(data):
        raise UserError(f"{folder}: no usable pairs (0 rows); score or filter again so that at least one pair is kept")
    _check_between(folder, data, "weight", 0, np.inf)
    _check_between(folder, data, "label_confidence", 0, 1)
    for name in ("ref_chosen", "ref_rejected"):
        column = getattr(data, name)
        if column is not None and not np.isfinite(column).all():
            row = int(np.flatnonzero(~np.isfinite(column))[0])
            raise UserError(f"{folder}: pair {data.ids[row]} has {name}_logps = {column[row]}; score the data again")
    return data


def _check_between(folder: Path, data: PairData, name: str, low: float, high: float) -> None:
    column = getattr(data, name)
    wrong = ~(np.isfinite(column) & (column >= low) & (column <= high))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"{folder}: pair {data.ids[row]} has {name} = {column[row]}, expected a number of {low} or more"
            + (f" and at most {high}" if np.isfinite(high) else "")
        )
    if name == "weight" and not column.any():
        raise UserError(f"{folder}: every pair has weight 0, so there is nothing to train on; filter again")


def _read(folder: Path, manifest: Parts, schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """`columns` of a stage, with each prompt reduced to its `group`, so that memory holds the text of one part only."""
    tables = []
    for part in iter_parts(folder, manifest, [*columns, "prompt", "tools"]):
        prompts, tools = part["prompt"].to_pylist(), part["tools"].to_pylist()
        groups = pa.array([prompt_group(p, t) for p, t in zip(prompts, tools, strict=True)], pa.string())
        tables.append(part.select(columns).append_column("group", groups))
    if tables:
        return pa.concat_tables(tables)
    return pa.schema([*(schema.field(c) for c in columns), ("group", pa.string())]).empty_table()


def _common(folder: Path, table: pa.Table) -> dict[str, Any]:
    n = table.num_rows
    return {
        "folder": folder,
        "manifest": None,
        "ids": np.array(table["id"].to_pylist(), dtype=object),
        "groups": np.array(table["group"].to_pylist(), dtype=object),
        **{c.removesuffix("_ids"): Ragged.from_arrow(table[c]) for c in TOKEN_COLUMNS},
        "weight": table["weight"].to_numpy() if "weight" in table.column_names else np.ones(n),
        "label_confidence": (
            table["label_confidence"].to_numpy() if "label_confidence" in table.column_names else np.ones(n)
        ),
    }


def _from_run(folder: Path) -> PairData:
    stage = folder / "pairs"
    table = _read(stage, read_manifest(stage, PairsManifest) or Parts(), PAIR_SCHEMA, ["id", "flags", *TOKEN_COLUMNS])
    keep = pa.array(~flagged(table, TOO_LONG))
    return with_references(PairData(**_common(folder, table.filter(keep))))


def with_references(data: PairData) -> PairData:
    """The pairs of a run folder, with its manifest and the reference's log-probs if they exist."""
    import polars as pl

    folder = data.folder
    data = replace(data, manifest=read_manifest(folder, RunManifest))
    scores_folder = folder / "scores" / "base"
    scores_manifest = read_manifest(scores_folder, ScoresManifest)
    if scores_manifest is None:
        return data
    scores = pl.DataFrame(read_table(scores_folder, scores_manifest, SCORE_SCHEMA)).with_columns(scored=True)
    joined = pl.DataFrame({"id": [str(i) for i in data.ids]}).join(scores, on="id", how="left", maintain_order="left")
    missing = joined.filter(pl.col("scored").is_null())["id"]
    if len(missing):
        raise UserError(f"{scores_folder}: no score for pair {missing[0]} ({len(missing)} missing); score again")
    return replace(
        data,
        ref_chosen=joined["chosen_logp"].to_numpy(writable=True),
        ref_rejected=joined["rejected_logp"].to_numpy(writable=True),
    )


def _scored(table: pa.Table, name: str) -> np.ndarray | None:
    """A log-prob column, float64 [n]; None if it is absent or empty, NaN for a missing value."""
    if name not in table.column_names or (len(table) and table[name].null_count == len(table)):
        return None
    return table[name].to_numpy()


def _end_column(folder: Path, table: pa.Table, name: str, checkpoints: Sequence[str], end: str) -> np.ndarray:
    """The log-probs under checkpoint `end`, from a column with one value per checkpoint, float64 [n]."""
    import polars as pl

    rows = pl.Series(table[name])
    lengths = rows.list.len().fill_null(0)
    other = lengths.filter(lengths != len(checkpoints))
    if end not in checkpoints or len(other):
        mismatch = f"a pair has {other[0]} {name}" if len(other) else f"{end!r} is not among them"
        raise UserError(
            f"{folder / MANIFEST}: it lists the checkpoints {', '.join(checkpoints)}, and {mismatch}; "
            "make the shards again"
        )
    return rows.list.get(checkpoints.index(end)).to_numpy(writable=True)


def _from_shards(folder: Path, manifest: ShardsManifest) -> PairData:
    columns = ["id", *TOKEN_COLUMNS, *[f.name for f in SHARD_COLUMNS]]
    table = _read(folder, manifest, with_columns(PAIR_SCHEMA, SHARD_COLUMNS), columns)
    data = replace(PairData(**_common(folder, table)), manifest=manifest)
    references: dict[str, Any] = {
        "ref_chosen": _scored(table, "ref_chosen_logps"),
        "ref_rejected": _scored(table, "ref_rejected_logps"),
    }
    if sum(column is None for column in references.values()) == 1:
        there, missing = sorted(references, key=lambda name: references[name] is None)
        raise UserError(
            f"{folder}: has {there}_logps but no {missing}_logps; score the data again, or remove that column"
        )
    end = manifest.end
    if end is not None and len(data):
        for name, column in (("end_chosen", "chosen_logps"), ("end_rejected", "rejected_logps")):
            references[name] = _end_column(folder, table, column, manifest.checkpoints, end)
    return replace(data, **references)
