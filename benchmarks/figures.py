"""The JSON files under results/, and their figures as cells and rows of Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rmo_train.store.files import read_json

RESULTS = Path(__file__).parent / "results"


def result(name: str) -> Any:
    return read_json(RESULTS / f"{name}.json")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def share(value: float) -> str:
    return f"{value:.0%}"


def interval(one: Mapping[str, float], digits: int = 3) -> str:
    return f"{one['value']:.{digits}f} [{one['low']:.{digits}f}, {one['high']:.{digits}f}]"


def points(one: Mapping[str, float]) -> str:
    """A difference of shares in percentage points, with its interval."""
    return f"{100 * one['value']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"


def ratio(one: Mapping[str, float], digits: int = 2) -> str:
    return f"{one['median']:.{digits}f} ({one['lowest']:.{digits}f} to {one['highest']:.{digits}f})"
