"""Slices of the data: pairs with the same value in one of the source's own columns (`source=math`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rmo_curate.runs.run import Run
from rmo_train.console.errors import UserError, nearest

MOST_VALUES = 20  # distinct ones of a column that is reported by itself
MOST_COLUMNS = 3
SHOWN = 5  # slices of a column, those that lose most


def protected(run: Run, asked: Sequence[str]) -> np.ndarray:
    """Which pairs are of a slice of --protect COLUMN=VALUE: bool [pairs]."""
    import polars as pl

    have = run.own_columns()
    named = pl.repeat(False, run.pairs_manifest.counts["pairs"], eager=True)
    for text in asked:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--protect {text}: expected COLUMN=VALUE, such as source=math")
        if name not in have:
            columns = f"its own columns are {', '.join(have)}" if have else "the data have no columns of their own"
            raise UserError(f"--protect {text}: no column {name!r} in the data; {columns}{nearest(name, have)}")
        values = run.column(name)
        known = {str(v): v for v in values.drop_nulls().unique().sort()}
        if value not in known:
            shown = ", ".join(list(known)[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise UserError(
                f"--protect {text}: no pair has it; the values of {name!r} are {shown}{nearest(value, known)}"
            )
        named |= values.eq_missing(known[value])
    return named.to_numpy()


@dataclass(frozen=True)
class SliceRemoval:
    """What is removed of the pairs with one value."""

    value: str
    removed: float  # share of them
    pairs: int


@dataclass(frozen=True)
class ColumnRemoval:
    """What is removed of the slices of a column, those that lose most first."""

    name: str
    worst: tuple[SliceRemoval, ...]
    others: int  # values beyond those


def removal(run: Run, removed: np.ndarray, among: np.ndarray) -> tuple[ColumnRemoval, ...]:
    """Of each column of few values that lose any, what `removed` takes of its slices; both [pairs], slices are of pairs
    `among`."""
    import polars as pl

    columns: list[ColumnRemoval] = []
    for name, kind in run.own_columns().items():
        if not pa.types.is_string(kind) or len(columns) == MOST_COLUMNS:
            continue
        slices = (
            pl.DataFrame({"value": run.column(name), "removed": removed, "among": among})
            .filter("among")
            .drop_nulls()
            .group_by("value", maintain_order=True)
            .agg(pl.col("removed").mean(), pl.len())
            .sort("removed", descending=True, maintain_order=True)
        )
        if not 2 <= len(slices) <= MOST_VALUES or not slices["removed"][0]:
            continue
        worst = tuple(SliceRemoval(*row) for row in slices.head(SHOWN).iter_rows())
        columns.append(ColumnRemoval(name, worst, max(0, len(slices) - SHOWN)))
    return tuple(columns)
