"""Checkpoints by time and at Ctrl-C: a run goes on from them to the last bit, and they go when it has ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from rmo_train.console.errors import Stopped
from rmo_train.report import checkpoint_lines
from rmo_train.store.files import read_json
from rmo_train.training.checkpoint import RECORD, checkpoint_bytes, newest_checkpoint
from rmo_train.training.command import run_training
from rmo_train.training.saves import Decision, Saves, Wish
from rmo_train.training.settings import TrainSettings
from rmo_train.training.stopping import StopRequest
from tests.rmo_train.training.test_checkpoints import QUICK, Killed, exact, weights

STEPS = 12
MINUTE = 60.0


class Clock:
    """Goes on by `minutes` at every call (drawn with `rng` where it is given), and does `last` at call number `at`.

    A run asks once at its start, once in every step and once after every save.
    """

    def __init__(
        self, minutes: float, *, at: int = 0, last: Callable[[], object] = lambda: None, rng: np.random.Generator = None
    ):
        self.minutes, self.at, self.last, self.rng = minutes, at, last, rng
        self.calls, self.now = 0, 0.0

    def __call__(self) -> float:
        self.calls += 1
        if self.calls == self.at:
            self.last()
        self.now += MINUTE * self.minutes * (self.rng.exponential() if self.rng else 1)
        return self.now


def die() -> None:
    raise Killed


def ask(number: int, times: int = 1) -> Callable[[], None]:
    return lambda: [os.kill(os.getpid(), number) for _ in range(times)] and None


@pytest.fixture(scope="module")
def whole(shards, tiny_model_folder, tmp_path_factory) -> Path:
    """The run that nothing disturbed and that saved nothing."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK, save_minutes=0))
    return out


def assert_same(out: Path, whole: Path) -> None:
    assert exact(out) == exact(whole)  # to the last bit, no step twice
    assert torch.equal(weights(out), weights(whole))
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in whole.iterdir())


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_a_run_ends_as_the_undisturbed_one(seed, shards, whole, tiny_model_folder, tmp_path):
    rng, out = np.random.default_rng(seed), tmp_path / "out"
    kills = 0
    while not (out / "manifest.json").exists():
        at = int(rng.integers(1, 14)) if kills < 5 else 0  # a part of the draws is a save's
        try:
            clock = Clock(6, at=at, last=die, rng=rng)
            run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK), clock=clock)
        except Killed:
            kills += 1
    assert kills
    assert_same(out, whole)


@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGINT, 5), (signal.SIGINT, STEPS), (signal.SIGTERM, 1)], ids=["5", "last", "term"]
)
def test_asked_to_stop_a_run_saves_one_checkpoint_and_goes_on_from_it(
    number, step, shards, whole, tiny_model_folder, tmp_path, capsys
):
    out, settings = tmp_path / "out", TrainSettings(**QUICK)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=f"after step {step} of {STEPS}; .*checkpoint-{step}.* same command again"):
        run_training(shards, str(tiny_model_folder), out, settings, clock=Clock(0, at=1 + step, last=ask(number)))
    assert signal.getsignal(number) is before
    assert [p.name for p in out.glob("*checkpoint-*")] == [f"checkpoint-{step}"]
    run_training(shards, str(tiny_model_folder), out, settings)
    assert f"resuming from {out / f'checkpoint-{step}'}" in capsys.readouterr().err
    assert_same(out, whole)
    assert "loss nan" not in (out / "README.md").read_text()


def test_asked_twice_it_leaves_at_once(shards, tiny_model_folder, tmp_path):
    out, clock = tmp_path / "out", Clock(0, at=4, last=ask(signal.SIGINT, 2))
    with pytest.raises(KeyboardInterrupt):
        run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK), clock=clock)
    assert clock.calls == 4 and not list(out.glob("*checkpoint-*"))


def test_a_job_in_the_background_ignores_ctrl_c_as_before():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            os.kill(os.getpid(), signal.SIGINT)
        assert not request.heard
    finally:
        signal.signal(signal.SIGINT, before)


def test_two_checkpoints_to_resume_from_are_kept_and_those_of_steps_stay(shards, tiny_model_folder, tmp_path):
    out, settings = tmp_path / "out", TrainSettings(**QUICK, save_steps=4)
    with pytest.raises(Killed):  # a save at every step: calls 2 and 3 are of step 1
        run_training(shards, str(tiny_model_folder), out, settings, clock=Clock(10, at=22, last=die))
    names = {p.name: read_json(p / RECORD)["stays"] for p in out.glob("checkpoint-*")}
    assert names == {"checkpoint-4": True, "checkpoint-8": True, "checkpoint-9": False, "checkpoint-10": False}
    assert newest_checkpoint(out) == out / "checkpoint-10"
    (out / ".checkpoint-11.partial").mkdir()  # a kill while it was written
    run_training(shards, str(tiny_model_folder), out, settings)
    assert sorted(p.name for p in out.glob("*checkpoint-*")) == ["checkpoint-4", "checkpoint-8"]


