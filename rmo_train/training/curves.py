"""`curves.png`: the metrics of a training run as one picture of small charts, drawn from its metrics.jsonl."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmo_train.store.tables import write_bytes
from rmo_train.training.checkpoint import read_metrics

PICTURE = "curves.png"
COLUMNS = 3
SMOOTHED_FROM = 60  # steps; below, every step can be seen as it is
LOGARITHMIC_FROM = 50  # largest over smallest value
BLUE, ORANGE, GREEN = "#2b6cb0", "#c05621", "#2f855a"


@dataclass(frozen=True)
class Curve:
    key: str  # of a line of metrics.jsonl
    label: str
    colour: str
    points: bool = False  # measured now and then: drawn as points


@dataclass(frozen=True)
class Chart:
    title: str
    unit: str
    curves: tuple[Curve, ...]
    level: float | None = None  # a dotted line: what an untrained model has
    logarithmic: bool = False  # where the values span orders of magnitude


CHARTS = (
    Chart("Loss", "mean over the batch's pairs", (Curve("loss", "loss", BLUE),)),
    Chart(
        "Rewards",
        "beta x nats",
        (Curve("rewards/chosen", "chosen", GREEN), Curve("rewards/rejected", "rejected", ORANGE)),
        level=0.0,
    ),
    Chart("Reward margin", "chosen - rejected, beta x nats", (Curve("rewards/margins", "margin", BLUE),), level=0.0),
    Chart(
        "Accuracy",
        "share of pairs",
        (
            Curve("rewards/accuracies", "training", BLUE),
            Curve("eval/reward_accuracy", "held out", ORANGE, points=True),
            Curve("eval/length_matched_reward_accuracy", "held out, length-matched", GREEN, points=True),
        ),
        level=0.5,
    ),
    Chart("Learning rate", "per step", (Curve("learning_rate", "learning rate", BLUE),)),
    Chart("Gradient norm", "before clipping", (Curve("grad_norm", "norm", BLUE),), logarithmic=True),
)


def draw_curves(folder: Path) -> Path | None:
    """Write `curves.png` into a run's folder; None, and no picture, where nothing was logged yet."""
    lines = read_metrics(folder)
    found = [chart for chart in CHARTS if any(values_of(lines, curve.key)[0] for curve in chart.curves)]
    if not found:
        return None
    import matplotlib.figure

    rows = math.ceil(len(found) / COLUMNS)
    # A figure of its own, without pyplot: no window system is asked for, no state is shared.
    figure = matplotlib.figure.Figure(figsize=(4.6 * min(COLUMNS, len(found)), 3.2 * rows), layout="constrained")
    for place, chart in enumerate(found, start=1):
        _draw(figure.add_subplot(rows, min(COLUMNS, len(found)), place), chart, lines)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write_bytes(folder / PICTURE, picture.getvalue())
    return folder / PICTURE


def values_of(lines: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Steps and values of the lines that have a finite number for `key`."""
    pairs = [(line["step"], line[key]) for line in lines if isinstance(line.get(key), int | float)]
    finite = [(step, float(value)) for step, value in pairs if math.isfinite(value)]
    return [step for step, _ in finite], [value for _, value in finite]


def running_mean(values: Sequence[float], width: int) -> list[float]:
    """The mean of the last `width` values at each place, of fewer at the beginning."""
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - width) : end]
        means.append(sum(window) / len(window))
    return means


def _draw(axes: Any, chart: Chart, lines: Sequence[dict[str, Any]]) -> None:
    everything: list[float] = []
    for curve in chart.curves:
        steps, values = values_of(lines, curve.key)
        if not steps:
            continue
        everything += values
        if curve.points or len(steps) == 1:
            axes.plot(steps, values, "o", color=curve.colour, markersize=5, label=curve.label, zorder=3)
        elif len(steps) < SMOOTHED_FROM:
            axes.plot(steps, values, color=curve.colour, linewidth=1.5, label=curve.label)
        else:
            axes.plot(steps, values, color=curve.colour, linewidth=0.6, alpha=0.35)
            smooth = running_mean(values, max(5, len(values) // 30))
            axes.plot(steps, smooth, color=curve.colour, linewidth=1.8, label=curve.label)
    if chart.level is not None:
        axes.axhline(chart.level, color="#718096", linewidth=0.8, linestyle=":")
    if chart.logarithmic and min(everything) > 0 and max(everything) > LOGARITHMIC_FROM * min(everything):
        axes.set_yscale("log")
    else:
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    if chart.unit == "share of pairs":
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
