"""The demo's closing table: `python data/demo/scorecard.py RECIPE`, after `python -m pipelines.run RECIPE`.

The only reader of truth.jsonl: it says how many of the pairs that were dropped had really been swapped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pipelines.recipe import load_recipe
from pipelines.summary import Row, summary_table
from rmo_curate.runs import open_run
from rmo_train.tables import iter_parts, read_manifest

HERE = Path(__file__).parent


def dropped_ids(shards: Path) -> dict[str, str]:
    """Reason by id of every dropped pair."""
    dropped = (read_manifest(shards) or {})["dropped"]
    rows = [r for t in iter_parts(shards, dropped, ["id", "drop_reason"]) for r in t.to_pylist()]
    return {row["id"]: row["drop_reason"] for row in rows}


def share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / whole:.0%})" if whole else "none"


def truth_rows(run: Path, shards: Path, high_q: float) -> list[Row]:
    """What was really swapped or tied among the dropped, beside chance and beside the most that the quantile allows."""
    truth = {row["id"]: row for row in map(json.loads, (HERE / "truth.jsonl").read_text(encoding="utf-8").splitlines())}
    ids = open_run(run).pairs(["id"])["id"].to_pylist()
    dropped = dropped_ids(shards)
    flipped = {i for i in ids if truth[i]["flipped"]}
    ties = {i for i in ids if truth[i]["tie"]}
    noisy = {i for i, reason in dropped.items() if reason == "noisy"}
    ambiguous = {i for i, reason in dropped.items() if reason == "ambiguous"}
    most = min(len(noisy), len(flipped))
    return [
        ("swapped among all pairs (what dropping at random finds)", share(len(flipped), len(ids))),
        ("really swapped among dropped as noisy", share(len(noisy & flipped), len(noisy))),
        (f"swapped pairs found (at most {most} at --high-q {high_q})", share(len(noisy & flipped), len(flipped))),
        ("near-ties among all pairs", share(len(ties), len(ids))),
        ("near-ties among dropped as ambiguous", share(len(ambiguous & ties), len(ambiguous))),
    ]


def main(path: str) -> None:
    recipe = load_recipe(Path(path))
    summary_table(recipe, truth_rows(recipe.run, recipe.shards, recipe.filter.high_q))


if __name__ == "__main__":
    main(sys.argv[1])