def test_a_kill_before_the_last_cleaning_leaves_nothing_for_good(shards, tiny_model_folder, tmp_path):
    out, settings = tmp_path / "out", TrainSettings(**QUICK, max_steps=2)
    run_training(shards, str(tiny_model_folder), out, settings)
    (out / ".checkpoint-1.partial").mkdir()
    run_training(shards, str(tiny_model_folder), out, settings)
    assert not list(out.glob("*checkpoint-*"))


def test_the_limit_is_of_checkpoints_that_stay_and_of_the_others_no_more_are_kept(shards, tiny_model_folder, tmp_path):
    out, settings = tmp_path / "out", TrainSettings(**QUICK, save_steps=4, save_total_limit=1)
    with pytest.raises(Killed):
        run_training(shards, str(tiny_model_folder), out, settings, clock=Clock(10, at=22, last=die))
    assert sorted(p.name for p in out.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-8"]


def test_the_best_checkpoint_does_not_depend_on_the_clock(shards, make_shards, tiny_model_folder, tmp_path):
    held_out = make_shards(tmp_path / "heldout", 6, start=1000)
    settings = TrainSettings(**QUICK, max_steps=3, eval_steps=1, save_steps=2, load_best_model_at_end=True)
    states = []
    for minutes in (0, 10):
        out = tmp_path / str(minutes)
        run_training(shards, str(tiny_model_folder), out, settings, eval_data=held_out, clock=Clock(minutes))
        states.append((read_json(out / "trainer_state.json")["best_model_checkpoint"], weights(out)))
    assert states[0][0] == states[1][0] and torch.equal(states[0][1], states[1][1])


def test_processes_decide_alike_by_the_first_ones_clock_and_anyones_signal():
    saves = Saves(4, 10, clock=lambda: 0.0)
    late, early, told = Wish(True, False), Wish(False, False), Wish(False, True)
    assert saves.decide(3, 9, [early, late]) == Decision(save=False, stays=False, stop=False)
    assert saves.decide(3, 9, [late, early]) == Decision(save=True, stays=False, stop=False)
    assert saves.decide(8, 9, [early, early]) == Decision(save=True, stays=True, stop=False)
    assert saves.decide(3, 9, [early, told]) == Decision(save=True, stays=False, stop=True)
    assert saves.decide(9, 9, [late, early]) == Decision(save=False, stays=False, stop=False)


def test_minutes_count_from_the_last_checkpoint_and_zero_is_off():
    now = 0.0
    saves, off = Saves(None, 10, clock=lambda: now), Saves(None, 0, clock=lambda: now)
    now = 599
    assert not saves.wish().save
    now = 600
    assert saves.wish().save and not off.wish().save
    saves.saved()
    now = 1199
    assert not saves.wish().save


@pytest.mark.parametrize(("lora", "dtype"), [(None, "float32"), (None, "bfloat16"), (32, "bfloat16")])
def test_the_size_of_a_checkpoint_is_said_beforehand(lora, dtype, shards, tiny_model_folder, tmp_path):
    out, settings = tmp_path / "out", TrainSettings(**QUICK, lora=lora, bf16=dtype == "bfloat16", max_steps=2)
    with pytest.raises(Stopped):
        run_training(
            shards, str(tiny_model_folder), out, settings, ignore_identity=True,
            clock=Clock(0, at=2, last=ask(signal.SIGINT)),
        )  # fmt: skip
    folder = out / "checkpoint-1"
    size = sum(
        (folder / name).stat().st_size for name in ("training.pt", *(p.name for p in folder.glob("*.safetensors")))
    )
    assert checkpoint_bytes(str(tiny_model_folder), dtype, lora) == pytest.approx(size, rel=0.15)


def test_a_disk_too_small_for_the_checkpoints_is_said_beforehand():
    gib = 2**30
    by_time = TrainSettings()
    assert checkpoint_lines(by_time, 100, gib, 3 * gib) == [
        "checkpoints: every 10 minutes, the newest 2 until training ends; about 1.0 GiB each"
    ]
    (_, warning) = checkpoint_lines(by_time, 100, gib, 2 * gib)
    assert "may need 3.0 GiB, but that disk has 2.0 GiB free" in warning
    (both, warning) = checkpoint_lines(TrainSettings(save_steps=10), 100, gib, 0)
    assert "; every 10 steps, 9 kept; about" in both and "may need 12.0 GiB" in warning
    (none,) = checkpoint_lines(TrainSettings(save_minutes=0), 100, gib, 2 * gib)
    assert none == "checkpoints: none except on Ctrl-C; about 1.0 GiB each"
