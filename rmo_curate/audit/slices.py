"""Parts of a data set that are told apart: by a column of the source, by file, by length and turns of the prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rmo_curate.audit.findings import win_rate
from rmo_curate.audit.texts import Texts

MOST_VALUES = 20  # distinct values of a column that parts data
LEAST_SHARE = 0.5  # of the pairs that must have a value
OTHER = "(none)"


@dataclass(frozen=True)
class SliceRow:
    """One slice of the data; NaN: a share of no pairs."""

    column: str
    value: str
    pairs: int
    unequal: int  # pairs whose answers differ in length
    scored: int  # pairs with a reward margin
    length_bias: float  # share of the unequal pairs in which the longer answer wins
    flagged: float  # share of the pairs with a finding
    against: float  # share of the scored pairs that training moved against the label
    noisy: float  # share of the scored pairs that the filter calls noisy


def slices(texts: Texts, words: np.ndarray, scripts: list[str]) -> dict[str, list[str]]:
    """Column -> the value of each pair, for every column that parts the data in 2 to MOST_VALUES."""
    n = len(texts)
    columns: dict[str, list[Any]] = {"file": texts.files} if len(set(texts.files)) > 1 else {}
    columns |= {name: values for name, values in texts.columns.items() if parts(values, n)}
    columns["prompt length"] = thirds(words[:, 0])
    columns["turns"] = ["one" if len(m) <= 1 else "several" for m in texts.prompt_messages]
    columns["writing system"] = scripts
    return {
        name: [OTHER if v is None or v == "" else str(v) for v in values]
        for name, values in columns.items()
        if len(set(values)) > 1
    }


def parts(values: list[Any], n: int) -> bool:
    there = Counter(v for v in values if v is not None and v != "")
    few = len(there) <= min(MOST_VALUES, max(2, n // 5))
    return len(there) > 1 and few and sum(there.values()) >= LEAST_SHARE * n


def thirds(words: np.ndarray) -> list[str]:
    """Short, medium or long, by the terciles of `words` [n]; the names say how many words that is."""
    if not len(words):
        return []
    low, high = (int(q) for q in np.quantile(words, (1 / 3, 2 / 3)))
    names = (f"up to {low} words", f"{low + 1} to {high} words", f"over {high} words")
    return [names[int(w > low) + int(w > high)] for w in words]


def slice_rows(
    columns: Mapping[str, list[str]],
    difference: np.ndarray,
    flagged: np.ndarray,
    moved: np.ndarray,
    noisy: np.ndarray | None,
) -> tuple[SliceRow, ...]:
    """A row for each value of each column, the largest first. All are [n]; difference: chosen - rejected length; moved:
    the end's reward margin, NaN where there is none; noisy: what the filter calls so, None without scores."""
    import polars as pl

    pairs = pl.DataFrame({"difference": difference, "flagged": flagged, "moved": moved, "noisy": noisy})
    unequal, scored = pl.col("difference") != 0, pl.col("moved").is_finite()
    rows = []
    for column, values in columns.items():
        counted = (
            pairs.with_columns(value=pl.Series(values))
            .group_by("value")
            .agg(
                pairs=pl.len(),
                unequal=unequal.sum(),
                scored=scored.sum(),
                length_bias=(pl.col("difference").filter(unequal) > 0).mean(),
                flagged=pl.col("flagged").mean(),
                against=(pl.col("moved").filter(scored) < 0).mean(),
                noisy=pl.col("noisy").filter(scored).cast(float).mean(),
            )
            .sort("pairs", "value", descending=[True, False])
            .with_columns(pl.col(pl.Float64).fill_null(math.nan))
        )
        rows += [SliceRow(column, **row) for row in counted.iter_rows(named=True)]
    return tuple(rows)


def longer_wins(difference: np.ndarray) -> float:
    """Of the pairs whose answers differ in length, the share in which the chosen one is longer; NaN without any."""
    return win_rate(difference[difference != 0].astype(float))
