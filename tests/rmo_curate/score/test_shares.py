"""`score --shard i/n`: processes that know nothing of each other make the run that one process makes."""

from __future__ import annotations

import pytest

from rmo_curate.score.scoring import Assignment, ScoreStage, score_share, score_stage
from rmo_curate.score.shares import Share
from tests.command_line import curate
from tests.manifests import manifest_of
from tests.rmo_curate.score.test_scoring import PAIRS, FakeSpec
from tests.rmo_curate.scored import demo_records, write_jsonl


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("data") / "train.jsonl", demo_records(24))


def command(data, model, run, *more):
    return curate("score", data, "--model", model, "--out", run, "--dtype", "float32", "--part-size", "4", *more)


def parts(run, stage):
    return [(p["file"], p["rows"], p["sha256"]) for p in manifest_of(run / stage)["parts"]]


def test_shares_in_any_order_make_the_run_of_one_process(data, tiny_model_folder, tmp_path):
    assert command(data, tiny_model_folder, tmp_path / "one").code == 0
    run = tmp_path / "run"
    assert "pairs prepared: 24;" in command(data, tiny_model_folder, run, "--shard", "0/3").out
    for share, done in (("3/3", 2), ("1/3", 2)):
        assert f"{done} parts done" in command(data, tiny_model_folder, run, "--shard", share).out
    said = curate("status", run).out
    assert "--shard 1/3: 2 parts of scores, not running" in said and "scores/base: not finished (0 parts)" in said
    last = command(data, tiny_model_folder, run)  # has the parts of 2/3 to compute itself
    assert last.code == 0 and "resuming after 4 finished parts" in last.err and "next: rmo-curate audit" in last.out
    for stage in ("scores/base", "scores/oof-probe", "states"):
        assert parts(run, stage) == parts(tmp_path / "one", stage)
    assert not (run / "shares").exists()


def test_a_share_of_a_run_without_pairs_says_what_makes_them(data, tiny_model_folder, tmp_path):
    asked = command(data, tiny_model_folder, tmp_path / "run", "--shard", "1/2")
    assert asked.refused("has no pairs yet", "--shard 0/2")


@pytest.mark.parametrize("text", ["3/2", "x", "1/0", "-1/2", "1"])
def test_what_is_no_share_is_refused(data, tiny_model_folder, tmp_path, text):
    assert command(data, tiny_model_folder, tmp_path / "run", f"--shard={text}").refused("--shard", "expected i/n")


def test_a_share_and_workers_are_two_ways(data, tiny_model_folder, tmp_path):
    asked = command(data, tiny_model_folder, tmp_path / "run", "--shard", "1/2", "--workers", "2")
    assert asked.refused("--workers and --ray start their own")


def test_a_damaged_part_of_a_share_is_computed_again(tmp_path):
    asked: list = []
    stage = ScoreStage("base", {"weights": "x"}, "base", 0, [Assignment("m0", PAIRS.spread(6))])

    def spec(model):
        return FakeSpec(model, asked)

    for number in (1, 2):
        assert score_share(tmp_path, Share(number, 2), PAIRS, stage, spec, 2, None) in (1, 2)
    before = len(asked)
    damaged = next((tmp_path / "shares/1-of-2/scores/base").glob("part-*.parquet"))
    damaged.write_bytes(b"no parquet")
    score_stage(tmp_path, PAIRS, stage, spec, 2)
    assert len(asked) == before + 1


def test_every_part_belongs_to_one_share():
    for n in (1, 2, 5):
        owners = [[s.number for s in (Share(i, n) for i in range(1, n + 1)) if s.has(part)] for part in range(20)]
        assert all(len(found) == 1 for found in owners)
