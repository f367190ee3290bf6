"""The picture of a run: one for whatever was logged, none where nothing was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import matplotlib.figure
import matplotlib.image
import pytest

from rmo_train.training.curves import draw_curves, running_mean


def write_metrics(folder: Path, lines: list[dict]) -> Path:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def a_line(step: int) -> dict:
    return {
        "step": step,
        "loss": 0.7 - step / 1000,
        "rewards/chosen": step / 200,
        "rewards/rejected": -step / 100,
        "rewards/margins": 3 * step / 200,
        "rewards/accuracies": 0.5 + step / 1000,
        "learning_rate": 1e-6,
        "grad_norm": 10.0 ** (step % 4),
        **({"eval/reward_accuracy": 0.6, "eval/length_matched_reward_accuracy": 0.55} if step % 50 == 0 else {}),
    }


@pytest.fixture
def drawn(monkeypatch) -> list[matplotlib.figure.Figure]:
    """The figures that are saved."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def remember(figure, *arguments, **given):
        figures.append(figure)
        save(figure, *arguments, **given)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return figures


def titles(figure: matplotlib.figure.Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_every_chart_has_its_curves_units_and_evaluations(tmp_path: Path, drawn):
    picture = draw_curves(write_metrics(tmp_path, [a_line(step) for step in range(1, 101)]))
    assert picture == tmp_path / "curves.png"
    height, width, _ = matplotlib.image.imread(picture).shape
    assert width > 1200 and height > 600
    (figure,) = drawn
    assert titles(figure) == ["Loss", "Rewards", "Reward margin", "Accuracy", "Learning rate", "Gradient norm"]
    assert all(axes.get_xlabel() == "optimizer step" and axes.get_ylabel() for axes in figure.axes)
    accuracy = figure.axes[3]
    shown = {line.get_label(): line.get_xydata().tolist() for line in accuracy.lines}
    assert shown["held out"] == [[50, 0.6], [100, 0.6]]
    assert {text.get_text() for text in accuracy.get_legend().get_texts()} == {
        "training", "held out", "held out, length-matched",
    }  # fmt: skip
    assert figure.axes[5].get_yscale() == "log"


def test_one_step_is_drawn_as_points(tmp_path: Path, drawn):
    assert draw_curves(write_metrics(tmp_path, [a_line(1)])) is not None
    assert drawn[0].axes[0].lines[0].get_marker() == "o"


def test_only_what_was_logged_is_drawn(tmp_path: Path, drawn):
    lines = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": math.nan}, {"step": 3, "loss": 0.5, "grad_norm": None}]
    assert draw_curves(write_metrics(tmp_path, lines)) is not None
    assert titles(drawn[0]) == ["Loss"]
    assert drawn[0].axes[0].lines[0].get_xydata().tolist() == [[1, 0.7], [3, 0.5]]


@pytest.mark.parametrize("lines", [[], [{"step": 1}]])
def test_nothing_logged_gives_no_picture(lines: list[dict], tmp_path: Path):
    assert draw_curves(write_metrics(tmp_path, lines)) is None
    assert draw_curves(tmp_path / "nowhere") is None
    assert not (tmp_path / "curves.png").exists()


def test_a_running_mean_by_hand():
    assert running_mean([2.0, 4.0, 9.0, 0.0], 2) == [2.0, 3.0, 6.5, 4.5]
