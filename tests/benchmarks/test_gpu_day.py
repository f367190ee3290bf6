"""The script for a GPU's quarter of an hour, on tiny shapes: every step works, none is run twice or stops the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu_checks, gpu_day
from benchmarks.gpu_day import STEPS, Step, prepared, run_day
from rmo_train.store.files import read_json
from tests.command_line import curate, train


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("day"), None, tiny=True)


def in_this_process(module: str, arguments: list[str], log: Path) -> float:
    outcome = {"rmo_curate": curate, "rmo_train": train}[module](*arguments)
    assert outcome.code == 0, outcome.err
    return 0.0


def failures(value: object) -> list[object]:
    """Every `failed` and every `ok` that is false, wherever it is; FlashAttention is not there without a GPU."""
    if not isinstance(value, dict):
        return []
    here = [value] if "failed" in value or value.get("ok") is False else []
    return here + [f for name, inner in value.items() if "flash" not in name for f in failures(inner)]


def test_every_step_writes_its_figures_and_none_runs_twice(day, monkeypatch):
    monkeypatch.setattr(gpu_checks, "timed", in_this_process)  # a process a command takes its time to start
    steps = tuple(s for s in STEPS if s.name != "train-trl")  # it needs TRL
    results = run_day(day, steps, 1800)
    assert [r["step"] for r in results] == [s.name for s in steps]
    for result in results:
        assert result["status"] == "finished", result
        assert result["found"] and not failures(result), failures(result)
        assert read_json(day.folder / f"{result['step']}.json") == json.loads(json.dumps(result))
    assert all(step.name in gpu_day.table(results) for step in steps)
    accuracies = results[1]["found"]["accuracies"]
    assert 0 <= accuracies["reward_accuracy"]["value"] <= 1 and accuracies["counts"]["pairs"] == 24

    def never(*given: object) -> None:
        raise AssertionError("a finished step was run again")

    monkeypatch.setattr(gpu_day, "run_step", never)
    assert run_day(day, steps, 1800) == [read_json(day.folder / f"{s.name}.json") for s in steps]


@pytest.mark.real
def test_training_is_measured_beside_trl(day):
    pytest.importorskip("trl")
    [result] = run_day(day, tuple(s for s in STEPS if s.name == "train-trl"), 600)
    assert result["status"] == "finished" and not failures(result), result
    compared = {name: figures for name, figures in result["found"].items() if name.endswith("beside TRL")}
    assert len(compared) == 2  # all weights, and LoRA
    for figures in compared.values():
        ours, trl = (result["found"][figures[who]] for who in ("ours", "trl"))
        assert figures["times_trl"] == ours["pairs_per_second"] / trl["pairs_per_second"] > 0


def test_a_command_runs_where_rmo_is_not_installed(tmp_path):
    assert gpu_checks.timed("rmo_train", ["--help"], tmp_path / "log") > 0
    with pytest.raises(RuntimeError, match=r"(?s)rmo_train eval: exit 2.*error: "):
        gpu_checks.timed("rmo_train", ["eval", str(tmp_path), "--model", str(tmp_path)], tmp_path / "log")


def test_a_step_that_raises_is_recorded_and_the_next_one_runs(day):
    def failing(day, scratch):
        yield "first", {"ok": True}
        raise RuntimeError("no kernel image")

    steps = (Step("failing", 0, 60, failing), Step("next", 0, 60, lambda day, scratch: iter([("part", {"ok": True})])))
    failed, after = run_day(day, steps, 60)
    assert failed["status"] == "failed" and "RuntimeError: no kernel image" in failed["error"]
    assert failed["found"] == {"first": {"ok": True}}  # what was found before it stays
    assert after["status"] == "finished"
    assert "RuntimeError: no kernel image" in gpu_day.table([failed, after])
    again, _ = run_day(day, (Step("failing", 0, 60, steps[1].run), steps[1]), 60)
    assert again["status"] == "finished"  # what failed is tried again


def test_a_step_that_the_time_left_cannot_hold_is_skipped_and_one_that_takes_too_long_is_cut(day):
    def endless(day, scratch):
        while True:
            yield "part", {}

    steps = (
        Step("long", 61, 90, lambda day, scratch: iter(())),
        Step("endless", 0, 0, endless),
        Step("short", 0, 60, lambda day, scratch: iter([("part", {})])),
    )
    assert [r["status"] for r in run_day(day, steps, 60)] == ["skipped", "cut", "finished"]
