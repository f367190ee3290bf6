"""The summary table of a recipe: counts of records, held-out accuracies with intervals, the path of the report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rmo.recipe import Recipe
from rmo_train.report import of_prompts
from rmo_train.store.manifests import RunManifest, ShardsManifest, require_manifest

Row = tuple[str, str]


def count_rows(run: Path, shards: Path) -> list[Row]:
    """Input records by outcome."""
    records = require_manifest(run, RunManifest, "rmo run").counts
    pairs = require_manifest(shards, ShardsManifest, "rmo run").counts
    rows = [("records in", f"{records['records']}"), ("rejected", f"{records['rejects']}")]
    names = (("noisy", "dropped as noisy"), ("ambiguous", "dropped as ambiguous"))
    rows += [(label, f"{pairs[reason]}") for reason, label in names]
    if other := pairs["duplicate"] + pairs["decision"]:
        rows.append(("dropped as duplicate or by a reviewer", f"{other}"))
    if pairs["too_long"]:
        rows.append(("not scored: too long", f"{pairs['too_long']}"))
    return [*rows, ("kept", f"{pairs['kept']}")]


def accuracy_rows(evaluations: Sequence[tuple[str, str, Path]]) -> list[Row]:
    """Held-out reward accuracy of each model, and its paired difference from the previous model."""
    from rmo_train.evaluation.comparison import compare
    from rmo_train.evaluation.result import read_evaluation

    evaluated = [(name, str(file), read_evaluation(file)) for name, _, file in evaluations]
    rows = [("held-out pairs", of_prompts(one.n, one.prompts)) for _, _, one in evaluated[:1]]
    rows += [(f"held-out reward accuracy, {name}", str(measured.reward_accuracy)) for name, _, measured in evaluated]
    for (name_a, file_a, a), (name_b, file_b, b) in pairwise(evaluated):
        accuracy = compare(a, b, (file_a, file_b)).reward_accuracy
        rows.append((f"  {name_b} against {name_a}, paired", f"{accuracy.difference:+}, {accuracy.verdict}"))
    return rows


def summary(
    recipe: Recipe, extra: Sequence[Row] = (), evaluations: Sequence[tuple[str, str, Path]] = ()
) -> list[list[Row]]:
    """The table's sections: `extra` rows come between counts and accuracies, `evaluations` of further models after the
    recipe's own."""
    sections = [
        count_rows(recipe.run, recipe.shards),
        list(extra),
        accuracy_rows([*recipe.evaluations(), *evaluations]),
        [("report", str(recipe.audit.out / "report.html"))],
    ]
    return [rows for rows in sections if rows]


def print_table(sections: Sequence[Sequence[Row]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, title="Reward Margin Optimization")
    for rows in sections:
        for label, value in rows:
            table.add_row(label, value)
        table.add_section()
    Console(width=None if Console().is_terminal else 100).print(table)
