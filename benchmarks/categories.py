"""What a column with the kind of prompt adds to the evidence, on the constraint pairs of benchmarks.align.

    python -m benchmarks.categories --work FOLDER [--model smollm2-135m] [--draws 5]

An answer is better if it satisfies the constraint of its prompt, so each kind of constraint wants something else. Some
labels are flipped at random; the evidence is learned under these labels three times: with kinds in the prompts' words
only, with kinds in style, and with kinds in style and in the probe. Style alone is also measured with fewer features,
with a ridge in place of the lasso, and without words. The draws are none of those that choices were made on. The pairs
are scored once and kept in FOLDER. Writes benchmarks/results/categories.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.align_tasks import CONSTRAINTS, RESULTS, ROWS, Experiment, make_constraints, unpack_answers
from benchmarks.cells import Cell, DataSet, flipped, scored, texts_under_labels, under_labels
from benchmarks.detection import auroc, calibration_error
from benchmarks.environment import environment
from rmo_curate.evidence.posterior import folds_of
from rmo_curate.evidence.style import RIDGES, Style
from rmo_curate.evidence.texts import STYLE
from rmo_curate.filter.worth import clean_pairs
from rmo_curate.score.categories import Categories, fit_categories
from rmo_curate.score.logistic import cross_fit, unit_columns
from rmo_train.console.progress import say
from rmo_train.store.files import read_json, write_json

HERE = Path(__file__).parent
RATES = (0.0, 0.2, 0.3, 0.4)
FIRST_DRAW = 200
ADDED = (  # features of style that came later; the kinds of constraints were known then
    "sentences", "headings", "table rows", "semicolons", "dashes", "quotation marks", "brackets", "links", "emoji",
    "capital letters", "words in capitals", "ends with a question", "starts with a mark",
)  # fmt: skip


def constraint_pairs(work: Path) -> Path:
    """The training pairs of the constraints experiment as a file, with the column `kind`."""
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["align"]
    plan["sizes"]["gpu"]["answers"] = "gpu"  # those that were sampled, instead of sampling again
    x = Experiment(plan, "gpu", plan["model"], work / "pairs", work / "results")
    x.results.mkdir(parents=True, exist_ok=True)
    unpack_answers(x)
    make_constraints(x)
    path = work / f"{CONSTRAINTS}.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as f:
        f.writelines(json.dumps(row) + "\n" for row in read_json(x.work / CONSTRAINTS / ROWS))
    return path


def measure(data: DataSet, rate: float, draw: int) -> dict[str, dict[str, Any]]:
    """Figures under one draw of flips, by what knows the kinds."""
    rows, kinds = np.arange(len(data.rows)), np.array([row["kind"] for row in data.rows])
    wrong = flipped(Cell(CONSTRAINTS, "uniform", rate, draw), data, rows)
    ways: dict[str, dict[str, Any]] = {
        "words": {},
        "style": {"style_by": kinds},
        "style and probe": {"style_by": kinds, "categories": Categories.among(kinds)},
    }
    return {way: figures(data, rows, wrong, draw, known) for way, known in ways.items()}


def of_style(data: DataSet, rate: float, draw: int) -> dict[str, float]:
    """AUROC of style alone under the same flips, by what it knows."""
    rows, kinds = np.arange(len(data.rows)), np.array([row["kind"] for row in data.rows])
    wrong = flipped(Cell(CONSTRAINTS, "uniform", rate, draw), data, rows)
    texts = texts_under_labels(data, rows, wrong)
    folds, prompt = folds_of(texts.prompt), texts.prompt
    fewer = texts.style[:, [name not in ADDED for name in STYLE]]
    unit = (unit_columns(fewer) * np.sqrt(fewer.shape[1])).astype(np.float32)
    x, own = fewer / unit, Categories.among(kinds)
    margins = {
        "fewer features": Style.of(fewer, folds).margin,
        "fewer features, kinds by a ridge": fit_categories(x, folds, own, cross_fit(x, folds, RIDGES), RIDGES).margin,
        "fewer features, kinds": Style.of(fewer, folds, kinds).margin,
        "all features": Style.of(texts.style, folds).margin,
        "all features, words": Style.of(texts.style, folds, None, texts.words, prompt).margin,
        "all features, kinds": Style.of(texts.style, folds, kinds).margin,
    }
    return {way: auroc(wrong, -margin) for way, margin in margins.items()}


def figures(data: DataSet, rows: np.ndarray, wrong: np.ndarray, draw: int, known: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    found = under_labels(data, rows, wrong, draw, **known)
    posterior = found.posterior
    assert posterior is not None
    right, dropped = posterior.right, posterior.right < 0.5
    weights = {"as given": np.ones(len(rows)), "drop": (~dropped).astype(float), "soft-label": 2 * right - 1}
    return {
        "auroc": auroc(wrong, -posterior.margin) if wrong.any() else None,
        "noise_rate": posterior.noise.rate,
        "flipped": float(wrong.mean()),
        "dropped": float(dropped.mean()),
        "precision": float(wrong[dropped].mean()) if dropped.any() else None,
        "recall": float(dropped[wrong].mean()) if wrong.any() else None,
        "calibration_error": calibration_error(wrong, 1 - right),
        "worth": {action: clean_pairs((~wrong).astype(float), w) / len(rows) for action, w in weights.items()},
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("categories-work"))
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--draws", type=int, default=5)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    data = scored(CONSTRAINTS, constraint_pairs(given.work), None, given.model, given.work)
    cells = []
    for rate in RATES:
        for draw in range(FIRST_DRAW, FIRST_DRAW + (given.draws if rate else 1)):
            ways = measure(data, rate, draw)
            style = of_style(data, rate, draw) if rate else {}
            cells.append({"rate": rate, "draw": draw, "ways": ways, "style": style})
            said = (f"{way} {f['auroc'] or 0:.3f} {f['worth']['soft-label']:.3f}" for way, f in ways.items())
            say(f"{rate:.0%} flipped, draw {draw}: AUROC and worth of soft labels: {', '.join(said)}")
    write_json(
        RESULTS.parent / "categories.json",
        {"environment": environment(model=given.model), "pairs": len(data.rows), "cells": cells},
    )


if __name__ == "__main__":
    main()
