"""The contract between the stages: schemas, manifests, atomic writes and verified reads.

Every file is written to a temporary name, fsynced and renamed; a stage's manifest is written last, so a folder with a
manifest is complete and a folder without one is absent for every reader but the stage that is filling it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rmo_train.console.errors import UserError, cannot_write

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
JOURNAL = ".journal.jsonl"

MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))
TOKENS = pa.list_(pa.int32())

PAIR_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("tools", pa.string()),  # canonical JSON, or null
        ("chat_template_kwargs", pa.string()),  # canonical JSON of an object, or null
        ("prompt_ids", TOKENS),
        ("chosen_ids", TOKENS),
        ("rejected_ids", TOKENS),
        ("tokens_sha", pa.string()),
        ("chosen_tokens", pa.int32()),
        ("rejected_tokens", pa.int32()),
        ("flags", pa.list_(pa.string())),
    ]
)
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
DROP_COLUMNS = [
    pa.field("drop_reason", pa.string()),
    pa.field("keep_probability", pa.float64()),
    pa.field("draw", pa.float64()),
]
RESERVED_COLUMNS = frozenset(PAIR_SCHEMA.names) | {f.name for f in SHARD_COLUMNS} | {f.name for f in DROP_COLUMNS}


def with_columns(schema: pa.Schema, fields: Sequence[pa.Field]) -> pa.Schema:
    """`schema` followed by `fields`."""
    return pa.schema([*schema, *fields])


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, UTF-8; what every hash in the project is taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """File -> sha256 of the files of a folder (not of its folders, nor hidden ones): what `damaged_file` compares."""
    return {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.is_file() and p.name[0] != "."}


def damaged_file(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """What is wrong with the first file of `folder` that is not as recorded in `hashes`, or None."""
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_file(folder / name) != expected:
            return f"{name} is damaged"
    return None


def prompt_group(prompt: Sequence[Mapping[str, str]], tools: str | None) -> str:
    """Hash (hex, 16 bytes) of a prompt's messages and tools: pairs of one group never sit on both sides of a split.

    Template settings are no part of it: a question asked with and without thinking is one question.
    """
    return sha256_text(canonical_json([list(prompt), tools]))[:32]


def versions() -> dict[str, str]:
    """Versions of the packages that can change a number."""
    found = {}
    for name in ("rmo", "torch", "transformers", "tokenizers", "peft", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


# ---------------------------------------------------------------------------------------------------- atomic writes


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`: temporary name, fsync, rename. A full disk leaves nothing behind."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as e:
        with contextlib.suppress(OSError):  # a path through a file has nothing to remove, either
            temporary.unlink(missing_ok=True)
        raise cannot_write(path, e, len(data)) from e


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON, indented; a list of numbers stays on one line."""
    write_bytes(path, (_json_text(value, "\n") + "\n").encode())


def _json_text(value: Any, newline: str) -> str:
    """As json.dumps indents it; `newline`: a line break and the indentation that `value` stands at."""
    inner = newline + "  "
    if isinstance(value, Mapping) and value:
        texts = [f"{json.dumps(str(k), ensure_ascii=False)}: {_json_text(v, inner)}" for k, v in value.items()]
        return "{" + inner + f",{inner}".join(texts) + newline + "}"
    if isinstance(value, list | tuple) and value and not all(isinstance(v, int | float) for v in value):
        return "[" + inner + f",{inner}".join(_json_text(v, inner) for v in value) + newline + "]"
    return json.dumps(value, ensure_ascii=False)


def append_line(path: Path, line: str) -> None:
    """Append one line and fsync it. A full disk leaves the file as it was."""
    data = (line + "\n").encode()
    try:
        with path.open("ab", buffering=0) as f:
            before = f.seek(0, os.SEEK_END)
            try:
                if f.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(f.fileno())
            except OSError:
                f.truncate(before)
                raise
    except OSError as e:
        raise cannot_write(path, e, len(data)) from e


@dataclass(frozen=True)
class PartFile:
    """One Parquet file of a stage, as its manifest records it."""

    file: str  # relative to the stage's folder
    rows: int
    bytes: int
    sha256: str


def write_table(path: Path, table: pa.Table, schema: pa.Schema, root: Path) -> PartFile:
    """Write `table` with exactly `schema`; returns its record, with the path relative to `root`."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.select(schema.names).cast(schema), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    write_bytes(path, data)
    return PartFile(path.relative_to(root).as_posix(), table.num_rows, len(data), hashlib.sha256(data).hexdigest())


# ---------------------------------------------------------------------------------------------------- manifests


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: not readable as JSON ({e}); restore the file or start the stage afresh") from e


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete stage folder, or None while the stage is incomplete or was never started."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path)
    found = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if found != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {found!r}, this program reads version {SCHEMA_VERSION}; "
            "make the folder again with this version"
        )
    return manifest


def require_manifest(folder: Path, stage: str, made_by: str) -> dict[str, Any]:
    """The manifest of a complete `stage` folder; a UserError that names the command that makes it otherwise."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a {stage} folder, made by `{made_by}`")
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder}: no {MANIFEST}, so it is not a finished {stage} folder; run `{made_by}`")
    if manifest.get("stage") != stage:
        raise UserError(f"{folder}: a {manifest.get('stage')!r} folder, expected {stage!r}, made by `{made_by}`")
    return manifest


def make_manifest(
    stage: str, key: Mapping[str, Any], counts: Mapping[str, int], parts: Sequence[PartFile], **more: Any
) -> dict[str, Any]:
    """A stage's manifest: `key` has exactly the fields that change the stage's bytes."""
    return {
        "schema_version": SCHEMA_VERSION,
        "stage": stage,
        "key": dict(key),
        "counts": dict(counts),
        **more,
        "parts": [asdict(p) for p in parts],
        "versions": versions(),
    }


