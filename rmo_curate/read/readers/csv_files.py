"""CSV: a header, then one record a row (a cell may have several lines); a column of JSON messages is read as such.

CSV has no types: every other cell is text, and an empty one is null.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rmo_curate.read.readers.record import Record, open_bytes, said_in_json
from rmo_train.console.errors import UserError

DELIMITERS = (";", "\t", "|")  # of a header without a comma
SAMPLE = 100  # rows that decide which columns are JSON
LONGEST_CELL = 2**31 - 1


def read_csv(path: Path) -> Iterator[Record]:
    """Rows of cells that commas part, or what else parts the names of the header."""
    with open_bytes(path) as f:
        header = f.readline().decode("utf-8", "replace")
    yield from _read(path, "," if "," in header else next((d for d in DELIMITERS if d in header), ","))


def read_tsv(path: Path) -> Iterator[Record]:
    """Rows of cells that tabs part."""
    yield from _read(path, "\t")


def _read(path: Path, delimiter: str) -> Iterator[Record]:
    """Rows by the header's names; a row with more or fewer cells than the header has a problem."""
    csv.field_size_limit(LONGEST_CELL)  # the default refuses answers of 128 KiB
    with open_bytes(path) as f, io.TextIOWrapper(f, "utf-8-sig", errors="surrogateescape", newline="") as text:
        rows = csv.reader(text, strict=True, delimiter=delimiter)
        try:
            header = next(rows, [])
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise UserError(f"{path}:1: two columns named {twice!r}; give each column its own name")
            filled = (row for row in rows if row)
            sample = list(islice(filled, SAMPLE))
            parsed = [i for i in range(len(header)) if _is_json(path, header[i], [r[i] for r in sample if i < len(r)])]
            for number, row in enumerate(chain(sample, filled), start=1):
                yield _record(number, header, row, parsed)
        except csv.Error as e:
            raise UserError(f"{path}:{rows.line_num}: not CSV: {e}; correct the file there") from e


def _record(number: int, header: Sequence[str], row: Sequence[str], parsed: Sequence[int]) -> Record:
    text = "\n".join(row).encode("utf-8", "surrogateescape")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return Record(number, text=text.decode("utf-8", "backslashreplace"), problem="a cell in this row is not UTF-8")
    if len(row) != len(header):
        problem = f"{len(row)} cells, the header has {len(header)}; quote cells that contain a comma or a line break"
        return Record(number, text=text.decode("utf-8"), problem=problem)
    value: dict[str, Any] = {name: cell or None for name, cell in zip(header, row, strict=True)}
    for i in parsed:
        if row[i]:
            conversation = said_in_json(row[i])
            value[header[i]] = row[i] if conversation is None else conversation
    return Record(number, value)


def _is_json(path: Path, column: str, cells: Sequence[str]) -> bool:
    """Whether every filled cell of the sample holds messages or answers as JSON."""
    filled = [cell for cell in cells if cell]
    if filled and all(cell.startswith(("[{'", "{'")) for cell in filled):
        raise UserError(
            f"{path}: the cells of {column!r} are Python lists, not JSON ({filled[0][:30]}…); write "
            "them with json.dumps, or save the data as JSONL or Parquet"
        )
    return bool(filled) and all(said_in_json(cell) is not None for cell in filled)
