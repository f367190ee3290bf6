"""Pairs that the memory may not hold in training are named, before it starts and where it runs out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rmo_train.console.errors import ProcessingError
from rmo_train.data.pairs import open_pairs
from rmo_train.forward import memory
from rmo_train.training import command
from rmo_train.training.loop import saying_of
from rmo_train.training.settings import TrainSettings


@pytest.fixture
def data(make_shards, tmp_path):
    return open_pairs(make_shards(tmp_path / "shards"))


def tokens_of(data):
    return data.prompt.lengths + data.chosen.lengths + data.rejected.lengths


def test_pairs_that_may_not_fit_are_named_the_longest_first(data, monkeypatch, capsys):
    tokens = tokens_of(data)
    limit = int(np.sort(tokens)[-3]) - 1
    monkeypatch.setattr(memory, "STEP", 1)
    monkeypatch.setattr(command, "training_room", lambda *_: (100 * limit, lambda t: 100 * t))
    command.check_memory(data, "any", TrainSettings(), 1)
    said = capsys.readouterr().err
    longest = data.ids[np.argsort(-tokens, kind="stable")[0]]
    assert f"more than the {limit:,} tokens" in said and f": {longest} ({tokens.max():,} tokens)" in said
    assert "--gradient-checkpointing" in said
    command.check_memory(data, "any", TrainSettings(gradient_checkpointing=True), 1)
    assert "--gradient-checkpointing" not in capsys.readouterr().err
    monkeypatch.setattr(command, "training_room", lambda *_: (100 * int(tokens.max()), lambda t: 100 * t))
    command.check_memory(data, "any", TrainSettings(), 1)
    assert not capsys.readouterr().err


def test_the_room_is_what_weights_gradients_and_optimizer_leave(tiny_model_folder, monkeypatch):
    monkeypatch.setattr(command, "device_memory", lambda: ("cpu", 10**9))
    parameters = sum(p.stat().st_size for p in tiny_model_folder.glob("*.safetensors")) // 4
    room, row = command.training_room(str(tiny_model_folder), "float32", TrainSettings(), 1)
    assert room == 10**9 - 20 * parameters and row(64) > 0
    lora, _ = command.training_room(str(tiny_model_folder), "float32", TrainSettings(lora=2), 1)
    assert lora == 10**9 - 4 * parameters


def test_running_out_of_memory_names_the_longest_pair_of_the_batch(data):
    rows = np.array([3, 5, 7])
    longest = data.ids[rows[int(np.argmax(tokens_of(data)[rows]))]]
    with pytest.raises(ProcessingError, match=f"longest pair of the batch is {longest}, "), saying_of(data, rows):
        raise torch.OutOfMemoryError("CUDA out of memory")
