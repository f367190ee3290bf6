"""The closing table of a recipe: counts that add up, held-out accuracies with intervals, where the report is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipelines.recipe import Recipe
from rmo_train.tables import read_json, read_manifest

Row = tuple[str, str]


def count_rows(run: Path, shards: Path) -> list[Row]:
    """Records in, and where each of them went."""
    records = (read_manifest(run) or {})["counts"]
    pairs = (read_manifest(shards) or {})["counts"]
    rows = [("records in", f"{records['records']}"), ("rejected", f"{records['rejects']}")]
    names = (("noisy", "dropped as noisy"), ("ambiguous", "dropped as ambiguous"))
    rows += [(label, f"{pairs[reason]}") for reason, label in names]
    other = pairs["too_long"] + pairs["duplicate"] + pairs["decision"]
    if other:
        rows.append(("dropped for length, repetition or decision", f"{other}"))
    return [*rows, ("kept", f"{pairs['kept']}")]


def interval(entry: dict[str, Any], metric: str) -> tuple[float, float, float]:
    found = entry[metric]
    return found["value"], found["low"], found["high"]


def accuracy_rows(evaluations: Sequence[tuple[str, str, Path]], metric: str = "reward_accuracy") -> list[Row]:
    """Held-out accuracy of each model, and whether the last two can be told apart."""
    found = [(name, interval(read_json(file), metric)) for name, _, file in evaluations]
    rows = [
        (f"held-out {metric.replace('_', ' ')}, {name}", f"{v:.3f} [{low:.3f}, {high:.3f}]")
        for name, (v, low, high) in found
    ]
    for (name_a, a), (name_b, b) in pairwise(found):
        verdict = "not distinguishable" if a[1] <= b[2] and b[1] <= a[2] else ("higher" if b[0] > a[0] else "lower")
        rows.append((f"  {name_b} against {name_a}", verdict))
    return rows


def summary_table(recipe: Recipe, extra: Sequence[Row] = ()) -> None:
    """Print the table; `extra` rows stand between the counts and the accuracies."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title="Reward Margin Optimization")
    sections = [count_rows(recipe.run, recipe.shards), list(extra), accuracy_rows(recipe.evaluations())]
    for rows in [*sections, [("report", str(recipe.report / "report.html"))]]:
        for label, value in rows:
            table.add_row(label, value)
        if rows:
            table.add_section()
    Console(width=None if Console().is_terminal else 100).print(table)
