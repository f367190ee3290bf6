"""Data in memory -> records, like those of the file readers: data sets, frames, Arrow tables, lists of dicts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from rmo_curate.read.readers.arrow_files import as_text, records_of
from rmo_curate.read.readers.record import Record, encodable
from rmo_train.console.errors import UserError
from rmo_train.store.files import canonical_json
from rmo_train.store.manifests import InputFile

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import polars as pl

AnyPath: TypeAlias = str | os.PathLike[str]
Frame: TypeAlias = "datasets.Dataset | pl.DataFrame | pd.DataFrame | pa.Table"
Data: TypeAlias = "AnyPath | Sequence[AnyPath] | Sequence[Mapping[str, Any]] | Frame"
IN_MEMORY = "data in memory"  # used in place of a file's name
ROWS = 1024  # rows of a data set that are read at a time
EXPECTED = (
    "paths, a list of dicts, a datasets.Dataset, a polars or pandas DataFrame, or anything else that gives Arrow tables"
)
HINTS = {  # by type
    "DatasetDict": "; give one of its splits",
    "LazyFrame": "; collect it first",
    "generator": "; make a list of it",
}


@dataclass(frozen=True)
class InMemory:
    """Data that are not in a file. Records are made as they are read, so memory holds the data only once."""

    rows: Callable[[], Iterator[Record]]
    name: str = IN_MEMORY

    def records(self) -> Iterator[Record]:
        """The records; the same on every call."""
        return self.rows()

    def identity(self) -> InputFile:
        """Name, bytes and sha256 of the records as JSON lines. The same content in another container is the same data,
        so a run can be continued with it."""
        digest, size = hashlib.sha256(), 0
        for record in self.records():
            line = (encodable(canonical_json(record.value)) + "\n").encode()
            digest.update(line)
            size += len(line)
        return InputFile(name=self.name, bytes=size, sha256=digest.hexdigest())


def given(data: Data) -> list[str | InMemory]:
    """The data argument of the Python API in the form that `open_source` takes: paths and names, or one InMemory.

    A UserError if `data` is of a type that cannot be read.
    """
    if isinstance(data, str | os.PathLike):
        return [os.fspath(data)]
    if (batches := _batches_of(data)) is not None:
        return [InMemory(lambda: records_of(batches()))]
    if not isinstance(data, Sequence):
        kind = type(data).__name__
        raise UserError(f"data: found a value of type {kind}; expected {EXPECTED}{HINTS.get(kind, '')}")
    paths = [os.fspath(item) for item in data if isinstance(item, str | os.PathLike)]
    if data and len(paths) == len(data):
        return list(paths)
    return [InMemory(lambda: _records_of_list(data))]


def _batches_of(data: Any) -> Callable[[], Iterable[pa.RecordBatch]] | None:
    """A function that reads a data set or a frame as Arrow batches; None if `data` is neither."""
    if _is(data, "datasets", "Dataset"):  # its own table ignores `select` and `shuffle`
        arrow = data.with_format("arrow")
        return lambda: (batch for rows in arrow.iter(ROWS) for batch in rows.to_batches())
    try:
        if _is(data, "pandas", "DataFrame"):
            return pa.Table.from_pandas(data, preserve_index=False).to_batches
        if hasattr(data, "__arrow_c_stream__"):
            return pa.table(data).to_batches
    except (pa.ArrowException, TypeError) as e:
        raise UserError(
            f"data: this {type(data).__name__} cannot be converted to Arrow ({e}); pass its rows as a list of dicts"
        ) from e
    return None


def _is(data: Any, module: str, name: str) -> bool:
    """Whether `data` is an instance of a library's class; does not import the library."""
    return module in sys.modules and isinstance(data, getattr(sys.modules[module], name, ()))


def _records_of_list(rows: Sequence[Any]) -> Iterator[Record]:
    """Each row as it would be in JSON: a tuple becomes a list, and a date becomes text."""
    for number, row in enumerate(rows, start=1):
        try:
            yield Record(number, json.loads(json.dumps(row, default=_of_json)))
        except (TypeError, ValueError) as e:
            raise UserError(f"{IN_MEMORY}:{number}: {e}; expected a dict of JSON values") from e


def _of_json(value: Any) -> Any:
    """A value that JSON cannot express, as a file reader would give it."""
    if hasattr(value, "tolist"):  # numbers and arrays of numpy
        return value.tolist()
    if (text := as_text(value)) is None:
        raise TypeError(f"found a value of type {type(value).__name__}")
    return text
