"""`rmo demo`: runs pipelines/quickstart.yaml on the pairs of data/demo, and compares with the true labels.

Recipe and pairs come with the package: in a clone at its top, in a wheel beside this module (see setup.py).

Only this module reads truth.jsonl. It reports how many of the doubted pairs were really swapped, and trains plain DPO
on the true labels, the best that curation could achieve.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from rmo.recipe import Recipe, recipe_of
from rmo.run import measure, run_recipe
from rmo.summary import Row, print_table, summary
from rmo_curate.filter.command import run_filter
from rmo_curate.filter.reviews import SCHEMA
from rmo_curate.filter.settings import FilterSettings
from rmo_train.console.settings import read_recipe
from rmo_train.store.files import write_json
from rmo_train.store.manifests import ShardsManifest, require_manifest
from rmo_train.store.tables import iter_parts
from rmo_train.training.command import run_training

PACKAGE = Path(__file__).parent
ROOT = PACKAGE if (PACKAGE / "data").is_dir() else PACKAGE.parent
RECIPE = ROOT / "pipelines" / "quickstart.yaml"
DATA = "data/demo/"  # prefix of the recipe's input paths
RESULTS = "demo-run/"  # prefix of its output paths


def run_demo(out: Path, kept: Path | None = None, *, dry_run: bool = False) -> None:
    """Run all stages with results under `out`, then print the table. kept: a JSON file for the table's rows."""
    recipe = demo_recipe(out)
    run_recipe(recipe, dry_run=dry_run)
    if dry_run:
        return
    evaluations = oracle(recipe)
    sections = summary(recipe, truth_rows(recipe.shards), evaluations)
    if kept:
        write_json(kept, sections)
    print_table(sections)


def demo_recipe(out: Path) -> Recipe:
    """The quickstart recipe with its results under `out` and the bundled pairs."""
    sections = {
        section: {field: _placed(value, out) for field, value in fields.items()}
        for section, fields in read_recipe(RECIPE).items()
    }
    return recipe_of(sections, RECIPE)


def _placed(value: Any, out: Path) -> Any:
    """A value of the recipe; a path is made valid for a demo run from any folder."""
    if not isinstance(value, str):
        return value
    if value.startswith(RESULTS):
        return str(out / value.removeprefix(RESULTS))
    if value.startswith(DATA):
        path, here = ROOT / value, Path.cwd()
        return str(path.relative_to(here) if path.is_relative_to(here) else path)
    return value


def truth() -> dict[str, dict[str, Any]]:
    rows = (ROOT / DATA / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, rows)}


def share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "none"


def truth_rows(shards: Path) -> list[Row]:
    """Rows that compare doubted and dropped pairs with those that are really swapped or tied."""
    manifest = require_manifest(shards, ShardsManifest, "rmo run")
    known, swapped, tied, confidence, reason = truth(), [], [], [], []
    for parts, dropped in ((manifest, False), (manifest.dropped, True)):
        columns = ["id", "label_confidence", *(["drop_reason"] if dropped else [])]
        for row in (r for table in iter_parts(shards, parts, columns) for r in table.to_pylist()):
            swapped.append(known[row["id"]]["flipped"])
            tied.append(known[row["id"]]["tie"])
            confidence.append(row["label_confidence"])
            reason.append(row.get("drop_reason"))
    wrong, ties, right = np.array(swapped), np.array(tied), np.array(confidence)
    doubted = right < 0.5
    rows = [
        ("swapped pairs, as a share of all pairs", share(int(wrong.sum()), len(wrong))),
        (
            f"mean P(label right): {int(wrong.sum())} swapped, {int((~wrong).sum())} others",
            f"{right[wrong].mean():.2f}, {right[~wrong].mean():.2f}",
        ),
        ("pairs with P below 0.5 that are swapped", share(int((doubted & wrong).sum()), int(doubted.sum()))),
        ("swapped pairs with P below 0.5", share(int((doubted & wrong).sum()), int(wrong.sum()))),
    ]
    for name, kind in (("noisy", wrong), ("ambiguous", ties)):
        gone = np.array([r == name for r in reason])
        if gone.any():
            what = "swapped" if name == "noisy" else f"near-ties ({share(int(ties.sum()), len(ties))} of all are)"
            rows.append((f"pairs dropped as {name} that are {what}", share(int((gone & kind).sum()), int(gone.sum()))))
    return rows


def oracle(recipe: Recipe) -> list[tuple[str, str, Path]]:
    """Plain training on the true labels, evaluated: (name, model, JSON file)."""
    if recipe.eval is None:
        return []
    folder = recipe.shards.parent
    flips = [{"id": i, "action": "flip"} for i, row in truth().items() if row["flipped"]]
    decisions = folder / "true-labels.json"
    write_json(decisions, {"schema": SCHEMA, "decisions": flips})
    shards, model = folder / "shards-true", folder / "model-true"
    run_filter(recipe.run, shards, FilterSettings(rule="none", decisions=decisions))
    run_training(shards, recipe.train.model, model, recipe.plain_train)
    file = recipe.eval.out / "true-labels.json"
    measure(recipe.eval.run, str(model), file)
    return [("true labels", str(model), file)]
