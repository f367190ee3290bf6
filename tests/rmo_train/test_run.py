"""Training end to end on a tiny model: losses, resume, checkpoints, evaluation, and every refusal before step 0."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rmo_train import loop
from rmo_train.checkpoint import newest_checkpoint, read_metrics
from rmo_train.config import TrainSettings
from rmo_train.errors import ProcessingError, UserError
from rmo_train.pairs import open_pairs
from rmo_train.plan import make_plan
from rmo_train.policy import load_model
from rmo_train.run import run_eval, run_training
from rmo_train.tables import read_json, write_json

QUICK = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
}


def weights(folder: Path) -> torch.Tensor:
    model = load_model(str(folder), "float32")
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_dpo_starts_at_ln_2_and_learns(shards: Path, tiny_model_folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK, amplify=0, diversify=False))
    lines = read_metrics(out)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert lines[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["loss"] < lines[0]["loss"]
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
        "trainer_state.json",
        "manifest.json",
    ):
        assert (out / name).is_file(), name


@pytest.mark.parametrize("loss", ["dpo", "simpo", "ipo", "orpo", "hinge", "cdpo", "rdpo"])
def test_every_loss_trains(loss: str, shards: Path, tiny_model_folder: Path, tmp_path: Path):
    smoothing = {"label_smoothing": 0.1} if loss in ("cdpo", "rdpo") else {}
    settings = TrainSettings(**QUICK, loss=loss, max_steps=3, **smoothing)
    run_training(shards, str(tiny_model_folder), tmp_path / "out", settings)
    assert all(np.isfinite(line["loss"]) for line in read_metrics(tmp_path / "out"))


def test_accumulation_does_not_change_the_losses(shards: Path, tiny_model_folder: Path, tmp_path: Path):
    curves = []
    for name, device, steps in (("8x1", 8, 1), ("1x8", 1, 8)):
        settings = TrainSettings(
            per_device_train_batch_size=device,
            gradient_accumulation_steps=steps,
            learning_rate=1e-3,
            tokens_per_batch=64,
        )
        run_training(shards, str(tiny_model_folder), tmp_path / name, settings)
        curves.append([line["loss"] for line in read_metrics(tmp_path / name)])
    assert curves[0] == curves[1]


def test_packing_does_not_change_the_losses(shards: Path, tiny_model_folder: Path, tmp_path: Path):
    curves = []
    for budget in (24, 512):
        settings = TrainSettings(**QUICK, tokens_per_batch=budget, max_steps=4)
        run_training(shards, str(tiny_model_folder), tmp_path / str(budget), settings)
        curves.append([line["loss"] for line in read_metrics(tmp_path / str(budget))])
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-5)


@pytest.mark.parametrize("lora", [None, 4])
@pytest.mark.parametrize("bf16", [False, True])
def test_kill_and_resume_equals_the_uninterrupted_run(
    lora: int | None, bf16: bool, shards: Path, tiny_model_folder: Path, tmp_path: Path, monkeypatch
):
    settings = TrainSettings(**QUICK, lora=lora, bf16=bf16, save_steps=3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_training(shards, str(tiny_model_folder), whole, settings)

    calls = 0

    def dying(*arguments):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return original(*arguments)

    original = loop.batch_metrics
    monkeypatch.setattr(loop, "batch_metrics", dying)
    with pytest.raises(KeyboardInterrupt):
        run_training(shards, str(tiny_model_folder), killed, settings)
    monkeypatch.setattr(loop, "batch_metrics", original)
    assert not (killed / "manifest.json").exists()
    run_training(shards, str(tiny_model_folder), killed, settings)

    def exact(out: Path) -> list[dict]:
        clocks = ("pairs_per_second", "num_tokens")
        return [{k: v for k, v in line.items() if k not in clocks} for line in read_metrics(out)]

    assert exact(whole) == exact(killed)  # to the last bit, no step twice
    assert torch.equal(weights(whole), weights(killed))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    shards: Path, tiny_model_folder: Path, tmp_path: Path, capsys
):
    out = tmp_path / "out"
    run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK, save_steps=3))
    (out / "checkpoint-9" / "training.pt").write_bytes(b"cut")
    assert newest_checkpoint(out) == out / "checkpoint-6"
    assert "training.pt is damaged" in capsys.readouterr().err


def test_only_the_newest_checkpoints_stay(shards: Path, tiny_model_folder: Path, tmp_path: Path):
    settings = TrainSettings(**QUICK, save_steps=2, save_total_limit=2)
    run_training(shards, str(tiny_model_folder), tmp_path / "out", settings)
    assert sorted(p.name for p in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-8"]


def test_a_finished_run_is_not_trained_again_and_other_settings_are_refused(
    shards: Path, tiny_model_folder: Path, tmp_path: Path
):
    out = tmp_path / "out"
    run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK, max_steps=2))
    before = (out / "model.safetensors").stat().st_mtime_ns
    lines = run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK, max_steps=2))
    assert "nothing to do" in lines[0]
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"beta: the folder has None, you asked for 0\.3"):
        run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK, max_steps=2, beta=0.3))


def test_weights_of_zero_leave_pairs_out(make_shards, tiny_model_folder: Path, tmp_path: Path):
    n = 8
    weight = np.array([1.0, 0.0] * (n // 2))
    folder = make_shards(tmp_path / "shards", n, weight=weight, margins=[[0.0, 0.0]] * n)
    settings = TrainSettings(per_device_train_batch_size=8, gradient_accumulation_steps=1, amplify=0, diversify=False)
    data = open_pairs(folder)
    assert data.weight.tolist() == weight.tolist()
    run_training(folder, str(tiny_model_folder), tmp_path / "out", settings)
    assert read_metrics(tmp_path / "out")[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_without_a_trajectory_end_both_parts_turn_off_and_say_so(make_shards, tiny_model_folder, tmp_path):
    data = open_pairs(make_shards(tmp_path / "shards", end=False))
    plan = make_plan(data, TrainSettings(**QUICK))
    assert plan.amplifier is None
    assert plan.margins is None
    assert len(plan.notes) == 2
    for asked in ({"diversify": True}, {"amplify": 0.25}):
        with pytest.raises(UserError, match="trajectory end"):
            make_plan(data, TrainSettings(**QUICK, **asked))
    assert make_plan(data, TrainSettings(**QUICK, amplify_preset="authors")).amplifier.scale == 125


def test_evaluation_of_the_reference_is_half_and_reads_its_columns(shards: Path, tiny_model_folder: Path, capsys):
    result = run_eval(shards, str(tiny_model_folder))
    assert result.reward_accuracy.value == 0.5
    assert "nothing is computed" in capsys.readouterr().err


def test_evaluation_of_a_trained_model_counts_its_overlap(shards, make_shards, tiny_model_folder, tmp_path):
    held_out = make_shards(tmp_path / "heldout", 12, start=1000)
    out = tmp_path / "out"
    run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK), eval_data=held_out)
    measured = read_json(out / "eval_results.json")
    assert (measured["n"], measured["overlap_pairs"]) == (12, 0)
    again = run_eval(shards, str(out))
    assert (again.overlap_pairs, again.overlap_prompts) == (24, 24)
    assert again.reward_accuracy.value > 0.6  # it was trained on them


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "dop"}, "did you mean 'dpo'"),
        ({"per_device_train_batch_size": 40}, "larger than the data"),
    ],
)
def test_settings_that_cannot_train_are_refused(settings, message, shards, tiny_model_folder, tmp_path):
    with pytest.raises(UserError, match=message):
        run_training(shards, str(tiny_model_folder), tmp_path / "out", TrainSettings(**settings))
    assert not (tmp_path / "out").exists()


def test_a_preset_with_the_flags_it_sets_is_refused():
    with pytest.raises(ValueError, match="leave out --amplify"):
        TrainSettings(amplify_preset="authors", amplify=0.5)


def test_eval_data_that_overlaps_is_refused(shards, tiny_model_folder, tmp_path):
    with pytest.raises(UserError, match="shares 24 ids and 24 prompts"):
        run_training(shards, str(tiny_model_folder), tmp_path / "out", TrainSettings(**QUICK), eval_data=shards)


def test_another_model_is_refused_by_the_name_of_the_field(shards, tmp_path):
    from tests.tiny import write_tiny_model

    other = write_tiny_model(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match=r"weights: .*--ignore-identity"):
        run_training(shards, str(other), tmp_path / "out", TrainSettings(**QUICK))


def test_step_zero_stops_on_columns_of_another_model(make_shards, tiny_model_folder, tmp_path):
    folder = make_shards(tmp_path / "shards", ref_chosen_logps=np.full(24, -3.0))
    with pytest.raises(UserError, match=r"step 0: .*Likely reasons"):
        run_training(folder, str(tiny_model_folder), tmp_path / "out", TrainSettings(**QUICK))


def test_a_reference_logp_that_is_no_number_is_named(make_shards, tmp_path):
    broken = np.full(24, -3.0)
    broken[5] = np.nan
    with pytest.raises(UserError, match="pair-5 has ref_chosen_logps = nan"):
        open_pairs(make_shards(tmp_path / "shards", ref_chosen_logps=broken))


def test_shards_of_another_schema_version_are_refused(make_shards, tmp_path):
    folder = make_shards(tmp_path / "shards")
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"schema_version": 99})
    with pytest.raises(UserError, match="schema version 99"):
        open_pairs(folder)


def test_a_damaged_shard_is_refused(make_shards, tmp_path):
    folder = make_shards(tmp_path / "shards")
    part = folder / "data" / "train-00000-of-00001.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(UserError, match="bytes are not those"):
        open_pairs(folder)


def test_a_loss_that_is_not_finite_stops_before_the_update(shards, tiny_model_folder, tmp_path):
    exploding = TrainSettings(**QUICK | {"learning_rate": 1e30})
    with pytest.raises(ProcessingError, match="not finite, weights not updated"):
        run_training(shards, str(tiny_model_folder), tmp_path / "out", exploding)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(("column", "value"), [("weight", np.inf), ("weight", -1.0), ("label_confidence", 1.5)])
def test_a_weight_or_confidence_out_of_range_is_named(column, value, make_shards, tmp_path):
    values = np.ones(24)
    values[7] = value
    with pytest.raises(UserError, match=f"pair-7 has {column} = {value}"):
        open_pairs(make_shards(tmp_path / "shards", **{column: values}))


def test_a_folder_that_is_no_training_run_is_left_alone(shards, tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="no training run"):
        run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK))
    assert (out / "thesis.txt").read_text() == "mine"


def test_dry_run_writes_nothing(shards, tiny_model_folder, tmp_path):
    lines = run_training(shards, str(tiny_model_folder), tmp_path / "out", TrainSettings(**QUICK), dry_run=True)
    assert any("12 steps of 4 pairs" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_other_data_is_refused(shards, make_shards, tiny_model_folder, tmp_path):
    settings = TrainSettings(**QUICK, save_steps=3)
    run_training(shards, str(tiny_model_folder), tmp_path / "a", settings)
    other = make_shards(tmp_path / "other", start=500)
    shutil.rmtree(tmp_path / "b", ignore_errors=True)
    with pytest.raises(UserError, match="data: the folder has"):
        run_training(
            other,
            str(tiny_model_folder),
            tmp_path / "b",
            settings,
            resume_from_checkpoint=tmp_path / "a" / "checkpoint-3",
        )


def test_metrics_are_valid_json_lines(shards, tiny_model_folder, tmp_path):
    run_training(shards, str(tiny_model_folder), tmp_path / "out", TrainSettings(**QUICK, max_steps=2, logging_steps=2))
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2]
