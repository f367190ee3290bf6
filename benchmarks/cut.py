"""What the filter's default and its cut cost and bring, by number of pairs and share of flipped labels.

    python -m benchmarks.cut --work FOLDER [--model smollm2-135m] [--shared ../shared/data]

Labels are flipped at random, and the evidence is learned under these labels. Then labels are softened, in full and as
far as it pays, and pairs are dropped: every one whose label is more likely wrong than right, and as many as it pays to
drop (`rmo_curate.filter.worth`). The result is compared with the labels as given, by the number of clean pairs that it
is worth under the true labels. The rules were chosen on draws from 700 on, after draws from 300, 400 and 500 on had
shown what others cost; none of those is used here. Data sets are scored once and kept in FOLDER; of judged pairs and
HH-RLHF the first 1,000 records. Also measured (`grid`): the draws of constraint pairs on which the alignment grid
trains. Writes benchmarks/results/cut.json.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.align_tasks import CONSTRAINTS, RESULTS
from benchmarks.categories import constraint_pairs
from benchmarks.cells import Cell, DataSet, flipped, members, scored, under_labels
from benchmarks.environment import environment
from rmo_curate.evidence.gather import JudgedLabels
from rmo_curate.filter.budget import most_suspect_first, paying_cut
from rmo_curate.filter.worth import best_softness, clean_pairs
from rmo_train.console.progress import say
from rmo_train.data.pairs import softened
from rmo_train.store.files import write_json

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
FIRST_DRAW, DRAWS, FEW = 600, 6, 3  # FEW: draws of the largest size
GRID_DRAWS = range(3)  # on which the alignment grid trains
SIZES = {CONSTRAINTS: (150, 300, 600, 1500, None), "judged": (150, 300, None), "hh": (150, 300, None)}  # None: all
FILES = {"judged": "judged_pairs/train.jsonl.gz", "hh": "hh_harmless_base_test.jsonl.gz"}
RECORDS = 1000


def first_records(source: Path, path: Path) -> Path:
    if not path.exists():
        with gzip.open(source, "rt", encoding="utf-8") as read, gzip.open(path, "wt", encoding="utf-8") as write:
            write.writelines(islice(read, RECORDS))
    return path


def measure(cell: Cell, data: DataSet, kinds: np.ndarray | None) -> dict[str, Any]:
    """One draw of flips. kinds: category of each pair of the data, where a column names it."""
    rows = members(cell, data, {})
    wrong = flipped(cell, data, rows)
    found = under_labels(data, rows, wrong, cell.seed, style_by=None if kinds is None else kinds[rows])
    posterior, labels = found.posterior, JudgedLabels.of_scores(found)
    assert posterior is not None
    truth, suspicion = (~wrong).astype(float), -posterior.log_odds
    as_given = clean_pairs(truth)
    order = most_suspect_first(labels, suspicion)
    gone = {"doubted": len(order), "cut": paying_cut(labels, order, len(rows)).pairs}
    weights = {"soft-label": 2 * posterior.right - 1}
    for name, pairs in gone.items():
        weights[name] = np.ones(len(rows))
        weights[name][order[:pairs]] = 0
    softness = best_softness(labels.right, labels.margin, labels.resampled)
    weights["auto"] = 2 * softened(posterior.right, softness) - 1
    rate = labels.resampled.rate
    return {
        "pairs": len(rows),
        "softness": softness,
        "wrong": float(wrong.mean()),
        "noise_rate": [rate.value, rate.low, rate.high],
        "dropped": gone,
        "precision": {name: float(wrong[order[:pairs]].mean()) if pairs else None for name, pairs in gone.items()},
        "times": {name: clean_pairs(truth, weight) / as_given for name, weight in weights.items()},
    }


def measured(
    name: str, data: DataSet, size: int | None, draws: Sequence[int], known: Sequence[np.ndarray | None]
) -> list[dict[str, Any]]:
    """Draws at every rate, `size` pairs each (None: all); without and with kinds, as `known` has them."""
    cells = []
    for rate, draw in ((rate, draw) for rate in RATES for draw in draws):
        cell = Cell(name, "uniform" if rate else "none", rate, draw, pairs=size)
        for kinds in known:
            of = {"data": name, "size": size, "rate": rate, "draw": draw, "kinds": kinds is not None}
            cells.append(of | measure(cell, data, kinds))
        say(f"{cell.name}: worth under the true labels {cells[-1]['times']}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("cut-work"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    cells, grid = [], []
    for name, sizes in SIZES.items():
        if name == CONSTRAINTS:
            path = constraint_pairs(given.work)
        else:
            path = first_records(given.shared / FILES[name], given.work / f"{name}.jsonl.gz")
        data = scored(name, path, None, given.model, given.work)
        known = [None, np.array([row["kind"] for row in data.rows])] if name == CONSTRAINTS else [None]
        for size in sizes:
            draws = range(FIRST_DRAW, FIRST_DRAW + (DRAWS if size and size < 1000 else FEW))
            cells += measured(name, data, size, draws, known)
        if name == CONSTRAINTS:
            grid = measured(name, data, None, GRID_DRAWS, known[1:])
    found = {"environment": environment(model=given.model), "cells": cells, "grid": grid}
    write_json(RESULTS.parent / "cut.json", found)


if __name__ == "__main__":
    main()
