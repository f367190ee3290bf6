"""Shards made again in the same folder are what `load_dataset` gives, though it keeps what it has read before."""

from __future__ import annotations

import pytest

from rmo_curate.filter.command import FilterSettings, run_filter
from rmo_train.store import tables
from tests.manifests import parts_of

D_0 = [1.0, 2.0, -1.0, 3.0, -2.0, 0.0]
D_T = [9.0, 8.0, -5.0, 1.0, -3.0, 0.5]


def rows_of(loaded) -> list[tuple[str, float | None]]:
    return list(zip(loaded["id"], loaded["suspicion"], strict=True))


@pytest.mark.parametrize("part", ["default", "dropped"])
def test_load_dataset_gives_the_shards_that_are_there_now(make_run, tmp_path, part):
    from datasets import load_dataset

    run, out = make_run({"base": D_0, "oof-16": D_T}), tmp_path / "shards"
    seen = []
    for settings in (FilterSettings(low_q=0.3, hard=True), FilterSettings(low_q=0.3, hard=True, rule="irm-ln")):
        run_filter(run, out, settings, overwrite=True)
        loaded = load_dataset(str(out), part, split="train", cache_dir=str(tmp_path / "cache"))
        there = parts_of(out, None if part == "default" else "dropped")
        assert rows_of(loaded) == rows_of(tables.read_table(out, there, tables.PAIR_SCHEMA).to_pydict())
        seen.append(rows_of(loaded))
    assert seen[0] != seen[1]


def test_the_same_shards_have_the_same_card(make_run, tmp_path):
    run = make_run({"base": D_0, "oof-16": D_T})
    for name in ("a", "b"):
        run_filter(run, tmp_path / name, FilterSettings())
    assert (tmp_path / "a" / "README.md").read_bytes() == (tmp_path / "b" / "README.md").read_bytes()
