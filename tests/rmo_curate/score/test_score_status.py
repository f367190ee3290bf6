"""Dry runs and status of the scoring job: what would be done, what is done and what is left."""

from __future__ import annotations

import re

import pytest

from rmo_curate.score.command import run_proxy
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.run_folder import run_status
from rmo_train.data.pairs import open_pairs
from tests.rmo_curate.scored import (
    PROXY,
    Killed,
    marks,
    score,
)


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(demo_data, tiny_model_folder, tmp_path, nothing_computed):
    lines = score(demo_data, tiny_model_folder, tmp_path / "run", proxy=PROXY, dry_run=True)
    assert not (tmp_path / "run").exists()
    said = "\n".join(lines)
    score_tokens = re.search(r"16 records, 16 pairs, about ([\d,]+) tokens per pass", said)
    assert score_tokens and "GiB), transformers engine, float32" in said
    assert "2 forward passes over the data" in said and "2 proxies to train, about 2 steps each" in said


def test_the_dry_run_of_a_proxy_names_its_family(full_run):
    before = marks(full_run)
    (line,) = run_proxy(full_run, PROXY.model_copy(update={"seed": 7, "steps": (1,)}), dry_run=True)
    assert re.match(
        r"would train 2 proxies, 2 steps of 4 pairs each, and score steps \[1, 2\] as oof-[0-9a-f]{8}", line
    )
    assert marks(full_run) == before


def test_a_dry_run_says_what_a_folder_has_already(demo_data, tiny_model_folder, full_run, tmp_path):
    (line,) = [x for x in score(demo_data, tiny_model_folder, full_run, proxy=PROXY, dry_run=True) if "again" in x]
    assert line.startswith(f"{full_run} has the scores of base, oof-") and line.endswith("they are not computed again")
    assert not any("again" in x for x in score(demo_data, tiny_model_folder, tmp_path / "run", dry_run=True))


def test_the_tokens_of_a_dry_run_are_those_of_the_run(demo_data, tiny_model_folder, full_run, tmp_path):
    lines = score(demo_data, tiny_model_folder, tmp_path / "run", dry_run=True)
    pairs = open_pairs(full_run)
    tokens = int(sum(r.lengths.sum() for r in (pairs.prompt, pairs.chosen, pairs.rejected)))
    assert lines[0] == f"16 records, 16 pairs, about {tokens:,} tokens per pass"


def test_status_says_what_is_done_and_what_is_left(demo_data, tiny_model_folder, full_run, tmp_path, monkeypatch):
    assert run_status(full_run) == [
        "pairs: done, 16 rows",
        "rejects: done, 0 rows",
        "proxies/oof: done",
        "scores/base: done, 16 pairs",
        "scores/oof-2: done, 16 pairs",
        "nothing is left",
    ]

    def killed(*args):
        raise Killed

    run = tmp_path / "run"
    monkeypatch.setattr(TransformersEngine, "score", killed)
    with pytest.raises(Killed):
        score(demo_data, tiny_model_folder, run, proxy=PROXY)
    assert run_status(run)[2:] == [
        "proxies/oof: not finished (0 of 2 models)",
        "scores/base: not finished (0 parts)",
        "scores/oof-2: not finished (0 parts)",
        "to resume, run the same command again",
    ]