def check_key(found: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise a UserError naming each field in which a folder's key differs from the settings asked for."""
    differing = [k for k in sorted({*found, *wanted}) if found.get(k) != wanted.get(k)]
    if differing:
        lines = "\n".join(f"  {k}: the folder has {found.get(k)!r}, you asked for {wanted.get(k)!r}" for k in differing)
        raise UserError(
            f"{folder} was made with other settings:\n{lines}\n"
            "Use those settings, another --out, or --overwrite to start this folder afresh."
        )


def is_intact(folder: Path, part: PartFile) -> bool:
    """Whether a part is there with the bytes that were recorded."""
    path = folder / part.file
    return path.is_file() and path.stat().st_size == part.bytes and sha256_file(path) == part.sha256


def reopen_if_damaged(folder: Path) -> None:
    """Make a finished stage an unfinished one where a part is not as recorded: who fills it writes that part again."""
    manifest = read_manifest(folder)
    if manifest is None:
        return
    parts = [PartFile(**entry) for entry in manifest["parts"]]
    if all(is_intact(folder, part) for part in parts):
        return
    lines = [canonical_json({"key": manifest["key"]}), *(canonical_json(asdict(part)) for part in parts)]
    write_bytes(folder / JOURNAL, "".join(line + "\n" for line in lines).encode())
    (folder / MANIFEST).unlink()


def _journal_entry(line: bytes) -> dict[str, Any] | None:
    """The entry of a journal line; None for one that a kill cut short."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


class PartWriter:
    """Fills one stage folder with part files; what a killed run finished is kept.

    Each finished part is recorded, with its hash, in a journal beside it; `finish` writes the manifest and removes the
    journal. A part whose bytes do not match the journal is removed and is to be written again (`repaired` lists it); a
    finished stage with such a part is an unfinished one again. What a kill left beside the parts (a temporary file, a
    line cut short, the journal of a finished stage) is cleared away.
    """

    def __init__(self, folder: Path, stage: str, key: Mapping[str, Any], schema: pa.Schema):
        self.folder, self.stage, self.key, self.schema = folder, stage, dict(key), schema
        if (found := read_manifest(folder)) is not None:
            check_key(found["key"], self.key, folder)
            reopen_if_damaged(folder)
        self.manifest = read_manifest(folder)
        self.finished: dict[str, PartFile] = {}
        self.repaired: list[str] = []
        if self.manifest is not None:
            self.finished = {entry["file"]: PartFile(**entry) for entry in self.manifest["parts"]}
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
        found = journal.read_bytes() if journal.exists() else b""
        entries = [entry for line in found.splitlines() if (entry := _journal_entry(line)) is not None]
        if entries and "key" in entries[0]:
            check_key(entries[0]["key"], self.key, self.folder)
        recorded = {e["file"]: PartFile(**e) for e in entries if "file" in e}  # the last line of a part counts
        for name, part in recorded.items():
            if is_intact(self.folder, part):
                self.finished[name] = part
            else:
                self.repaired.append(name)
        for path in (*self.folder.glob("*.parquet"), *self.folder.glob(".*.tmp")):
            if path.name not in self.finished:  # damaged, or renamed into place but killed before its journal line
                path.unlink()
        lines = [canonical_json({"key": self.key}), *(canonical_json(asdict(part)) for part in self.finished.values())]
        whole = "".join(line + "\n" for line in lines).encode()
        if found != whole:  # new, or with lines that are cut short or no longer true
            write_bytes(journal, whole)

    def write(self, name: str, table: pa.Table) -> None:
        """Write the part `name` (a file name) and record it."""
        part = write_table(self.folder / name, table, self.schema, self.folder)
        self.finished[name] = part
        append_line(self.folder / JOURNAL, canonical_json(asdict(part)))

    def finish(self, counts: Mapping[str, int], **more: Any) -> dict[str, Any]:
        """Write the manifest: the stage is complete."""
        parts = [self.finished[name] for name in sorted(self.finished)]
        self.manifest = make_manifest(self.stage, self.key, counts, parts, **more)
        write_json(self.folder / MANIFEST, self.manifest)
        (self.folder / JOURNAL).unlink(missing_ok=True)
        return self.manifest


def intact_parts(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Path]:
    """The files of a complete stage in order, each checked against the manifest's hash first."""
    again = "make the folder again (--overwrite)"
    if manifest.get("stage") in ("pairs", "rejects", "scores", "states"):
        again = "run the same `rmo-curate score` command again, which makes this part anew"
    for entry in manifest["parts"]:
        path = folder / entry["file"]
        if not path.is_file():
            raise UserError(f"{path}: missing, though {folder / MANIFEST} lists it; {again}")
        if not is_intact(folder, PartFile(**entry)):
            raise UserError(f"{path}: its bytes are not those that {MANIFEST} records (damaged or edited); {again}")
        yield path


def iter_parts(folder: Path, manifest: Mapping[str, Any], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The tables of a complete stage in order, verified."""
    for path in intact_parts(folder, manifest):
        yield pq.ParquetFile(path).read(columns=list(columns) if columns else None)


def read_table(
    folder: Path, manifest: Mapping[str, Any], schema: pa.Schema, columns: Sequence[str] | None = None
) -> pa.Table:
    """All parts of a complete stage as one table, verified; an empty table of `schema` when there are none."""
    tables = list(iter_parts(folder, manifest, columns))
    if tables:
        return pa.concat_tables(tables)
    return (pa.schema([schema.field(c) for c in columns]) if columns else schema).empty_table()
