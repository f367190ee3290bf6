"""Tables: schemas, verified reads, and `PartWriter`, with which an interrupted stage resumes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rmo_train.console.errors import UserError, cannot_write
from rmo_train.store import files
from rmo_train.store.files import append_line, canonical_json, canonical_text, sha256_text
from rmo_train.store.manifests import (
    MANIFEST,
    Manifest,
    PartFile,
    Parts,
    check_key,
    is_intact,
    read_manifest,
)

JOURNAL = ".journal.jsonl"
TOO_LONG = "too_long"  # the flag of a pair over --max-length, which has no scores

K = TypeVar("K", bound=Manifest)

MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))
TOKENS = pa.list_(pa.int32())

PAIR_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("tools", pa.string()),  # JSON, or null
        ("chat_template_kwargs", pa.string()),  # JSON of an object, or null
        ("prompt_ids", TOKENS),
        ("chosen_ids", TOKENS),
        ("rejected_ids", TOKENS),
        ("tokens_sha", pa.string()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
        ("flags", pa.list_(pa.string())),
        ("source_file", pa.string()),  # the data file that the pair was read from, as the user named it
        ("source_line", pa.int64()),  # its line there (jsonl), otherwise the number of its record; from 1
    ]
)
SOURCE_COLUMNS = frozenset({"source_file", "source_line"})
REJECT_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.string()),
    ]
)
SCORE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("chosen_logp", pa.float64()),
        ("rejected_logp", pa.float64()),
        ("fold", pa.int16()),
        ("held_out", pa.bool_()),
    ]
)
SPLIT_SCHEMA = pa.schema([("id", pa.string()), ("group", pa.string()), ("fold", pa.int16())])
SHARD_COLUMNS = [
    pa.field("chosen_logps", pa.list_(pa.float64())),
    pa.field("rejected_logps", pa.list_(pa.float64())),
    pa.field("margins", pa.list_(pa.float64())),
    pa.field("ref_chosen_logps", pa.float64()),
    pa.field("ref_rejected_logps", pa.float64()),
    pa.field("suspicion", pa.float64()),
    pa.field("weight", pa.float64()),
    pa.field("label_confidence", pa.float64()),
]
NOISY_BECAUSE = pa.struct(
    [
        ("rule", pa.string()),
        ("threshold", pa.float64()),  # the lowest suspicion among dropped pairs
        ("right", pa.float64()),  # P(the label is right); null if the rule uses no evidence
        ("reasons", pa.list_(pa.struct([("source", pa.string()), ("log_odds", pa.float64())]))),  # add up to right's
    ]
)
DROP_COLUMNS = [
    pa.field("drop_reason", pa.string()),
    pa.field("keep_probability", pa.float64()),
    pa.field("draw", pa.float64()),
    pa.field("noisy_because", NOISY_BECAUSE),  # null unless drop_reason is noisy
]
RESERVED_COLUMNS = frozenset(PAIR_SCHEMA.names) | {f.name for f in SHARD_COLUMNS} | {f.name for f in DROP_COLUMNS}


def flagged(pairs: pa.Table, flag: str) -> np.ndarray:
    """Which pairs carry `flag`: bool [pairs]."""
    import polars as pl

    return pl.Series(pairs["flags"]).list.contains(flag).fill_null(False).to_numpy()


def with_columns(schema: pa.Schema, fields: Sequence[pa.Field]) -> pa.Schema:
    """`schema` followed by `fields`."""
    return pa.schema([*schema, *fields])


def prompt_group(prompt: Sequence[Mapping[str, str]], tools: str | None) -> str:
    """Hash (hex, 16 bytes) of a prompt's messages and tools: pairs of one group are never on both sides of a split.

    Template settings are not part of it, nor is the order of keys: a question with and without thinking is the same
    question.
    """
    return sha256_text(canonical_json([list(prompt), tools and canonical_text(tools)]))[:32]


def write_table(path: Path, table: pa.Table, schema: pa.Schema, root: Path) -> PartFile:
    """Write `table` with exactly `schema`; returns its record, with the path relative to `root`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(schema.names).cast(schema), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    files.write_bytes(path, data)
    return PartFile(path.relative_to(root).as_posix(), table.num_rows, len(data), hashlib.sha256(data).hexdigest())


# ---------------------------------------------------------------------------------------------------- stages


def reopen_if_damaged(folder: Path, kind: type[Manifest]) -> None:
    """Mark a finished stage as unfinished if a part differs from its record, so that the part is written again."""
    manifest = read_manifest(folder, kind)
    if manifest is None or all(is_intact(folder, part) for part in manifest.parts):
        return
    files.write_bytes(folder / JOURNAL, _journal(manifest.key, manifest.parts))
    (folder / MANIFEST).unlink()


def _journal(key: Mapping[str, Any], parts: Iterable[PartFile]) -> bytes:
    """The journal of a stage with these finished parts."""
    lines = [canonical_json({"key": key}), *(canonical_json(asdict(part)) for part in parts)]
    return "".join(line + "\n" for line in lines).encode()


def _journal_entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a journal line; None if a kill cut it short."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _journal_entries(journal: Path) -> list[dict[str, Any]]:
    text = journal.read_bytes() if journal.exists() else b""
    return [entry for line in text.splitlines() if (entry := _journal_entry(line)) is not None]


