"""A folder that nothing may be written to: every command says so before its work, in one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.command_line import curate, train
from tests.disks import mounted


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    folder = tmp_path_factory.mktemp("read-only")
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    with mounted(folder, "ro"):  # root may write to any folder of a disk that can be written to
        yield folder


def test_each_command_says_it_and_nothing_is_computed(
    read_only, full_run, demo_data, tiny_model_folder, tmp_path, monkeypatch
):
    shards, adapter, model = tmp_path / "shards", tmp_path / "adapter", tiny_model_folder
    assert curate("filter", full_run, "--out", shards, "--rule", "none").code == 0
    line = ("--model", model, "--learning-rate", 1e-3, "--max-steps", 1)
    assert train("run", shards, *line, "--lora", 2, "--out", adapter).code == 0
    results = tmp_path / "eval.json"
    assert train("eval", full_run, "--model", adapter, "--out", results).code == 0
    monkeypatch.setattr("rmo_train.evaluation.evaluate.evaluate", None)
    monkeypatch.setattr("rmo_train.generation.command.answer", None)
    monkeypatch.setattr("rmo_train.training.command.build_job", None)
    out = read_only / "made"
    for outcome in (
        curate("inspect", demo_data, "--to", f"{out}.jsonl"),
        curate("score", demo_data, "--model", model, "--out", out),
        curate("filter", full_run, "--out", out, "--rule", "none"),
        curate("audit", demo_data, "--out", out),
        curate("audit", full_run, "--out", out),
        curate("export", shards, "--to", "trl", "--out", out),
        train("run", shards, *line, "--out", out),
        train("eval", full_run, "--model", adapter, "--out", out),
        train("compare", results, results, "--json", out),
        train("generate", shards, "--model", model, "--out", out),
        train("merge", adapter, "--out", out),
    ):
        assert outcome.code in (2, 3) and "Traceback" not in outcome.err, outcome
        (error,) = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
        assert str(out) in error and ("Read-only" in error or "Permission denied" in error), error
    assert not Path(read_only).exists() or not list(read_only.iterdir())
