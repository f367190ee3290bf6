"""Rows of different lengths in one flat array: token ids of pairs, hashed words of texts, the members of groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike


@dataclass(frozen=True)
class Ragged:
    """n rows; `ragged[i]` is a view."""

    values: np.ndarray  # [total]
    offsets: np.ndarray  # int64 [n + 1]: row i is values[offsets[i] : offsets[i + 1]]

    @classmethod
    def from_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """`values` cut into rows of these lengths."""
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    @classmethod
    def from_arrow(cls, column: pa.ChunkedArray) -> Ragged:
        """A column of lists, none of them null."""
        nothing = np.zeros(0, dtype=column.type.value_type.to_pandas_dtype())
        values = np.concatenate([nothing, *(c.flatten().to_numpy() for c in column.chunks)])
        lengths = [np.diff(c.offsets.to_numpy()) for c in column.chunks]
        return cls.from_lengths(values, np.concatenate([np.zeros(0, dtype=np.int64), *lengths]))

    @classmethod
    def from_rows(cls, rows: Sequence[np.ndarray], dtype: DTypeLike = np.int32) -> Ragged:
        return cls.from_lengths(
            np.concatenate([np.zeros(0, dtype=dtype), *rows], dtype=dtype),
            np.array([len(row) for row in rows], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    @property
    def lengths(self) -> np.ndarray:
        """Of each row: int64 [n]."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """The rows of these numbers, copied, in their order."""
        rows = np.asarray(rows, dtype=np.int64)
        starts = self.offsets[rows]
        taken = Ragged.from_lengths(self.values, self.offsets[rows + 1] - starts)
        at = np.arange(taken.offsets[-1]) + np.repeat(starts - taken.offsets[:-1], taken.lengths)
        return Ragged(self.values[at], taken.offsets)
