"""The kinds of data file: bytes -> records (`record`), by `json_files`, `csv_files` and `arrow_files`.

To add one, write a reader (`Path -> Iterator[Record]`) and enter it in `READERS` here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rmo_curate.read.readers.arrow_files import read_arrow, read_parquet
from rmo_curate.read.readers.csv_files import read_csv
from rmo_curate.read.readers.json_files import read_json, read_jsonl
from rmo_curate.read.readers.record import Record

Reader = Callable[[Path], Iterator[Record]]
TEXT_READERS: dict[str, Reader] = {".jsonl": read_jsonl, ".json": read_json, ".csv": read_csv}
PACKED = (".gz", ".zst")  # suffixes of packed text files
READERS: dict[str, Reader] = {
    **{suffix + packed: reader for suffix, reader in TEXT_READERS.items() for packed in ("", *PACKED)},
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}
KINDS = f"{', '.join(TEXT_READERS)} (also with {' or '.join(PACKED)}), .parquet, .arrow"


def reader_of(path: Path) -> Reader | None:
    """The reader for a file of this name, None if there is none."""
    name = path.name.lower()
    return next((READERS[s] for s in sorted(READERS, key=len, reverse=True) if name.endswith(s)), None)
