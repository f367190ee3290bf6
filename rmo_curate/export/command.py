"""`rmo-curate export`: writes the kept pairs of a shard folder in the format of another trainer, part by part.

Fields that a format cannot hold are counted and reported; pairs that it cannot express are listed in `omitted.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rmo_curate.export.formats import FORMATS, Format, Inexpressible, Shape, Trainer
from rmo_curate.filter.card import CONFIGS, described
from rmo_curate.runs.manifests import ExportManifest
from rmo_curate.runs.replacing import replacing
from rmo_train.console.errors import UserError
from rmo_train.console.wording import counted
from rmo_train.store import files, manifests, tables
from rmo_train.store.folder_lock import making
from rmo_train.store.manifests import ShardsManifest

MADE_BY = "rmo-curate filter RUN --out SHARDS"
READ = ("id", "prompt", "chosen", "rejected", "tools", "chat_template_kwargs", "flags", "weight", "label_confidence")
OMITTED = "omitted.jsonl"
Parts = Iterator[list[dict[str, Any]]]  # the rows of each part
BATCH = 1000  # rows converted to Python objects at a time


@dataclass
class Counts:
    """Counts of kept pairs by outcome."""

    written: int = 0
    omitted: Counter[str] = field(default_factory=Counter)  # by reason
    weighted: int = 0  # written pairs whose weight or label confidence is not 1


def run_export(shards: Path, to: Trainer, out: Path) -> list[str]:
    """Write the kept pairs of `shards` for the trainer `to` into `out`; returns the lines to print."""
    manifest = manifests.require_manifest(shards, ShardsManifest, MADE_BY)
    out = out.resolve()
    with making(out, "rmo-curate"), replacing(out, "export", "rmo-curate export") as partial:
        counts = fill(partial, shards, manifest, to, out)
    return [
        f"{counts.written:,} of {counted(kept(counts), 'kept pair')} exported for {to}: {out}",
        *losses(counts, FORMATS[to], manifest.softness),
        f"see {out}/README.md",
    ]


def kept(counts: Counts) -> int:
    return counts.written + counts.omitted.total()


def fill(folder: Path, shards: Path, manifest: ShardsManifest, to: Trainer, out: Path) -> Counts:
    """Write the data, its accompanying files, manifest.json and, last, README.md to `folder`, which becomes `out`."""
    form, counts = FORMATS[to], Counts()
    shape = shape_of(shards, manifest)
    with (folder / OMITTED).open("w", encoding="utf-8") as omitted:
        parts = converted(shards, manifest, form, shape, counts, omitted)
        write = write_parquet if "{}" in form.data else write_lines
        written = write(folder, form, shape, parts, len(manifest.parts))
        sync(omitted)
    if not counts.written:
        (reason, n), *_ = counts.omitted.most_common()
        raise UserError(
            f"{shards}: the format of {to} cannot express any kept pair; {n:,} of {kept(counts):,} have {reason}. "
            "Export for another trainer with --to"
        )
    if not counts.omitted:
        (folder / OMITTED).unlink()
    for name, content in form.extra_files(out).items():
        files.write_bytes(folder / name, content.encode())
    key = {"to": str(to), "shards": [part.sha256 for part in manifest.parts]}
    numbers = {"kept": kept(counts), "written": counts.written, "omitted": counts.omitted.total()}
    ExportManifest(key=key, counts=numbers, parts=tuple(written)).write(folder)
    files.write_bytes(folder / "README.md", readme(form, to, out, counts, written, sourced=shape.sourced).encode())
    return counts


def shape_of(shards: Path, manifest: ShardsManifest) -> Shape:
    """Read the small columns of every kept pair once."""
    tools, references = False, True
    kinds: set[pa.DataType] = set()  # of chat_template_kwargs: names and types of its fields
    small = ["tools", "chat_template_kwargs", "ref_chosen_logps", "ref_rejected_logps"]
    for part in tables.iter_parts(shards, manifest, small):
        tools = tools or part["tools"].null_count < part.num_rows
        references = references and not (part["ref_chosen_logps"].null_count or part["ref_rejected_logps"].null_count)
        kinds |= {
            pa.array([json.loads(text or "null")]).type for text in part["chat_template_kwargs"].unique().to_pylist()
        }
    kwargs = kinds.pop() if len(kinds) == 1 else pa.null()
    columns = {f.name: f.type for f in pq.read_schema(shards / manifest.parts[0].file)}
    margin = columns.get("margin", pa.null())
    return Shape(
        tools=tools,
        template_kwargs=None if pa.types.is_null(kwargs) else kwargs,
        margin=pa.types.is_integer(margin) or pa.types.is_floating(margin),
        softness=manifest.softness,
        references=references,
        end=None if manifest.end is None else manifest.checkpoints.index(manifest.end),
        sourced=set(columns) >= tables.SOURCE_COLUMNS,
    )


def converted(
    shards: Path, manifest: ShardsManifest, form: Format, shape: Shape, counts: Counts, omitted: IO[str]
) -> Parts:
    """The rows of each part; counts and lists pairs that `form` cannot express."""
    sourced = tables.SOURCE_COLUMNS if shape.sourced else ()
    columns = [*READ, *form.reads, *(["margin"] if shape.margin else []), *sourced]
    for part in tables.iter_parts(shards, manifest, columns):
        rows = []
        for batch in part.to_batches(max_chunksize=BATCH):
            for pair in batch.to_pylist():
                try:
                    rows.append(form.row(pair, shape))
                except Inexpressible as e:
                    counts.omitted[str(e)] += 1
                    omitted.write(json.dumps({"id": pair["id"], "reason": str(e)}, ensure_ascii=False) + "\n")
                    continue
                counts.written += 1
                counts.weighted += pair["weight"] != 1 or (shape.softness > 0 and pair["label_confidence"] != 1)
        yield rows


def write_parquet(folder: Path, form: Format, shape: Shape, parts: Parts, total: int) -> list[manifests.PartFile]:
    """One Parquet file per part, all with the same schema."""
    schema = form.schema(shape)
    written = []
    for i, rows in enumerate(parts):
        path = folder / form.data.format(f"{i:05d}-of-{total:05d}")
        written.append(tables.write_table(path, pa.Table.from_pylist(rows, schema), schema, folder))
    return written


def write_lines(folder: Path, form: Format, shape: Shape, parts: Parts, total: int) -> list[manifests.PartFile]:
    """All parts in one file of JSON lines."""
    path, digest, n = folder / form.data, hashlib.sha256(), 0
    with path.open("wb") as f:
        for rows in parts:
            for row in rows:
                line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
                f.write(line)
                digest.update(line)
                n += 1
        sync(f)
    return [manifests.PartFile(path.name, n, path.stat().st_size, digest.hexdigest())]


def sync(f: IO[Any]) -> None:
    f.flush()
    os.fsync(f.fileno())


# ---------------------------------------------------------------------------------------------------- words


def losses(counts: Counts, form: Format, softness: float) -> list[str]:
    """What the export does not contain, with counts. softness: of the shards' labels."""
    lines = [f"left out: {n:,} with {reason}, listed in {OMITTED}" for reason, n in counts.omitted.most_common()]
    if counts.weighted and not form.carries_weights:
        lines.append(
            f"not exported: weight and label_confidence, which differ from 1 in {counted(counts.weighted, 'pair')}"
        )
        lines.append(
            "warning: this trainer takes every label as it is, doubted ones too; for it, filter with --action drop"
        )
    elif softness:
        lines.append(
            "labels are soft: train with rmo_train.trl.RMODPOTrainer; plain TRL takes doubted ones as they are"
        )
    return lines


