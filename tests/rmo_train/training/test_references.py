"""Data without reference log-probs: the untrained policy's own, computed once, kept, and equal to scored ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rmo_train.console.errors import UserError
from rmo_train.data.pairs import open_pairs
from rmo_train.training import references
from rmo_train.training.command import run_training
from rmo_train.training.plan import make_plan
from rmo_train.training.record import read_metrics
from rmo_train.training.settings import TrainSettings

QUICK = {
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3, "max_steps": 4,
    "amplify": 0, "diversify": False, "bf16": False,
}  # fmt: skip
NONE = [None] * 24


@pytest.fixture
def bare(make_shards, tmp_path) -> Path:
    """The session's 24 pairs without their reference columns."""
    return make_shards(tmp_path / "bare", end=False, ref_chosen_logps=NONE, ref_rejected_logps=NONE)


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(out)]


def test_training_without_columns_equals_training_with_them(bare, shards, tiny_model_folder, tmp_path):
    run_training(bare, str(tiny_model_folder), tmp_path / "bare-out", TrainSettings(**QUICK))
    run_training(shards, str(tiny_model_folder), tmp_path / "out", TrainSettings(**QUICK))
    assert losses(tmp_path / "bare-out") == pytest.approx(losses(tmp_path / "out"), abs=1e-5)
    assert losses(tmp_path / "bare-out")[0] == pytest.approx(math.log(2), abs=1e-5)


def test_references_are_computed_once_and_kept(bare, tiny_model_folder, tmp_path, monkeypatch):
    settings = TrainSettings(**QUICK, save_steps=2)
    run_training(bare, str(tiny_model_folder), tmp_path / "out", settings)
    whole = losses(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    monkeypatch.setattr(references, "logps_in_parts", lambda *args: pytest.fail("computed again"))
    run_training(bare, str(tiny_model_folder), tmp_path / "out", settings)
    assert losses(tmp_path / "out") == whole


def test_damaged_references_are_computed_again(bare, tiny_model_folder, tmp_path, capsys):
    settings = TrainSettings(**QUICK, save_steps=2)
    run_training(bare, str(tiny_model_folder), tmp_path / "out", settings)
    whole = losses(tmp_path / "out")
    kept = tmp_path / "out" / "references" / "train" / "logps.parquet"
    kept.write_bytes(kept.read_bytes()[:-10])
    (tmp_path / "out" / "manifest.json").unlink()
    capsys.readouterr()
    run_training(bare, str(tiny_model_folder), tmp_path / "out", settings)
    assert "computed once" in capsys.readouterr().err
    assert losses(tmp_path / "out") == whole


def test_held_out_pairs_without_columns_get_them_before_training(shards, make_shards, tiny_model_folder, tmp_path):
    held_out = make_shards(tmp_path / "heldout", end=False, start=1000, ref_chosen_logps=NONE, ref_rejected_logps=NONE)
    settings = TrainSettings(**QUICK, eval_steps=2)
    run_training(shards, str(tiny_model_folder), tmp_path / "out", settings, eval_data=held_out)
    scored = make_shards(tmp_path / "scored", end=False, start=1000)
    run_training(shards, str(tiny_model_folder), tmp_path / "other", settings, eval_data=scored)
    accuracies = [
        [line.get("eval/reward_accuracy") for line in read_metrics(tmp_path / name)] for name in ("out", "other")
    ]
    assert accuracies[0] == accuracies[1]


def test_a_loss_without_reference_computes_none(bare, tiny_model_folder, tmp_path):
    run_training(bare, str(tiny_model_folder), tmp_path / "out", TrainSettings(**QUICK, loss="simpo"))
    assert not (tmp_path / "out" / "references").exists()


def test_one_column_of_the_two_is_no_data(make_shards, tmp_path):
    with pytest.raises(UserError, match="ref_chosen_logps but no ref_rejected_logps"):
        open_pairs(make_shards(tmp_path / "half", ref_rejected_logps=NONE))


def test_parts_that_need_margins_are_refused_without_them(make_shards, tmp_path):
    data = open_pairs(make_shards(tmp_path / "bare", ref_chosen_logps=NONE, ref_rejected_logps=NONE))
    settings = {k: v for k, v in QUICK.items() if k not in ("amplify", "diversify")}
    with pytest.raises(UserError, match="--amplify needs margins"):
        make_plan(data, TrainSettings(**settings, amplify=0.25))


def test_a_single_missing_value_is_no_missing_column(make_shards, tmp_path):
    values = np.full(24, -3.0).tolist()
    values[5] = None
    with pytest.raises(UserError, match="pair-5 has ref_chosen_logps = nan"):
        open_pairs(make_shards(tmp_path / "hole", ref_chosen_logps=values))
