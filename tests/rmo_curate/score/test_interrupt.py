"""Ctrl-C: exit code 130, one line that says what is kept and how to go on, and the same command does go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmo_curate.score import pairs_stage, states
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_train.store import tables
from rmo_train.training import loop
from tests.command_line import curate
from tests.manifests import manifest_of
from tests.rmo_curate.scored import demo_records, write_jsonl


def stop_at(monkeypatch, owner, name: str, call: int) -> None:
    """A Ctrl-C in place of the given call (1 is the first) of `owner.name`."""
    real, seen = getattr(owner, name), []

    def stopping(*args, **kwargs):
        seen.append(1)
        if len(seen) == call:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, stopping)


@pytest.fixture
def data(tmp_path) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", demo_records(16))


@pytest.mark.parametrize(
    ("where", "call", "kept"),
    [
        ("pairs", 3, "2 parts of pairs"),
        ("pairs", 1, "nothing yet"),
        ("score", 2, "pairs, 1 part of scores/base"),
        ("score", 6, "pairs, scores/base, 1 part of scores/oof-1, 2 proxy models"),
        ("train", 2, "pairs, scores/base, 1 proxy model"),
        ("states", 2, "pairs, 1 part of states, 2 parts of scores/base"),
    ],
)
def test_what_is_kept_is_said(data, tiny_model_folder, tmp_path, monkeypatch, where, call, kept):
    run = tmp_path / "run"
    command = ("score", data, "--model", tiny_model_folder, "--out", run, "--part-size", 4, "--dtype", "float32")
    command += () if where == "states" else ("--proxy", "lora")
    with monkeypatch.context() as patch:
        if where == "pairs":
            stop_at(patch, pairs_stage.PartWriter, "write", call)
        elif where == "score":
            stop_at(patch, TransformersEngine, "score", call)
        elif where == "states":
            stop_at(patch, states.StateWriter, "write", call)
        else:
            stop_at(patch, loop, "train", call)
        stopped = curate(*command)
    assert stopped.code == 130 and "Traceback" not in stopped.err and "error:" not in stopped.err
    last = stopped.err.splitlines()[-1]
    assert last == f"stopped; kept in {run}: {kept}. Run the same command again to resume"
    again = curate(*command)
    end = "oof-probe" if where == "states" else "oof-1"
    assert again.code == 0 and (manifest_of(run) or {})["checkpoints"][-1]["name"] == end

    with monkeypatch.context() as patch:
        stop_at(patch, tables, "write_table", 1)
        stopped = curate("filter", run, "--out", tmp_path / "shards")
    assert stopped.code == 130 and "Run the same command again" in stopped.err.splitlines()[-1]
    assert not list(tmp_path.glob("*shards*"))
    assert curate("filter", run, "--out", tmp_path / "shards").code == 0
