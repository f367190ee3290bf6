"""The demo's closing table: `python data/demo/scorecard.py RECIPE [JSON]`, after `rmo run RECIPE`.

JSON: a file to keep the rows in, as benchmarks/results/demo.json does for the README.

The only reader of truth.jsonl: it says how many of the pairs that were doubted had really been swapped, and trains on
the true labels what plain DPO was trained on as labelled, which is the most that curation could bring.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from rmo.recipe import Recipe, load_recipe
from rmo.run import measure
from rmo.summary import Row, print_table, summary
from rmo_curate.filter.command import run_filter
from rmo_curate.filter.reviews import SCHEMA
from rmo_curate.filter.settings import FilterSettings
from rmo_train.store.files import write_json
from rmo_train.store.manifests import ShardsManifest, require_manifest
from rmo_train.store.tables import iter_parts
from rmo_train.training.command import run_training

HERE = Path(__file__).parent


def truth() -> dict[str, dict[str, Any]]:
    rows = (HERE / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, rows)}


def share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "none"


def truth_rows(shards: Path) -> list[Row]:
    """What was really swapped or tied, beside what was doubted and dropped."""
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
        ("swapped among all pairs (what guessing finds)", share(int(wrong.sum()), len(wrong))),
        (
            f"mean P(label right): {int(wrong.sum())} swapped, {int((~wrong).sum())} others",
            f"{right[wrong].mean():.2f}, {right[~wrong].mean():.2f}",
        ),
        ("really swapped where P is below 0.5", share(int((doubted & wrong).sum()), int(doubted.sum()))),
        ("swapped pairs found so", share(int((doubted & wrong).sum()), int(wrong.sum()))),
    ]
    for name, kind in (("noisy", wrong), ("ambiguous", ties)):
        gone = np.array([r == name for r in reason])
        if gone.any():
            what = "really swapped" if name == "noisy" else f"near-ties ({share(int(ties.sum()), len(ties))} of all)"
            rows.append((f"{what} among dropped as {name}", share(int((gone & kind).sum()), int(gone.sum()))))
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


def main(path: str, kept: str | None = None) -> None:
    recipe = load_recipe(Path(path))
    evaluations = oracle(recipe)
    sections = summary(recipe, truth_rows(recipe.shards), evaluations)
    if kept:
        write_json(Path(kept), sections)
    print_table(sections)


if __name__ == "__main__":
    main(*sys.argv[1:])
