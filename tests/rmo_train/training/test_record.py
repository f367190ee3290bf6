"""What a run says of itself: TRL's metric names, speed, hints, curves, trackers and the card."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch

from rmo_train.model.policy import load_for_training
from rmo_train.objective.losses import PairLogps, loss_named
from rmo_train.training.command import run_training
from rmo_train.training.hints import Hint
from rmo_train.training.loop import Part, batch_metrics
from rmo_train.training.record import Record, read_metrics, series
from rmo_train.training.settings import TrainSettings
from rmo_train.training.throughput import Speed, training_flop

QUICK = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}


def test_a_run_leaves_metrics_curves_and_a_card(shards, make_shards, tiny_model_folder, tmp_path):
    held_out = make_shards(tmp_path / "heldout", 12, start=1000)
    out = tmp_path / "out"
    settings = TrainSettings(**QUICK, logging_steps=2, eval_steps=3, sft_weight=0.1, report_to=("tensorboard",))
    lines = run_training(shards, str(tiny_model_folder), out, settings, eval_data=held_out)
    logged = read_metrics(out)
    assert [line["step"] for line in logged] == [2, 3, 4, 6]  # every second, every evaluated, the last
    assert {
        "loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
        "logps/rejected", "nll_loss", "grad_norm", "learning_rate", "epoch", "num_tokens", "pairs_per_second",
        "tokens_per_second", "matmul_share", "peak_memory_gib",
    } <= logged[0].keys()  # fmt: skip
    assert ["eval/reward_accuracy" in line for line in logged] == [False, True, False, True]
    assert all(0 < line["matmul_share"] < 1 and line["peak_memory_gib"] > 0 for line in logged)
    assert any("of the machine's matmul rate" in line for line in lines)
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "![metrics of every step](curves.png)" in (out / "README.md").read_text()
    assert list((out / "tensorboard").iterdir())


def logps_of(chosen, rejected, chosen_tokens, rejected_tokens) -> PairLogps:
    zeros = torch.zeros(len(chosen))
    return PairLogps(
        torch.tensor(chosen), torch.tensor(rejected), zeros, zeros,
        torch.tensor(chosen_tokens), torch.tensor(rejected_tokens),
    )  # fmt: skip


def test_accuracy_is_split_by_which_answer_is_longer():
    loss = loss_named("dpo")
    logps = logps_of([-1.0, -1.0, -3.0], [-2.0, -2.0, -2.0], [4.0, 2.0, 2.0], [2.0, 4.0, 4.0])
    metrics = batch_metrics([Part(logps, 0.5, 10, 5)], loss, loss.parameters(sft_weight=0.5), None)
    assert metrics["rewards/accuracies_longer"] == 1.0
    assert metrics["rewards/accuracies_shorter"] == 0.5
    assert metrics["nll_loss"] == pytest.approx((1 / 4 + 1 / 2 + 3 / 2) / 3)
    equal = logps_of([-1.0], [-2.0], [3.0], [3.0])
    assert not any("longer" in k for k in batch_metrics([Part(equal, 0.5, 10, 5)], loss, loss.parameters(), None))


def test_operations_are_six_a_trained_weight_and_four_a_frozen_one(tiny_model_folder):
    """Hidden 32, intermediate 64, 2 layers; 4 heads of 8, 2 key-value heads: counted by hand."""
    layer = 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 32 * 64
    full = load_for_training(str(tiny_model_folder), "float32")
    vocabulary = full.config.vocab_size
    assert training_flop(full) == (6 * 2 * layer, 6 * 32 * vocabulary)
    adapted = load_for_training(str(tiny_model_folder), "float32", lora=2)
    adapter = 2 * (32 + 32) + 2 * 2 * (32 + 16) + 2 * (32 + 32) + 3 * 2 * (32 + 64)
    assert training_flop(adapted) == (4 * 2 * layer + 6 * 2 * adapter, 4 * 32 * vocabulary)


def test_speed_counts_the_steps_and_not_what_is_between(tiny_model_folder, monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 12.0])
    speed = Speed(load_for_training(str(tiny_model_folder), "float32"))
    monkeypatch.setattr("rmo_train.training.throughput.time.perf_counter", lambda: next(clock))
    speed.rate = 1e6
    for _ in range(2):
        speed.start()
        found = speed.stop(pairs=8, tokens=100, predicted=40)
    assert (found["pairs_per_second"], found["tokens_per_second"]) == (4.0, 50.0)
    assert found["matmul_share"] == pytest.approx((speed.decoder_flop * 200 + speed.head_flop * 80) / 4 / 1e6)


class EveryStep:
    """Hints that see something after every step."""

    def of(self, metrics):
        return [Hint("too easy", {"loss": metrics["loss"]}, metrics["step"])]


def test_hints_are_said_as_they_come_but_not_again_after_a_resume(tmp_path: Path, capsys):
    record = Record(tmp_path, 2, hints=EveryStep())
    for step in (1, 2, 3):
        record.add(step, {"loss": 1.0})
    assert re.findall(r"^hint, step (\d): accuracy 1\.0", capsys.readouterr().err, re.M) == ["1", "2", "3"]
    record.rewind(2)
    assert capsys.readouterr().err == ""
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [2]


def test_a_run_that_does_not_move_is_told_so(make_shards, tiny_model_folder, tmp_path, capsys):
    folder = make_shards(tmp_path / "shards", 64, end=False)
    settings = TrainSettings(
        per_device_train_batch_size=2, gradient_accumulation_steps=1, learning_rate=1e-12, num_train_epochs=2
    )
    run_training(folder, str(tiny_model_folder), tmp_path / "out", settings)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("hint")]
    assert len(said) == 1 and "the margins have not moved" in said[0] and "--learning-rate" in said[0]


def test_a_series_has_the_finite_numbers_of_its_key_at_their_steps():
    lines = [
        {"step": 1, "a": 2},
        {"step": 2},
        {"step": 3, "a": 4.5},
        {"step": 4, "a": None},
        {"step": 5, "a": math.nan},
    ]
    assert series(lines, "a") == [(1, 2.0), (3, 4.5)]
