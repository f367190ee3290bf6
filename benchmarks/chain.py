"""Run a recipe and keep its numbers.

    python -m benchmarks.chain RECIPE --name NAME [--data TRAIN --eval-data HELDOUT] [--limit N] [--truth FILE]

Writes benchmarks/results/chain-NAME.json: counts, thresholds, speeds, held-out accuracies with intervals, and each
rule's AUROC where a truth file is given. Finished stages are not run again, so it can be called after the chain.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines import with_baselines
from benchmarks.cells import read_scores
from benchmarks.environment import environment
from rmo.recipe import Recipe, load_recipe
from rmo.run import run_recipe
from rmo_train.store.files import read_json, write_json
from rmo_train.store.manifests import RunManifest, ShardsManifest, require_manifest

RESULTS = Path(__file__).parent / "results"


def detection(recipe: Recipe, truth: Path) -> dict[str, Any]:
    """AUROC of every rule for the swapped pairs, on all pairs and without near-ties."""
    from sklearn.metrics import roc_auc_score

    rows = {row["id"]: row for row in map(json.loads, truth.read_text(encoding="utf-8").splitlines())}
    scores = read_scores(recipe.run)
    assert scores.ids is not None
    ids = scores.ids.to_pylist()
    flipped = np.array([rows[i]["flipped"] for i in ids])
    clear = ~np.array([rows[i]["tie"] for i in ids])
    found: dict[str, Any] = {"pairs": len(ids), "flipped": int(flipped.sum())}
    for name, rule in with_baselines(grouped=scores.groups is not None).items():
        s = rule.suspicion(scores)
        found[name] = {
            "auroc": float(roc_auc_score(flipped, s)),
            "auroc_clear": float(roc_auc_score(flipped[clear], s[clear])),
        }
    return found


def figures(file: Path) -> dict[str, Any]:
    """An evaluation without the margins of its pairs."""
    return {k: v for k, v in read_json(file).items() if k != "pairs"}


def collect(recipe: Recipe, truth: Path | None) -> dict[str, Any]:
    """Every number of the finished chain."""
    shards = require_manifest(recipe.shards, ShardsManifest, "rmo run")
    run = require_manifest(recipe.run, RunManifest, "rmo run")
    audited = read_json(recipe.audit.out / "audit.json")
    trained = {}
    for name, folder in (("rmo", recipe.train.out), ("plain", recipe.plain_trained)):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        trained[name] = {
            "steps": lines[-1]["step"],
            "pairs_per_second": lines[-1]["pairs_per_second"],
            "last": lines[-1],
        }
    return {
        "run": run.counts,
        "rejects": run.rejects,
        "noise_sd": run.noise_sd,
        "shards": shards.counts,
        "thresholds": shards.thresholds,
        "settings": shards.settings,
        "trained": trained,
        "held_out": {name: figures(file) for name, _, file in recipe.evaluations()},
        "detection": detection(recipe, truth) if truth else None,
        "audit": {name: audited[name] for name in ("noise_rate", "noise_rate_low", "noise_rate_high", "at_cut")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--data")
    parser.add_argument("--eval-data")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--truth", type=Path)
    given = parser.parse_args()
    recipe = load_recipe(given.recipe, given.data, given.eval_data, given.limit)
    ran_on = environment()
    run_recipe(recipe)
    write_json(RESULTS / f"chain-{given.name}.json", {"environment": ran_on, **collect(recipe, given.truth)})


if __name__ == "__main__":
    main()
