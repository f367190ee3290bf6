"""How well the posterior and other rules find flipped labels: the grid of benchmarks/plan.yaml, cell by cell.

    python -m benchmarks.detect --data judged=TRAIN --gold judged=GOLD --data hh=FILE --work FOLDER [--cell NAME]
    python -m benchmarks.detect --table [--write]        (--write: also the learning curve that the audit shows)

A cell flips some labels by a hash of id and seed and learns everything under the flipped labels; only then are the
results compared with the flips. GOLD has the judge's log-odds, which distinguish clear pairs from near-ties, and the
names of the models that wrote the answers; stages use only the latter, in cells where generators are evidence.

Writes benchmarks/results/detect/<cell>.json; a cell that is there is not run again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.baselines import confidence, with_baselines
from benchmarks.cells import Cell, DataSet, cells, flipped, members, scored, signs, under_labels, without_model
from benchmarks.detect_table import curves, grouped, tables
from benchmarks.detection import (
    DRAWS,
    auroc,
    brier,
    calibration,
    calibration_error,
    figures,
    length_strata_of,
    matched_difference,
    precision_at,
)
from benchmarks.environment import environment
from rmo_curate.runs.run import Scores
from rmo_train.store.files import write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "detect"
CURVE = HERE.parent / "rmo_curate" / "evidence" / "learning_curve.json"
POSTERIOR = "posterior"
COMPARED = ("irm", "length", "rmo")  # what the posterior is compared with, on the same draws of prompts
HIGH_Q = 0.95  # the filter's default
FIRST = 0.05  # share of the pairs that it drops at most


def measure(
    scores: Scores, wrong: np.ndarray, clear: np.ndarray, ties: np.ndarray, groups: np.ndarray
) -> dict[str, Any]:
    """Every rule against the truth, on all pairs and on the clear ones; the estimates made without it.

    wrong, clear, ties: bool [pairs]. groups: prompts, what intervals are drawn over.
    """
    from rmo_curate.runs.margins import MARGINS

    assert scores.posterior is not None
    strata = length_strata_of(scores.chosen_tokens, scores.rejected_tokens)
    subsets = {"all": np.ones(len(wrong), dtype=bool)} | ({"clear": clear} if clear.any() else {})

    def all_figures(s: np.ndarray, intervals: bool = False) -> dict[str, Any]:
        found = {
            subset: figures(
                wrong[rows], s[rows], strata[rows], groups[rows], float(wrong[rows].mean()), intervals=intervals
            )
            for subset, rows in subsets.items()
        }
        return found | {"first": precision_at(wrong, s, FIRST)}

    suspicions = {name: rule.suspicion(scores) for name, rule in with_baselines(grouped=True).items()}
    by_source = {source: -scores.posterior.adds[:, j] for j, source in enumerate(scores.posterior.sources)}
    by_cleanlab, issues = cleanlab_of(scores)
    rules = {
        name: all_figures(s, name in (POSTERIOR, *COMPARED))
        for name, s in (suspicions | {"cleanlab": by_cleanlab}).items()
    }
    rules["cleanlab"]["issues"] = {"flagged": int(issues.sum()), "precision": float(wrong[issues].mean())}
    rows = clear if clear.any() else subsets["all"]
    s = suspicions[POSTERIOR]
    return {
        "rules": rules,
        "sources": {name: all_figures(values) for name, values in by_source.items() if np.ptp(values) > 0},
        "differences": {
            other: matched_difference(wrong[rows], s[rows], suspicions[other][rows], strata[rows], groups[rows])
            for other in COMPARED
            if wrong.any()
        },
        "near_ties_auroc": {name: auroc(ties, -np.abs(margin(scores))) for name, margin in MARGINS.items()}
        if ties.any()
        else None,
        "estimates": estimated(scores, wrong),
        "gaps": exaggeration(scores, wrong),
    }


def cleanlab_of(scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """(suspicion [pairs], what it calls label issues [pairs]) of cleanlab, given the probe's held-out probabilities:
    both orientations of every pair, so that both classes are there."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    p = confidence(scores)
    known = np.isfinite(p)
    p = p[known]
    first, labels = np.concatenate([p, 1 - p]), np.repeat([1, 0], len(p))
    probabilities = np.stack([1 - first, first], axis=1)
    suspicion, issues = np.full(len(known), np.nan), np.zeros(len(known), dtype=bool)
    suspicion[known] = 1 - get_label_quality_scores(labels, probabilities)[: len(p)]
    issues[known] = find_label_issues(labels, probabilities)[: len(p)]
    return suspicion, issues


