"""Parquet and Arrow files; values become those that JSON can hold, as the other kinds of file give them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from rmo_curate.read.readers.record import Record
from rmo_curate.read.readers.unpacking import batch_bytes, check_unpacked, counted_batches

BATCH = 1024  # rows that are read or turned into Python values at a time, of long texts fewer:
BATCH_BYTES = 2**26
PARQUET_FILE = b"PAR1"
IPC_FILE = b"ARROW1"  # how an Arrow file starts; a stream does not


def read_parquet(path: Path) -> Iterator[Record]:
    """Rows; dates, bytes and decimals become text."""
    with pq.ParquetFile(path) as table:
        groups = [table.metadata.row_group(i) for i in range(table.metadata.num_row_groups)]
        check_unpacked(path, path.stat().st_size, sum(g.total_byte_size for g in groups))
        rows = min((_rows_at_once(g.total_byte_size, g.num_rows) for g in groups), default=BATCH)
        yield from records_of(counted_batches(path, table.iter_batches(batch_size=rows)))


def read_arrow(path: Path) -> Iterator[Record]:
    """Rows of an Arrow file or stream (what `datasets` writes), mapped rather than read into memory."""
    with path.open("rb") as f:
        is_file = f.read(len(IPC_FILE)) == IPC_FILE
    with pa.memory_map(str(path)) as source:
        if is_file:
            reader = pa.ipc.open_file(source)
            yield from records_of(checked(reader.get_batch(i)) for i in range(reader.num_record_batches))
        else:
            yield from records_of(checked(batch) for batch in pa.ipc.open_stream(source))


def checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, if what it says of its own memory is true: Arrow believes a file, and would read past its end.

    Texts that are not UTF-8 are a row's own defect and pass.
    """
    for column in batch.columns:
        with suppress(pa.ArrowNotImplementedError):  # of a dictionary there is no other view
            column = column.view(_as_bytes(column.type))
        column.validate(full=True)
    return batch


def _as_bytes(kind: pa.DataType) -> pa.DataType:
    """The type with bytes in the place of texts."""
    if pa.types.is_string(kind):
        return pa.binary()
    if pa.types.is_large_string(kind):
        return pa.large_binary()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_as_bytes(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_as_bytes(kind.value_type)))
    return kind


def records_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Record]:
    """The rows of a table, numbered from 1."""
    number = 0
    for batch in batches:
        step = _rows_at_once(batch_bytes(batch), batch.num_rows)
        for start in range(0, batch.num_rows, step):
            for row in _rows(batch.slice(start, step)):
                number += 1
                if row is None:
                    yield Record(number, text="", problem="a text in this row is not UTF-8")
                else:
                    yield Record(number, {k: plain(v) for k, v in row.items()})


def _rows_at_once(size: int, rows: int) -> int:
    """How many of so many rows of `size` bytes together are held at a time."""
    return max(1, min(BATCH, BATCH_BYTES * rows // max(size, 1)))


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """The batch's rows; None for a row with a text that is not UTF-8 (Arrow does not check when it reads)."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def plain(value: Any) -> Any:
    """`value` as JSON holds it. A struct has every key of its column, so a null in it stands for an absent key."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    text = as_text(value)
    return repr(value) if text is None else text


def as_text(value: Any) -> str | None:
    """A date, a time, bytes, a decimal or a UUID as text; None for anything else."""
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    return str(value) if isinstance(value, Decimal | datetime.timedelta | UUID) else None