def not_carried(form: Format, counts: Counts, *, sourced: bool) -> list[str]:
    """Which fields of each pair are lost."""
    lost = ["- the source file and line of each pair, which the shards do not have"] if not sourced else []
    if form.carries_weights:
        between = "- suspicion, and log-probs of checkpoints between the first and the last: see the shard folder"
        return [between + ", under the same `id`", *lost]
    return [
        f"- weights and label confidences (not 1 in {counted(counts.weighted, 'pair')}): all pairs count equally",
        "- tokens, log-probs, margins, suspicion: see the shard folder, under the same `id`",
        *lost,
    ]


def readme(
    form: Format, to: Trainer, out: Path, counts: Counts, written: list[manifests.PartFile], *, sourced: bool
) -> str:
    configs = [described(CONFIGS[0], written)]
    front = f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n\n" if to is Trainer.TRL else ""
    lines = [
        f"# {counted(counts.written, 'preference pair')} for {to}",
        "",
        "Written by `rmo-curate export`.",
        "",
        form.describe(out),
        "",
        f"Besides the columns that {to} reads, each row has the `id` of its pair"
        + (", and `source_file` and `source_line`, its position in your data." if sourced else "."),
        "",
        "## Not in this export",
        "",
        f"- {counts.omitted.total():,} of {counted(kept(counts), 'kept pair')}, which this format cannot express"
        + (f": `{OMITTED}` has their ids" if counts.omitted else ""),
        *(f"  - {n:,} with {reason}" for reason, n in counts.omitted.most_common()),
        *not_carried(form, counts, sourced=sourced),
        "",
    ]
    return front + "\n".join(lines)