def _recorded_parts(entries: Iterable[Mapping[str, Any]]) -> Iterator[PartFile]:
    """The parts among a journal's entries."""
    for entry in entries:
        if "file" in entry:
            with contextlib.suppress(TypeError, ValueError):  # no entry that a writer made
                yield PartFile(**entry)


def recorded_key(folder: Path, kind: type[Manifest]) -> Mapping[str, Any] | None:
    """The key of a finished or started stage; None if nothing is recorded yet."""
    if (made := read_manifest(folder, kind)) is not None:
        return made.key
    journal = folder / JOURNAL
    first = journal.read_bytes().partition(b"\n")[0] if journal.is_file() else b""
    return (_journal_entry(first) or {}).get("key")


class PartWriter(Generic[K]):
    """Writes the part files of one stage folder; parts finished by an interrupted run are kept.

    Each finished part is recorded, with its hash, in a journal; `finish` writes the manifest and removes the journal. A
    part that does not match the journal is removed and must be written again (`repaired` lists it); a finished stage
    with such a part becomes unfinished. Leftovers of a kill (a temporary file, a line cut short, the journal of a
    finished stage) are removed.
    """

    def __init__(self, folder: Path, kind: type[K], key: Mapping[str, Any], schema: pa.Schema):
        self.folder, self.kind, self.key, self.schema = folder, kind, dict(key), schema
        if (made := read_manifest(folder, kind)) is not None:
            check_key(made.key, self.key, folder)
            reopen_if_damaged(folder, kind)
        self.manifest = read_manifest(folder, kind)
        self.finished: dict[str, PartFile] = {}
        self.repaired: list[str] = []
        if self.manifest is not None:
            self.finished = {part.file: part for part in self.manifest.parts}
            (folder / JOURNAL).unlink(missing_ok=True)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise cannot_write(folder, e) from e
        self._read_journal()

    @property
    def complete(self) -> bool:
        return self.manifest is not None

    def _read_journal(self) -> None:
        journal = self.folder / JOURNAL
        text = journal.read_bytes() if journal.exists() else b""
        entries = _journal_entries(journal)
        if entries and "key" in entries[0]:
            check_key(entries[0]["key"], self.key, self.folder)
        recorded = {part.file: part for part in _recorded_parts(entries)}  # the last line of a part counts
        for name, part in recorded.items():
            if is_intact(self.folder, part):
                self.finished[name] = part
            else:
                self.repaired.append(name)
        for path in (*self.folder.glob("*.parquet"), *self.folder.glob(".*.tmp")):
            if path.name not in self.finished:  # damaged, or killed between the renaming and the journal line
                path.unlink()
        whole = _journal(self.key, self.finished.values())
        if text != whole:  # new, or with lines that are cut short or outdated
            files.write_bytes(journal, whole)

    def write(self, name: str, table: pa.Table) -> None:
        """Write the part `name` (a file name) and record it."""
        part = write_table(self.folder / name, table, self.schema, self.folder)
        self.finished[name] = part
        append_line(self.folder / JOURNAL, canonical_json(asdict(part)))

    def adopt(self, folder: Path) -> None:
        """Take over the finished parts of another writer with the same key from `folder`, on the same file system.

        Parts that differ from that writer's record are left there, and so is everything if the key differs.
        """
        recorded = _journal_entries(folder / JOURNAL)
        if not recorded or recorded[0].get("key") != self.key:
            return
        for part in _recorded_parts(recorded[1:]):
            if part.file not in self.finished and is_intact(folder, part):
                (folder / part.file).replace(self.folder / part.file)
                self.finished[part.file] = part
                append_line(self.folder / JOURNAL, canonical_json(asdict(part)))

    def finish(self, counts: Mapping[str, int], **of_kind: Any) -> K:
        """Write the manifest, with the additional fields `of_kind`; the stage is then complete."""
        parts = tuple(self.finished[name] for name in sorted(self.finished))
        self.manifest = self.kind(key=self.key, counts=dict(counts), parts=parts, **of_kind)
        self.manifest.write(self.folder)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        return self.manifest


def intact_parts(folder: Path, manifest: Parts) -> Iterator[Path]:
    """The files of a complete stage in order, each checked against the manifest's hash first."""
    again = manifest.made_again
    for part in manifest.parts:
        path = folder / part.file
        if not path.is_file():
            raise UserError(f"{path}: missing, though {folder / MANIFEST} lists it; {again}")
        if not is_intact(folder, part):
            raise UserError(f"{path}: differs from its record in {MANIFEST} (damaged or edited); {again}")
        yield path


def iter_parts(folder: Path, manifest: Parts, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The tables of a complete stage in order, verified."""
    for path in intact_parts(folder, manifest):
        yield pq.ParquetFile(path).read(columns=list(columns) if columns else None)


def read_table(folder: Path, manifest: Parts, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """All parts of a complete stage as one table, verified; an empty table of `schema` if there are none."""
    tables = list(iter_parts(folder, manifest, columns))
    if tables:
        return pa.concat_tables(tables)
    return (pa.schema([schema.field(c) for c in columns]) if columns else schema).empty_table()
