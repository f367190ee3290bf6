"""The source's other columns: one Arrow type and one name for each, found by looking at every value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rmo_curate.read.readers.record import encodable
from rmo_train.store.files import canonical_json
from rmo_train.store.tables import RESERVED_COLUMNS

INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class ExtraColumn:
    """A column that goes along with the pairs."""

    source: str  # its name in the data
    name: str  # its name in the tables
    type: pa.DataType
    as_json: bool  # its values are of several kinds or nested: each is written as canonical JSON

    def value(self, raw: Any) -> Any:
        """`raw` as the column holds it; null stays null."""
        if raw is None:
            return None
        if self.as_json:
            return encodable(canonical_json(raw))
        if self.type == pa.float64():
            return float(raw)
        return encodable(raw) if isinstance(raw, str) else raw


def kind_of(value: Any) -> str:
    """bool, int, float, str, or `json` for everything else (an integer beyond 64 bits too)."""
    kind = type(value).__name__
    if kind == "int" and value not in INT64:
        return "json"
    return kind if kind in ("bool", "int", "float", "str") else "json"


def _type_of(kinds: frozenset[str]) -> tuple[pa.DataType, bool]:
    if kinds == {"bool"}:
        return pa.bool_(), False
    if kinds == {"int"}:
        return pa.int64(), False
    if kinds and kinds <= {"int", "float"}:
        return pa.float64(), False
    return pa.string(), not kinds <= {"str"}  # nulls alone: an empty text column


def plan_columns(kinds: Mapping[str, Iterable[str]]) -> tuple[ExtraColumn, ...]:
    """The columns for `kinds`: name in the data -> the kinds of value seen there (none: nulls only).

    A name that the tables use themselves gets the prefix `source_`.
    """
    taken = set(RESERVED_COLUMNS) | {name for name in kinds if name not in RESERVED_COLUMNS}
    columns = []
    for source, seen in kinds.items():
        name = source
        if source in RESERVED_COLUMNS:
            while name in taken:
                name = f"source_{name}"
            taken.add(name)
        columns.append(ExtraColumn(source, encodable(name), *_type_of(frozenset(seen))))
    return tuple(columns)