def estimated(scores: Any, wrong: np.ndarray) -> dict[str, Any]:
    """Estimates made without the truth, compared with it: the noise rate, calibration, and swapped copies at --high-q
    0.95."""
    from rmo_curate.evidence import swapped_copies
    from rmo_curate.evidence.label_noise import Resampled
    from rmo_curate.filter.rule_comparison import flagged_by
    from rmo_curate.filter.thresholds import noisy_budget

    posterior = scores.posterior
    rules, resampled = with_baselines(grouped=True), Resampled(posterior.margin, posterior.groups)
    found = {}
    for name in (POSTERIOR, "irm"):
        given, swapped = flagged_by(rules[name], scores, noisy_budget(len(wrong), HIGH_Q))
        found[name] = {
            "flagged": int(given.sum()),
            "canaries": asdict(swapped_copies.detection(given, swapped, resampled)),
            "true_precision": float(wrong[given].mean()) if given.any() else None,
            "true_recall": float(given[wrong].mean()) if wrong.any() else None,
        }
    return {
        "noise_rate": vars(resampled.rate),
        "flipped": float(wrong.mean()),
        "slope": posterior.noise.slope,
        "variance": posterior.variance,
        "calibration_error": calibration_error(wrong, 1 - posterior.right),
        "calibration": calibration(wrong, 1 - posterior.right),
        "brier": brier(wrong, 1 - posterior.right),
        "brier_of_the_rate": float(wrong.mean() * (1 - wrong.mean())),
        "rules": found,
    }


def exaggeration(scores: Any, wrong: np.ndarray) -> dict[str, dict[str, float]]:
    """By how much length and style favour chosen answers, over what they do under the true labels: of all pairs as
    labelled, of those that the filter keeps, at --high-q 0.95 and dropping as many as are flipped, and of soft
    labels. Only features that favour chosen answers or rejected ones under the true labels."""
    from rmo_curate.evidence.style import gaps
    from rmo_curate.filter.thresholds import most_suspect, noisy_budget

    posterior = scores.posterior
    difference = posterior.style.difference
    everything = np.ones(len(wrong), dtype=bool)
    truth = {g.feature: g.before for g in gaps(difference * signs(wrong), everything)}
    s = -posterior.log_odds
    rate = max(float(wrong.mean()), 1 - HIGH_Q)
    ways = {
        "as labelled": (everything, None),
        "high-q 0.95": (~most_suspect(s, scores.ids, noisy_budget(len(wrong), HIGH_Q)), None),
        "as many as are flipped": (~most_suspect(s, scores.ids, noisy_budget(len(wrong), 1 - rate)), None),
        "soft labels": (everything, 2 * posterior.right - 1),
    }
    found: dict[str, dict[str, float]] = {name: {} for name in truth}
    for way, (kept, effect) in ways.items():
        for gap in gaps(difference, kept, effect, least=0):
            if gap.feature in truth:
                found[gap.feature][way] = gap.after / truth[gap.feature]
    return found


def run(cell: Cell, data: DataSet, part: dict[str, Any]) -> dict[str, Any]:
    """The figures of one cell."""
    rows = members(cell, data, part)
    wrong = flipped(cell, data, rows)
    scores = under_labels(data, rows, wrong, cell.seed, generators=cell.generators)
    clarity = np.array([data.gold.get(data.rows[i]["id"], {}).get("clarity") for i in rows])
    clear, groups = clarity == "clear", data.prompts[rows]
    found = measure(scores, wrong, clear, clarity == "ambiguous", groups)
    texts = without_model(data, rows, wrong)
    some, strata = clear if clear.any() else ~clear, length_strata_of(scores.chosen_tokens, scores.rejected_tokens)
    found["without_model"] = {
        **figures(wrong[some], -texts.log_odds[some], strata[some], groups[some], float(wrong[some].mean())),
        "first": precision_at(wrong, -texts.log_odds, FIRST),
        "noise_rate": texts.noise.rate,
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], help="NAME=FILE, a file of the plan; repeatable")
    parser.add_argument("--gold", action="append", default=[], help="NAME=FILE, the judge's log-odds; repeatable")
    parser.add_argument("--work", type=Path, default=Path("detect-work"))
    parser.add_argument("--cell", action="append", help="only cells of this name; repeatable")
    parser.add_argument("--only", action="append", help="only cells of this data set of the plan; repeatable")
    parser.add_argument("--again", action="store_true", help="recompute the results of finished cells")
    parser.add_argument("--table", action="store_true", help="print the tables of the finished cells")
    parser.add_argument(
        "--write", action="store_true", help="with --table: write the learning curve that the audit shows"
    )
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["detect"]
    grid = cells(plan)
    if given.table:
        print("\n".join(tables(grid, RESULTS)))
        if given.write:
            write_json(CURVE, curves(grouped(grid, RESULTS)))
        return
    files, gold = (
        {name: Path(path) for name, _, path in (text.partition("=") for text in texts)}
        for texts in (given.data, given.gold)
    )
    data: dict[str, DataSet] = {}
    for cell in grid:
        part, out = plan["data"][cell.data], RESULTS / f"{cell.name}.json"
        file = part["file"]
        wanted = (not given.cell or cell.name in given.cell) and (not given.only or cell.data in given.only)
        if out.exists() != given.again or file not in files or not wanted:
            continue
        if file not in data:
            data[file] = scored(file, files[file], gold.get(file), plan["model"], given.work)
        result = run(cell, data[file], part)
        about = {"environment": environment(), "cell": vars(cell), "reference": data[file].reference}
        about["minutes"] = data[file].minutes
        write_json(out, about | {"bootstrap_draws": DRAWS} | result)
        print(f"{cell.name}: written", flush=True)


if __name__ == "__main__":
    main()
