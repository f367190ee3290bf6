"""The kinds of data file: bytes -> records (`record`), by `json_files`, `csv_files` and `arrow_files`;
packed ones within limits (`unpacking`).

To add one, write a reader (`Path -> Iterator[Record]`) and enter it in `READERS` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rmo_curate.read.readers.arrow_files import IPC_FILE, PARQUET_FILE, read_arrow, read_parquet
from rmo_curate.read.readers.csv_files import read_csv, read_tsv
from rmo_curate.read.readers.json_files import read_json, read_jsonl
from rmo_curate.read.readers.record import Record, open_bytes, zip_member
from rmo_train.console.errors import UserError

Reader = Callable[[Path], Iterator[Record]]
TEXT_READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
}
PACKED = (".gz", ".zst", ".xz", ".bz2", ".zip")  # suffixes of packed text files


def read_zip(path: Path) -> Iterator[Record]:
    """The records of an archive's one file, which is read by its own name."""
    name = zip_member(path)
    reader = next((r for suffix, r in TEXT_READERS.items() if name.lower().endswith(suffix)), None)
    if reader is None:
        raise UserError(f"{path}: contains {name}; an archive may contain {', '.join(TEXT_READERS)}: unpack it")
    return reader(path)


READERS: dict[str, Reader] = {
    **{suffix + packed: reader for suffix, reader in TEXT_READERS.items() for packed in ("", *PACKED)},
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".zip": read_zip,
}
KINDS = f"{', '.join(TEXT_READERS)} (also with {', '.join(PACKED[:-1])} or {PACKED[-1]}), .parquet, .arrow"


def reader_of(path: Path) -> Reader | None:
    """The reader for a file of this name, None if there is none."""
    name = path.name.lower()
    return next((READERS[s] for s in sorted(READERS, key=len, reverse=True) if name.endswith(s)), None)


def reader_of_content(path: Path) -> Reader:
    """The reader for a file without a name: Parquet and Arrow by how they start, JSON by its bracket, else CSV."""
    with path.open("rb") as f:
        start = f.read(len(IPC_FILE))
    if start.startswith(PARQUET_FILE):
        return read_parquet
    if start == IPC_FILE:
        return read_arrow
    with open_bytes(path) as f:
        text = f.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    return read_json if text[:1] in (b"[", b"{", b"") else read_csv
