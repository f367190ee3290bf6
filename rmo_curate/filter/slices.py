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
    have = run.own_columns()
    named: np.ndarray | None = None
    for text in asked:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--protect {text}: expected COLUMN=VALUE, as source=math")
        if name not in have:
            columns = f"its own columns are {', '.join(have)}" if have else "the data have no columns of their own"
            raise UserError(f"--protect {text}: no column {name!r} in the data; {columns}{nearest(name, have)}")
        values = np.array([None if v is None else str(v) for v in run.column(name).to_pylist()], dtype=object)
        here = values == value
        if not here.any():
            known = sorted({str(v) for v in values})
            shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise UserError(
                f"--protect {text}: no pair has it; the values of {name!r} are {shown}{nearest(value, known)}"
            )
        named = here if named is None else named | here
    assert named is not None
    return named


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


def removal(run: Run, removed: np.ndarray) -> tuple[ColumnRemoval, ...]:
    """Of each column of few values, what `removed` [pairs] takes of its slices."""
    columns: list[ColumnRemoval] = []
    for name, kind in run.own_columns().items():
        if not pa.types.is_string(kind) or len(columns) == MOST_COLUMNS:
            continue
        values = run.column(name)
        names = values.dictionary.to_pylist()
        if not 2 <= len(names) <= MOST_VALUES:
            continue
        known = np.asarray(values.is_valid())
        code = values.indices.fill_null(0).to_numpy(False)[known]
        size, gone = np.bincount(code, minlength=len(names)), np.bincount(code, removed[known], len(names))
        share = gone / np.maximum(size, 1)
        worst = np.argsort(-share, kind="stable")[:SHOWN]
        parts = (SliceRemoval(names[i], float(share[i]), int(size[i])) for i in worst if size[i])
        columns.append(ColumnRemoval(name, tuple(parts), max(0, len(names) - SHOWN)))
    return tuple(columns)
