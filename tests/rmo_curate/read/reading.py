"""Sources written and read in one line: what the tests of sources share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmo_curate.read.sources import Pair, Reject, Source, open_source
from tests.rmo_curate.scored import write_jsonl


def jsonl(path: Path, *rows: dict[str, Any] | str | bytes) -> str:
    """Write rows (objects, or lines as they stand) and return the path as a user types it."""
    return str(write_jsonl(path, rows))


def read(*paths: str, **settings: Any) -> tuple[Source, list[Pair | Reject]]:
    """The source of `paths` and its records, which are the same at a second reading."""
    source = open_source(list(paths), **settings)
    records = list(source.records())
    assert list(source.records()) == records
    return source, records


def pairs(records: Sequence[Pair | Reject]) -> list[Pair]:
    return [r for r in records if isinstance(r, Pair)]


def reasons(records: Sequence[Pair | Reject]) -> list[str]:
    """The reason of each reject, "pair" for a pair."""
    return [r.reason if isinstance(r, Reject) else "pair" for r in records]
