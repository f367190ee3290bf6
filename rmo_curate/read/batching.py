"""Batches of consecutive items, bounded in number and size: what is held at a time, however long some of them are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def in_batches(items: Iterable[Item], most: int, most_size: int, size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """The items in order; a batch ends at `most` of them, or when their sizes reach `most_size`."""
    batch: list[Item] = []
    filled = 0
    for item in items:
        batch.append(item)
        filled += size(item)
        if len(batch) == most or filled >= most_size:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch
