"""The real command lines, killed and interrupted: a short form of `python -m benchmarks.kill`, and Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.kill import DATA, commands, measure

pytestmark = pytest.mark.real
SECONDS = 10  # within which a command that was asked to stop has stopped


def test_killed_commands_go_on_to_the_same_result(tmp_path):
    kills, _ = measure(tmp_path, 7, limit=96)  # three of score, one each of the others
    assert {k.command for k in kills} == {"score", "probed", "proxy", "filter", "probe"}
    assert all(k.passed and k.files_equal == k.files for k in kills), kills


def test_a_training_killed_three_times_ends_as_the_undisturbed_one(tmp_path, tiny_model_folder):
    """kill -9 at moments spread over the run, in float32: the same losses, the same weights, to the last bit."""
    work = tmp_path
    for name in ("score", "filter"):
        arguments = commands(work, DATA, tiny_model_folder, 96)[name].arguments
        subprocess.run([sys.executable, "-m", "rmo_curate.cli", *arguments], check=True, capture_output=True)

    def start(out: Path) -> subprocess.Popen[bytes]:
        settings = (
            "--model", tiny_model_folder, "--out", out, "--learning-rate", 1e-3, "--num-train-epochs", 12,
            "--save-steps", 3, "--save-total-limit", 2, "--per-device-train-batch-size", 2, "--attention", "segments",
        )  # fmt: skip
        command = [sys.executable, "-m", "rmo_train", "run", work / "shards", *settings]
        return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, start_new_session=True)

    def steps(out: Path) -> int:
        return len((out / "metrics.jsonl").read_bytes().splitlines()) if (out / "metrics.jsonl").exists() else 0

    whole, killed = work / "whole", work / "killed"
    assert start(whole).wait(timeout=120) == 0
    total = steps(whole)
    for share in (0.2, 0.5, 0.8):
        process = start(killed)
        while steps(killed) < share * total and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(killed).wait(timeout=120) == 0
    lines = [[json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (whole, killed)]
    assert [(x["step"], x["loss"], x["grad_norm"]) for x in lines[0]] == [
        (x["step"], x["loss"], x["grad_norm"]) for x in lines[1]
    ]
    assert (whole / "model.safetensors").read_bytes() == (killed / "model.safetensors").read_bytes()


# What is there when the stage has begun.
BEGUN = {
    "pairs": ("score", "run/pairs/.journal.jsonl"),
    "scores": ("score", "run/scores/base/part-00000.parquet"),
    "training": ("score", "run/proxies/oof/fold-0"),
    "filter": ("filter", ".shards.partial"),
}


@pytest.fixture(scope="module")
def scored(tiny_model_folder, tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("scored")
    command = commands(work, DATA, tiny_model_folder, 96)["score"]
    subprocess.run([sys.executable, "-m", "rmo_curate.cli", *command.arguments], check=True, capture_output=True)
    return work


@pytest.mark.parametrize("stage", ["pairs", "scores", "training", "filter"])
def test_ctrl_c_stops_within_seconds_and_says_how_to_go_on(stage, scored, tiny_model_folder, tmp_path):
    name, begun = BEGUN[stage]
    work = scored if name == "filter" else tmp_path
    command = commands(work, DATA, tiny_model_folder, 96)[name]
    log = work / "err.log"
    with log.open("w+") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "rmo_curate.cli", *command.arguments], stderr=err, start_new_session=True
        )
        while not (work / begun).exists() and process.poll() is None:
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        asked = time.monotonic()
        code = process.wait(timeout=60)
    said = log.read_text()
    if stage == "filter" and code == 0:
        pytest.skip("the filter was faster than the Ctrl-C")
    assert time.monotonic() - asked < SECONDS
    assert code == 130 and "Traceback" not in said, said
    last = said.splitlines()[-1]
    assert last.startswith("stopped; ") and "Run the same command again" in last
    with pytest.raises(ProcessLookupError):  # nothing of its group is left
        os.killpg(process.pid, 0)


def test_faults_break_no_promise_of_the_quick_commands(tmp_path):
    """A short form of `python -m benchmarks.faults`: disks, kills, clocks and two commands at once, by a shim."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler: the shim cannot be made")
    only = ("inspect", "score", "filter", "export of lines")
    trials, _ = faults.measure(tmp_path.resolve(), 5, 1, only)
    assert {t.command for t in trials} == set(only) and len(trials) == 4 * 11
    assert not [t for t in trials if t.broken]
