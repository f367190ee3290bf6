"""What a probe's settings are worth: folds, ridge, an average over splits, on prompts that no other figure uses.

    python -m benchmarks.probe --data TRAIN --gold GOLD --work FOLDER

The constants of rmo_curate/probe.py were chosen on this data set (`tuning` of plan.yaml). Each variant is asked under
labels flipped in several ways, from the same hidden states. Writes benchmarks/results/probe.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.baselines import with_baselines
from benchmarks.cells import Cell, flipped_ids, records, scored_as_given, with_probe
from benchmarks.detect import HERE, Truth
from benchmarks.detection import auroc, length_strata_of, matched_auroc, precision_at
from benchmarks.environment import environment
from rmo_train.tables import write_json

SEEDS = range(5)
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "2 folds": {"folds": 2},
    "5 folds": {"folds": 5},
    "20 folds": {"folds": 20},
    "ridge 0.3": {"ridge": 0.3},
    "ridge 1": {"ridge": 1.0},
    "ridge 10": {"ridge": 10.0},
    "ridge 30": {"ridge": 30.0},
    "mean of 3 splits": {"splits": 3},
}


def variant_figures(run: Path, flipped: set[str], truth: Truth, cell: Cell, **variant: Any) -> dict[str, list[float]]:
    """[length-matched AUROC, AUROC] on clear pairs and [precision of the first 5%] on all, by rule."""
    cell = replace(cell, folds=variant.pop("folds", cell.folds))
    splits = variant.pop("splits", 1)
    of_split = [with_probe(run, flipped, replace(cell, seed=1000 * k + cell.seed), **variant) for k in range(splits)]
    scores = replace(
        of_split[0],
        chosen_logp=np.mean([s.chosen_logp for s in of_split], axis=0),
        rejected_logp=np.mean([s.rejected_logp for s in of_split], axis=0),
    )
    assert scores.ids is not None
    ids = scores.ids.to_pylist()
    wrong, clear = (np.array([i in some for i in ids]) for some in (flipped, truth.clear))
    strata = length_strata_of(scores.chosen_tokens, scores.rejected_tokens)
    rules, found = with_baselines(grouped=True), {}
    for name in ("irm", "fuse"):
        s = rules[name].suspicion(scores)
        found[name] = [
            matched_auroc(wrong[clear], s[clear], strata[clear]),
            auroc(wrong[clear], s[clear]),
            precision_at(wrong, s, 0.05),
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gold", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("detect-work"))
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["detect"]
    ran_on = environment()
    rows = records(plan, "tuning", given.data)
    run, minutes = scored_as_given(Cell("tuning", "none", 0.0, 10, 0, probe=True), rows, plan["model"], given.work)
    results: dict[str, Any] = {}
    for flips in ("uniform", "longer"):
        for name, variant in VARIANTS.items():
            drawn: dict[str, list[list[float]]] = {}
            for seed in SEEDS:
                cell = Cell("tuning", flips, 0.2, 10, seed, probe=True)
                flipped = flipped_ids(rows, cell)
                figures = variant_figures(run, flipped, Truth.of(flipped, given.gold), cell, **dict(variant))
                for rule, values in figures.items():
                    drawn.setdefault(rule, []).append(values)
            results.setdefault(flips, {})[name] = {
                rule: {
                    what: {"mean": float(np.mean(column)), "sd": float(np.std(column)), "seeds": column}
                    for what, column in zip(
                        ("matched_auroc", "auroc", "precision_at_5"), map(list, zip(*values, strict=True)), strict=True
                    )
                }
                for rule, values in drawn.items()
            }
            irm, fuse = (results[flips][name][rule]["matched_auroc"]["mean"] for rule in ("irm", "fuse"))
            print(f"{flips}, {name}: length-matched AUROC irm {irm:.3f}, fuse {fuse:.3f}", flush=True)
    write_json(
        HERE / "results" / "probe.json",
        {"environment": ran_on, "minutes": minutes, "pairs": len(rows), "seeds": len(SEEDS), "results": results},
    )


if __name__ == "__main__":
    main()
