"""`--report-to`: what is logged arrives, what is missing is said before anything is trained. Nothing uses a network."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from rmo_train.console.errors import UserError
from rmo_train.console.settings import build
from rmo_train.training.settings import TrainSettings
from rmo_train.training.trackers import Trackers, open_trackers, require_trackers


def events(out: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(out / "tensorboard"))
    found.Reload()
    return found


def scalars(out: Path, key: str) -> list[tuple[int, float]]:
    return [(e.step, e.value) for e in events(out).Scalars(key)]


def test_tensorboard_holds_every_number_at_its_step(tmp_path: Path):
    with open_trackers(["tensorboard"], tmp_path, {"beta": 0.1, "report_to": ("tensorboard",)}) as trackers:
        trackers.log({"step": 1, "loss": 0.75, "rewards/margins": math.nan, "note": "text"})
        trackers.log({"step": 2, "loss": 0.5, "num_tokens": 100})
    assert scalars(tmp_path, "loss") == [(1, 0.75), (2, 0.5)]
    assert scalars(tmp_path, "num_tokens") == [(2, 100.0)]
    assert sorted(events(tmp_path).Tags()["scalars"]) == ["loss", "num_tokens"]
    (text,) = events(tmp_path).Tensors("settings/text_summary")
    assert b'"beta": 0.1' in text.tensor_proto.string_val[0]


def test_a_resumed_run_replaces_the_steps_that_it_does_again(tmp_path: Path):
    with open_trackers(["tensorboard"], tmp_path, {}) as trackers:
        for step in (1, 2, 3):
            trackers.log({"step": step, "loss": 1.0})
    with open_trackers(["tensorboard"], tmp_path, {}, first_step=1) as trackers:
        for step in (2, 3):
            trackers.log({"step": step, "loss": 0.5})
    assert scalars(tmp_path, "loss") == [(1, 1.0), (2, 0.5), (3, 0.5)]


def test_without_trackers_nothing_is_written(tmp_path: Path):
    with open_trackers([], tmp_path, {}) as trackers:
        trackers.log({"step": 1, "loss": 1.0})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("asked", ["tensorboard", ["tensorboard"], ("none", "tensorboard", "tensorboard")])
def test_trackers_are_named_as_in_hugging_face(asked):
    assert build(TrainSettings, "train", {"train": {"report_to": asked}}, {}).report_to == ("tensorboard",)
    assert build(TrainSettings, "train", {"train": {"report_to": "none"}}, {}).report_to == ()


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_names_the_command_that_installs_it(name: str, monkeypatch):
    monkeypatch.setattr("rmo_train.training.trackers.find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"--report-to {name}: .* run `pip install {name}`"):
        require_trackers([name])


class Broken:
    def log(self, numbers, step):
        raise ConnectionError("the service is away")

    def finish(self):
        raise ConnectionError("still away")


class Working:
    def __init__(self):
        self.steps: list[int] = []

    def log(self, numbers, step):
        self.steps.append(step)

    def finish(self):
        self.steps.append(-1)


def test_a_tracker_that_fails_is_named_once_and_the_others_go_on(capsys):
    working = Working()
    trackers = Trackers({"wandb": Broken(), "tensorboard": working})
    for step in (1, 2):
        trackers.log({"step": step, "loss": 1.0})
    trackers.finish()
    assert working.steps == [1, 2, -1]
    assert capsys.readouterr().err.count("the service is away; from step 1 on, metrics are logged to metrics") == 1
    Trackers({"wandb": Broken()}).finish()
    assert "still away" in capsys.readouterr().err


def test_a_tracker_that_cannot_be_opened_stops_before_training(tmp_path: Path):
    (tmp_path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"--report-to tensorboard: cannot start it .* nothing was trained"):
        open_trackers(["tensorboard"], tmp_path, {})


def test_wandb_offline_holds_the_run(tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    with open_trackers(["wandb"], tmp_path / "run", {"beta": 0.1}) as trackers:
        trackers.log({"step": 1, "loss": 0.5})
    assert list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))
