"""`curves.png`: the metrics of a training run as a grid of small charts."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmo_train.store.files import write_bytes
from rmo_train.training.record import read_metrics, series

PICTURE = "curves.png"
COLUMNS = 3
SMOOTHED_FROM = 60  # smooth the curves of runs with at least this many steps
LOGARITHMIC_FROM = 50  # use a logarithmic axis from this ratio of the largest to the smallest value
SHARE = "share of pairs"  # the unit of values between 0 and 1
BLUE, ORANGE, GREEN = "#2b6cb0", "#c05621", "#2f855a"


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    curves: Mapping[str, tuple[str, str]]  # key of the record -> label, colour
    level: float | None = None  # a dotted line: the value of an untrained model
    logarithmic: bool = False  # if the values span orders of magnitude


CHARTS = (
    Chart("Loss", "mean over the batch's pairs", {"loss": ("loss", BLUE)}),
    Chart(
        "Rewards",
        "beta x nats",
        {"rewards/chosen": ("chosen", GREEN), "rewards/rejected": ("rejected", ORANGE)},
        level=0.0,
    ),
    Chart("Reward margin", "chosen - rejected, beta x nats", {"rewards/margins": ("margin", BLUE)}, level=0.0),
    Chart(
        "Accuracy",
        SHARE,
        {
            "rewards/accuracies": ("training", BLUE),
            "eval/reward_accuracy": ("held out", ORANGE),
            "eval/length_matched_reward_accuracy": ("held out, length-matched", GREEN),
        },
        level=0.5,
    ),
    Chart("Learning rate", "per step", {"learning_rate": ("learning rate", BLUE)}),
    Chart("Gradient norm", "before clipping", {"grad_norm": ("norm", BLUE)}, logarithmic=True),
)


def draw_curves(folder: Path) -> Path | None:
    """Write `curves.png` to a run's folder; None, and no file, if nothing was logged yet."""
    lines = read_metrics(folder)
    charts = [chart for chart in CHARTS if any(series(lines, key) for key in chart.curves)]
    if not charts:
        return None
    import matplotlib.figure

    columns = min(COLUMNS, len(charts))
    rows = math.ceil(len(charts) / COLUMNS)
    # Without pyplot: needs no display and shares no state.
    figure = matplotlib.figure.Figure(figsize=(4.6 * columns, 3.2 * rows), layout="constrained")
    for number, chart in enumerate(charts, start=1):
        _draw(figure.add_subplot(rows, columns, number), chart, lines)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(folder / PICTURE, picture.getvalue())
    return folder / PICTURE


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The running mean of the last `width` values (fewer at the beginning)."""
    windows = (values[max(0, end - width) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]


def _draw(axes: Any, chart: Chart, lines: Sequence[dict[str, Any]]) -> None:
    everything: list[float] = []
    for key, (label, colour) in chart.curves.items():
        if not (points := series(lines, key)):
            continue
        steps, values = zip(*points, strict=True)
        everything += values
        if key.startswith("eval/") or len(points) == 1:  # not measured at every step
            axes.plot(steps, values, "o", color=colour, markersize=5, label=label, zorder=3)
        elif len(points) < SMOOTHED_FROM:
            axes.plot(steps, values, color=colour, linewidth=1.5, label=label)
        else:
            axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
            smooth = running_mean(values, max(5, len(values) // 30))
            axes.plot(steps, smooth, color=colour, linewidth=1.8, label=label)
    if chart.level is not None:
        axes.axhline(chart.level, color="#718096", linewidth=0.8, linestyle=":")
    if chart.logarithmic and min(everything) > 0 and max(everything) > LOGARITHMIC_FROM * min(everything):
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    if chart.unit == SHARE:
        axes.set_ylim(-0.02, 1.02)
    axes.set_title(chart.title, fontsize=11, loc="left")
    axes.set_xlabel("optimizer step", fontsize=9)
    axes.set_ylabel(chart.unit, fontsize=9)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(labelsize=8)
    axes.grid(True, linewidth=0.3, alpha=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.curves) > 1:
        axes.legend(fontsize=8, frameon=False)
