"""A run repeats: the same command gives the same numbers to the last bit, however busy the machine is."""

from __future__ import annotations

from pathlib import Path

import torch

from rmo_train.training.command import run_eval, run_training
from rmo_train.training.record import read_metrics
from rmo_train.training.settings import TrainSettings
from rmo_train.training.throughput import matmul_rate

CLOCKED = ("pairs_per_second", "tokens_per_second", "matmul_share", "peak_memory_gib")


def trained(shards: Path, model: Path, out: Path) -> tuple[list[dict], bytes]:
    parts = {"amplify": 0.25, "diversify": True}
    size = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    settings = TrainSettings(**size, **parts, learning_rate=1e-3)
    run_training(shards, str(model), out, settings)
    metrics = [{k: v for k, v in line.items() if k not in CLOCKED} for line in read_metrics(out)]
    return metrics, (out / "model.safetensors").read_bytes()


def test_training_repeats_to_the_last_bit_beside_other_work(
    shards: Path, tiny_model_folder: Path, tmp_path: Path, busy
):
    metrics, weights = trained(shards, tiny_model_folder, tmp_path / "alone")
    with busy:
        again, weights_again = trained(shards, tiny_model_folder, tmp_path / "beside")
    assert len(metrics) == 6 and {"loss", "grad_norm"} <= metrics[0].keys()
    assert again == metrics
    assert weights_again == weights


def test_measuring_the_machine_draws_none_of_a_runs_random_numbers():
    """A resumed run measures it again: with dropout it would go on with other numbers than the uninterrupted one."""
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert matmul_rate(torch.device("cpu"), torch.float32) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_an_evaluation_repeats_to_the_last_bit_beside_other_work(
    shards: Path, tiny_model_folder: Path, tmp_path: Path, busy
):
    trained(shards, tiny_model_folder, tmp_path / "out")
    alone = run_eval(shards, str(tmp_path / "out"))
    with busy:
        assert run_eval(shards, str(tmp_path / "out")).as_json() == alone.as_json()
