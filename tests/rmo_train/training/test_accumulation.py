"""How a batch is split into micro-steps and rows changes no loss: against each other, and against a committed curve.

To make the curve anew, remove its file: the next run of these tests writes one, with its environment, and fails.
"""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import pytest

from rmo_train.store.files import read_json, write_json
from rmo_train.store.manifests import versions
from rmo_train.training.command import run_training
from rmo_train.training.record import read_metrics
from rmo_train.training.settings import TrainSettings

CURVE = Path(__file__).with_name("accumulation_curve.json")
TOLERANCE = 1e-4  # relative, to another machine's and another torch's rounding


def curve(shards: Path, model: Path, out: Path, per_device: int, accumulated: int, **more) -> list[float]:
    settings = TrainSettings(
        per_device_train_batch_size=per_device, gradient_accumulation_steps=accumulated, learning_rate=1e-3,
        num_train_epochs=2, bf16=False, attention="segments", amplify=0.25, diversify=True, **more,
    )  # fmt: skip
    run_training(shards, str(model), out, settings)
    return [line["loss"] for line in read_metrics(out)]


def test_one_times_eight_is_eight_times_one_and_the_committed_curve(shards, tiny_model_folder, tmp_path):
    wide = curve(shards, tiny_model_folder, tmp_path / "8x1", 8, 1)
    assert curve(shards, tiny_model_folder, tmp_path / "1x8", 1, 8) == wide
    if not CURVE.exists():
        write_json(CURVE, {"loss": wide, "environment": {"machine": platform.machine(), **versions()}})
        pytest.fail(f"{CURVE.name} was not there and has been written; look at it and commit it")
    assert wide == pytest.approx(read_json(CURVE)["loss"], rel=TOLERANCE)


def test_rows_of_another_length_give_the_same_losses(shards, tiny_model_folder, tmp_path):
    short, long = (
        curve(shards, tiny_model_folder, tmp_path / str(tokens), 8, 1, tokens_per_batch=tokens) for tokens in (24, 512)
    )
    np.testing.assert_allclose(short, long, atol=1e-5)
