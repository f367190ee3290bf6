"""Data in memory are read as the same data in a file: the same pairs, ids, columns and rejects."""

from __future__ import annotations

import datetime
import json
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pytest

from rmo_curate.read.memory import IN_MEMORY, given
from rmo_curate.read.sources import Pair, Reject, open_source
from rmo_train.console.errors import UserError
from tests.rmo_curate.read.reading import jsonl
from tests.rmo_curate.scored import demo_records, record

KINDS = {
    "list": list,
    "polars": pl.DataFrame,
    "pandas": pd.DataFrame,
    "arrow": lambda rows: pl.DataFrame(rows).to_arrow(),
    "dataset": datasets.Dataset.from_list,
    "selected": lambda rows: datasets.Dataset.from_list([*rows[::-1], rows[0]]).select(range(len(rows) - 1, -1, -1)),
}


def contents(records: list[Pair | Reject]) -> list[tuple[Any, ...]]:
    """Records without the name of where they are from."""
    return [
        (r.id, r.prompt, r.chosen, r.rejected, r.tools, r.extra, r.line)
        if isinstance(r, Pair)
        else (r.line, r.reason, r.detail)
        for r in records
    ]


def rows() -> list[dict[str, Any]]:
    """Demo pairs with two more columns, one of which is not always there, and a record that is no pair."""
    made = [r | {"score": i / 4, "note": "seen" if i % 2 else None} for i, r in enumerate(demo_records(6))]
    return [*made, made[0] | {"id": "same", "rejected": made[0]["chosen"]}]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_gives_the_records_of_the_file(kind, tmp_path):
    of_file = open_source([jsonl(tmp_path / "a.jsonl", *rows())])
    source = open_source(given(KINDS[kind](rows())))
    assert contents(list(source.records())) == contents(list(of_file.records()))
    assert contents(list(source.records())) == contents(list(source.records()))
    assert (source.counts, source.extra_fields()) == (of_file.counts, of_file.extra_fields())
    assert {r.source for r in source.records()} == {IN_MEMORY}


def test_the_same_content_is_the_same_data_whatever_holds_it():
    identities = {open_source(given(make(rows()))).inputs for make in KINDS.values()}
    assert len(identities) == 1
    (other,) = open_source(given(rows()[:-1])).inputs
    assert other.sha256 not in {i.sha256 for (i,) in identities}


def test_what_json_has_no_word_for_is_read_as_from_a_parquet_file(tmp_path):
    day, number = datetime.date(2026, 11, 27), np.float32(0.5)
    (pair,) = open_source(given([record(0, day=day, number=number, several=(1, 2))])).records()
    frame = pl.DataFrame([record(0, day=day, number=0.5, several=[1, 2])])
    frame.write_parquet(tmp_path / "a.parquet")
    (expected,) = open_source([str(tmp_path / "a.parquet")]).records()
    assert isinstance(pair, Pair) and isinstance(expected, Pair)
    assert pair.extra == expected.extra == {"day": "2026-11-27", "number": 0.5, "several": "[1,2]"}


def test_paths_stay_paths(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", record(0))
    assert given(path) == given(tmp_path / "a.jsonl") == given([tmp_path / "a.jsonl"]) == [path]
    assert given((path, "hf:owner/name")) == [path, "hf:owner/name"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3, "type int; expected paths, a list of dicts"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list([record(0)])), "DatasetDict.*one of its splits"),
        (pl.LazyFrame([record(0)]), "LazyFrame.*collect it first"),
        ((record(i) for i in range(2)), "generator.*make a list of it"),
        ([], "no records"),
        ([record(0), record(1, own=object())], f"{IN_MEMORY}:2: found a value of type object"),
        (
            pd.DataFrame([record(0, own=1), record(1, own="one")]),
            "DataFrame cannot be converted to Arrow.*list of dicts",
        ),
        ([json.dumps(record(0)), record(1, chosen=" ")], "not one usable pair in 2 records"),
    ],
)
def test_what_cannot_be_read_is_said_with_what_can(data, said):
    with pytest.raises(UserError, match=f"(?s){said}"):
        open_source(given(data))
