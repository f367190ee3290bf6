"""Rows of different lengths in one array are those that went in, however they came."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rmo_train.data.ragged import Ragged

lists = st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=8)


def rows_of(ragged: Ragged) -> list[list[int]]:
    return [ragged[i].tolist() for i in range(len(ragged))]


@given(lists)
def test_rows_are_those_that_went_in(rows):
    ragged = Ragged.from_rows([np.array(row, dtype=np.int32) for row in rows])
    assert rows_of(ragged) == rows and ragged.lengths.tolist() == [len(row) for row in rows]
    assert ragged.values.dtype == np.int32 and ragged.offsets.dtype == np.int64


@given(lists, st.integers(0, 8))
def test_a_column_in_chunks_is_read_as_one(rows, cut):
    whole = pa.array([[7], *rows], pa.list_(pa.int32()))[1:]  # an offset into its buffers
    for column in (pa.chunked_array([whole[:cut], whole[cut:]]), pa.chunked_array([], whole.type)):
        ragged = Ragged.from_arrow(column)
        assert rows_of(ragged) == column.to_pylist() and ragged.values.dtype == np.int32


@given(lists.filter(len), st.data())
def test_taken_rows_are_copies_in_the_order_asked_for(rows, data):
    ragged = Ragged.from_lengths(np.concatenate(rows).astype(np.uint64), [len(row) for row in rows])
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8))
    taken = ragged.take(np.array(wanted, dtype=np.int64))
    assert rows_of(taken) == [rows[i] for i in wanted] and taken.values.dtype == np.uint64
    assert not np.shares_memory(taken.values, ragged.values)
