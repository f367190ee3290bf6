"""Two processes on the CPU (gloo) train as one does: replicated and sharded, each resumes the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.command_line import curate
from tests.rmo_curate.scored import score_demo

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5  # float32: the same sums in another order
TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")  # with no GPU there: two CPU ones
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def shards(tiny_model_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    run = score_demo(folder, tiny_model_folder, 60, dtype="float32")
    assert curate("filter", run, "--rule", "none", "--out", folder / "shards").code == 0
    return folder / "shards"


def trained(
    shards: Path, model: Path, out: Path, processes: int, *more: str, launcher: tuple[str, ...] = TORCHRUN
) -> tuple[list[float], dict]:
    """Losses and weights of a run of 8 pairs a step, on one process or two."""
    launched = ["-m", *launcher] if processes > 1 else []
    command = [
        sys.executable, *launched, "-m", "rmo_train", "run", str(shards), "--model", str(model), "--out", str(out),
        "--learning-rate", "1e-3", "--gradient-accumulation-steps", "1", "--num-train-epochs", "2",
        "--per-device-train-batch-size", str(8 // processes), "--attention", "segments", "--save-steps", "5", *more,
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    (weights,) = out.glob("*.safetensors")
    return [line["loss"] for line in lines], load_file(weights)


def assert_equal(one: tuple[list[float], dict], two: tuple[list[float], dict]) -> None:
    assert one[0] == pytest.approx(two[0], abs=TOLERANCE)
    assert one[1].keys() == two[1].keys()
    for name, weight in one[1].items():
        torch.testing.assert_close(weight, two[1][name], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("mode", [(), ("--lora", "4")], ids=["full", "lora"])
def test_two_processes_give_what_one_gives(shards, tiny_model_folder, tmp_path, mode):
    one = trained(shards, tiny_model_folder, tmp_path / "one", 1, *mode)
    assert_equal(one, trained(shards, tiny_model_folder, tmp_path / "replicated", 2, *mode))
    assert_equal(one, trained(shards, tiny_model_folder, tmp_path / "sharded", 2, "--fsdp", *mode))


def test_accelerate_launch_starts_them_too(shards, tiny_model_folder, tmp_path):
    one = trained(shards, tiny_model_folder, tmp_path / "one", 1)
    assert_equal(one, trained(shards, tiny_model_folder, tmp_path / "two", 2, launcher=ACCELERATE))
    assert_equal(one, trained(shards, tiny_model_folder, tmp_path / "sharded", 2, "--fsdp", launcher=ACCELERATE))


def test_what_cannot_be_trained_is_said_once(shards, tiny_model_folder, tmp_path):
    """All processes find it, the first one speaks, none hangs."""
    command = [
        sys.executable, "-m", *TORCHRUN, "-m", "rmo_train", "run", str(shards), "--model", str(tiny_model_folder),
        "--out", str(tmp_path / "out"), "--per-device-train-batch-size", "400",
    ]  # fmt: skip
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stderr.count("is larger than the data") == 1, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_a_checkpoint_goes_on_with_another_number_of_processes(shards, tiny_model_folder, tmp_path, first, second):
    sharded = {1: (), 2: ("--fsdp",)}
    whole = trained(shards, tiny_model_folder, tmp_path / "whole", first, *sharded[first])
    resumed = trained(
        shards, tiny_model_folder, tmp_path / "resumed", second, *sharded[second],
        "--resume-from-checkpoint", str(tmp_path / "whole" / "checkpoint-5"),
    )  # fmt: skip
    assert_equal((whole[0][5:], whole[1]), resumed)
