"""Values for tables and claims, computed from the results of detection's cells, grouped over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cells import Cell

DATA = {
    "tuning": "prompts 116 to 230",
    "judged": "first 115 prompts",
    "all": "all judged",
    "heldout": "held-out prompts",
}
FLIPS = {"uniform": "at random", "longer": "longer wins", "formatted": "formatted wins", "generator": "favoured model"}
POSTERIOR = "posterior"
WAYS = ("as labelled", "high-q 0.95", "as many as are flipped", "soft labels")
Result = dict[str, Any]
Seeds = list[Result]  # the results of cells that differ by their seed alone


@dataclass(frozen=True)
class Group:
    """Cells that differ only by their seed."""

    data: str
    flips: str
    rate: float
    pairs: int | None = None
    generators: bool = False

    @classmethod
    def of(cls, cell: Cell) -> Group:
        return cls(cell.data, cell.flips, cell.rate, cell.pairs, cell.generators)

    @property
    def title(self) -> str:
        flips = f"{self.rate:.0%} {FLIPS[self.flips]}" if self.rate else "no flips"
        size = f", {self.pairs:,} pairs" if self.pairs else ""
        return f"{DATA.get(self.data, 'HH')}{size}, {flips}" + (", writers known" if self.generators else "")


Groups = dict[Group, Seeds]
MAIN = tuple(
    Group(data, flips, 0.2)
    for data, flips in (
        ("judged", "uniform"),
        ("all", "uniform"),
        ("all", "longer"),
        ("hh", "uniform"),
        ("heldout", "uniform"),
    )
)


def matched(figures: Result) -> float:
    """Length-matched AUROC, on clear pairs where the judge's log-odds tell which are clear."""
    value: float = figures.get("clear", figures["all"])["matched_auroc"]["value"]
    return value


def of_rule(name: str) -> Callable[[Result], float]:
    return lambda result: matched(result["rules"][name])


def plain(name: str) -> Callable[[Result], float]:
    """AUROC of a rule on all pairs."""
    return lambda result: float(result["rules"][name]["all"]["auroc"]["value"])


def first(result: Result) -> float:
    value: float = result["rules"][POSTERIOR]["first"]
    return value


def calibration_error(result: Result) -> float:
    value: float = result["estimates"]["calibration_error"]
    return value


def rate(result: Result) -> float:
    value: float = result["estimates"]["noise_rate"]["value"]
    return value


def flipped(result: Result) -> float:
    value: float = result["estimates"]["flipped"]
    return value


def covers(result: Result) -> bool:
    """Whether the interval of the noise rate holds the truth."""
    said = result["estimates"]["noise_rate"]
    return bool(said["low"] <= flipped(result) <= said["high"])


def increments(seeds: Seeds, none: Seeds) -> list[float]:
    """(est(f) - est(0)) / (1 - 2 est(0)), seed by seed; est(0) is the mean over seeds without flips."""
    zero = mean(none, rate)
    return [(rate(result) - zero) / (1 - 2 * zero) for result in seeds]


def worst_gap(seeds: Seeds, way: str) -> tuple[str, float]:
    """The feature whose gap is largest beside the gap under true labels, and that ratio, a mean over seeds."""
    ratios = {name: float(np.mean([r["gaps"][name][way] for r in seeds])) for name in seeds[0]["gaps"]}
    return max(ratios.items(), key=lambda one: one[1])


def mean(seeds: Seeds, value: Callable[[Result], float]) -> float:
    return float(np.mean([value(result) for result in seeds]))


def spread(values: Sequence[float | None], digits: int = 2) -> str:
    """The mean, and the least and the most of several seeds; those without a value (where no pair is dropped, nothing
    is found among them) are left out."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known:
        return "-"
    low, middle, high = (f"{v:.{digits}f}" for v in (min(known), np.mean(known), max(known)))
    return middle if len(known) == 1 else f"{middle} ({low}–{high})"


def over(seeds: Seeds, value: Callable[[Result], float], digits: int = 2) -> str:
    return spread([value(result) for result in seeds], digits)
