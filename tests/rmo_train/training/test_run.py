"""Training end to end on a tiny model: losses, resume, checkpoints, evaluation, and every refusal before step 0."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rmo_train.console.errors import UserError
from rmo_train.data.pairs import open_pairs
from rmo_train.model.policy import load_model
from rmo_train.report import plan_lines
from rmo_train.store.files import read_json
from rmo_train.training.command import run_eval, run_training
from rmo_train.training.plan import make_plan
from rmo_train.training.record import read_metrics
from rmo_train.training.settings import TrainSettings

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
def test_every_loss_falls_on_the_pairs_that_it_is_trained_on(
    loss: str, shards: Path, tiny_model_folder: Path, tmp_path: Path
):
    smoothing = {"label_smoothing": 0.1} if loss in ("cdpo", "rdpo") else {}
    settings = TrainSettings(
        per_device_train_batch_size=24, gradient_accumulation_steps=1, learning_rate=1e-3, max_steps=4, warmup_ratio=0,
        amplify=0, diversify=False, loss=loss, **smoothing,
    )  # fmt: skip
    run_training(shards, str(tiny_model_folder), tmp_path / "out", settings)
    losses = [line["loss"] for line in read_metrics(tmp_path / "out")]  # every step of all 24 pairs
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_packing_does_not_change_the_losses(shards: Path, tiny_model_folder: Path, tmp_path: Path):
    curves = []
    for budget in (24, 512):
        settings = TrainSettings(**QUICK, tokens_per_batch=budget, max_steps=4)
        run_training(shards, str(tiny_model_folder), tmp_path / str(budget), settings)
        curves.append([line["loss"] for line in read_metrics(tmp_path / str(budget))])
    np.testing.assert_allclose(curves[0], curves[1], atol=1e-5)


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


def test_labels_are_softened_as_the_filter_decided_or_as_told(make_shards, tiny_model_folder: Path, tmp_path: Path):
    confidence = np.linspace(0.5, 1, 24)
    plain = make_shards(tmp_path / "plain", label_confidence=confidence)
    soft = make_shards(tmp_path / "soft", label_confidence=confidence, softness=1.0)
    half = make_shards(tmp_path / "half", label_confidence=confidence, softness=0.5)

    def said(shards: Path, wanted: bool | None = None, what: str = "labels: ") -> str | None:
        settings = TrainSettings(**QUICK, soft_labels=wanted)
        lines = run_training(shards, str(tiny_model_folder), tmp_path / "out", settings, dry_run=True)
        return next((line for line in lines if line.startswith(what)), None)

    assert said(plain, None) == said(soft, False) == "labels: as given"
    assert said(soft, None) == said(plain, True) == "labels: soft, mean confidence 0.750"
    assert said(half, None) == said(half, True) == "labels: soft, mean confidence 0.875"
    assert said(half, False) == "labels: as given"
    weighed = make_shards(tmp_path / "weighed", weight=confidence)
    assert said(weighed, what="weights") == "weights: mean 0.750 a pair" and said(plain, what="weights") is None

    smoothed = TrainSettings(**QUICK, loss="cdpo", label_smoothing=0.2)
    with pytest.raises(UserError, match=r"--label-smoothing 0.2 assumes wrong labels, .* would count twice"):
        make_plan(open_pairs(half).labelled(None), smoothed)
    assert make_plan(open_pairs(half).labelled(False), smoothed).confidence is None

    def losses(shards: Path, wanted: bool | None) -> list[float]:
        out = tmp_path / f"{shards.name}-{wanted}"
        settings = TrainSettings(**QUICK, amplify=0, diversify=False, soft_labels=wanted, max_steps=4)
        run_training(shards, str(tiny_model_folder), out, settings)
        return [line["loss"] for line in read_metrics(out)]

    softened, certain = losses(soft, None), losses(soft, False)
    assert softened == losses(plain, True) and certain == losses(plain, None)
    assert softened[0] == pytest.approx(certain[0], abs=1e-4) and softened != certain  # ln 2 before the first step


def test_the_methods_parts_are_off_unless_asked_for_and_need_a_trajectory_end(make_shards, shards, tmp_path):
    plan = make_plan(open_pairs(shards), TrainSettings(**QUICK))
    assert (plan.amplifier, plan.margins) == (None, None)
    assert {"amplification: off", "diversification: off"} <= set(plan_lines(plan, TrainSettings(**QUICK)))
    both = make_plan(open_pairs(shards), TrainSettings(**QUICK, amplify=0.25, diversify=True))
    assert both.amplifier is not None and both.margins is not None
    data = open_pairs(make_shards(tmp_path / "shards", end=False))
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


def test_dry_run_writes_nothing(shards, tiny_model_folder, tmp_path):
    lines = run_training(shards, str(tiny_model_folder), tmp_path / "out", TrainSettings(**QUICK), dry_run=True)
    assert any("12 steps of 4 pairs" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_dry_run_refuses_a_folder_with_other_files(shards, tiny_model_folder, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not from a training run; choose another folder"):
        run_training(shards, str(tiny_model_folder), tmp_path, TrainSettings(**QUICK), dry_run=True)


@pytest.mark.parametrize(("lora", "rate"), [(None, "1e-05"), (2, "0.0002")])
def test_a_small_model_takes_larger_steps_by_default(shards, tiny_model_folder, tmp_path, lora, rate):
    quick = {k: v for k, v in QUICK.items() if k != "learning_rate"}
    settings = TrainSettings(**quick, lora=lora)
    lines = run_training(shards, str(tiny_model_folder), tmp_path / "out", settings, dry_run=True)
    assert any(line.endswith(f"peak learning rate {rate}") for line in lines)
    assert settings.of_model(10**9) == settings and settings.peak_learning_rate == (1e-5 if lora else 1e-6)
    assert TrainSettings(**QUICK).of_model(1) == TrainSettings(**QUICK)


def test_metrics_are_valid_json_lines(shards, tiny_model_folder, tmp_path):
    run_training(shards, str(tiny_model_folder), tmp_path / "out", TrainSettings(**QUICK, max_steps=2, logging_steps=2))
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2]
