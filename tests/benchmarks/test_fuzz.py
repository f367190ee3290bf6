"""The fuzz in short, with the same cases each time; and that it finds what it is for."""

from __future__ import annotations

import dataclasses
import time

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_files import Made, lines_of
from rmo_curate.read.sources import Source
from tests.rmo_curate.scored import record

EXAMPLES = {"reading": 60, "rendering": 15, "audits": 4, "filter": 5, "damage": 2}
THREE = Made("data.jsonl", lines_of([record(i) for i in range(3)]), 3, {})


@pytest.fixture(autouse=True)
def kept_here(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "FAILURES", tmp_path / "failures")


@pytest.mark.parametrize("name", list(fuzz.AREAS))
def test_nothing_that_is_drawn_breaks_a_promise(name, tmp_path):
    found = fuzz.round_of(name, 0, fuzz.SEED, tmp_path / "case", EXAMPLES[name], lambda case: None)
    assert found["failure"] is None, (found["failure"], list((tmp_path / "failures").iterdir()))
    assert found["cases"] >= EXAMPLES[name]


def test_a_lost_record_is_found_kept_and_found_again(tmp_path, monkeypatch):
    real = Source.records
    monkeypatch.setattr(Source, "records", lambda source: (r for r in real(source) if r.line != 2))
    found = fuzz.round_of("reading", 0, fuzz.SEED, tmp_path / "case", 40, lambda case: None)
    assert "neither a pair nor a reject" in found["failure"]["said"]
    (place,) = (tmp_path / "failures").iterdir()
    assert sorted(p.name for p in place.iterdir())[:2] == ["case.pickle", "data.jsonl"]
    with pytest.raises(AssertionError, match="neither a pair nor a reject"):
        fuzz.repeat(place)


def test_a_count_that_is_wrong_a_hang_and_much_memory_are_failures(tmp_path, monkeypatch):
    area = fuzz.AREAS["reading"]
    assert fuzz.tried(area, tmp_path / "case", THREE).records == 3
    with pytest.raises(AssertionError, match="4 records went in, 3 came out"):
        fuzz.tried(area, tmp_path / "case", dataclasses.replace(THREE, records=4))
    monkeypatch.setattr(fuzz, "HANG", 1)
    with pytest.raises(fuzz.Hang):
        fuzz.tried(dataclasses.replace(area, check=lambda folder, case: time.sleep(30)), tmp_path / "case", THREE)
    monkeypatch.setattr(fuzz, "HANG", 60)
    peaks = iter([1, 3 * 2**30, 3 * 2**30])
    monkeypatch.setattr(fuzz, "peak_bytes", lambda: next(peaks))
    with pytest.raises(fuzz.Greedy, match=r"3\.00 GiB"):
        fuzz.tried(area, tmp_path / "case", THREE)
