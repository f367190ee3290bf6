"""How well each rule finds flipped labels, held out: the grid of benchmarks/plan.yaml, a resumable job a cell.

    python -m benchmarks.detect --data judged=TRAIN --gold judged=GOLD --data hh=FILE --work FOLDER [--cell NAME]
    python -m benchmarks.detect --table

A cell flips some labels by a hash of id and seed, scores the pairs and their proxies, and only then compares every rule
with what was flipped. GOLD, the judge's log-odds, tells clear pairs from near-ties; no stage reads it.

Cells of trained proxies run `rmo-curate` on the flipped pairs as a user would. Cells of probes score a data set and
read its hidden states once, as given: a flip exchanges a pair's log-probs and reverses the difference of its states,
exactly, so the probe is fitted on the flipped labels without another forward pass (a test compares that with the
commands on the flipped file).

Writes benchmarks/results/detect/<cell>.json; a cell that is there is not run again.
"""

from __future__ import annotations

import argparse
import gzip
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.baselines import confidence, with_baselines
from benchmarks.cells import (
    cells,
    flipped_ids,
    prompt_of,
    read_scores,
    records,
    run_cell,
    scored_as_given,
    with_probe,
)
from benchmarks.detect_table import tables
from benchmarks.detection import DRAWS, auroc, calibration_error, figures, length_strata_of, matched_difference
from benchmarks.environment import environment
from rmo_curate.runs import Scores
from rmo_train.tables import write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "detect"
COMPARED = (("fuse", "irm"), ("fuse", "length"), ("irm", "length"), ("fuse", "rmo"), ("irm", "rmo"))
HIGH_Q = 0.95  # the filter's default


@dataclass(frozen=True)
class Truth:
    """What no stage has read: ids of flipped pairs, and by the judge's log-odds those of clear pairs and near-ties."""

    flipped: set[str]
    clear: set[str]
    ties: set[str]

    @classmethod
    def of(cls, flipped: set[str], gold: Path | None) -> Truth:
        """Without gold nothing is known to be clear or a near-tie."""
        if gold is None:
            return cls(flipped, set(), set())
        with gzip.open(gold, "rt", encoding="utf-8") as f:
            clarity = {row["id"]: row["clarity"] for row in map(json.loads, f)}
        return cls(flipped, *({i for i, c in clarity.items() if c == kind} for kind in ("clear", "ambiguous")))


def measure(truth: Truth, scores: Scores, prompts: dict[str, str]) -> dict[str, Any]:
    """Every rule against the truth, on all pairs and on the clear ones; the estimates made without it.

    prompts: id -> prompt, what intervals are drawn over.
    """
    from rmo_curate.margins import MARGINS, reward

    assert scores.ids is not None
    held_out = scores.groups is not None and bool(scores.held_out[0])
    ids = scores.ids.to_pylist()
    groups = np.array([prompts[i] for i in ids], dtype=object)
    wrong, clear, ties = (np.array([i in some for i in ids]) for some in (truth.flipped, truth.clear, truth.ties))
    strata = length_strata_of(scores.chosen_tokens, scores.rejected_tokens)
    subsets = {"all": np.ones(len(ids), dtype=bool)} | ({"clear": clear} if clear.any() else {})

    def all_figures(s: np.ndarray) -> dict[str, Any]:
        return {
            subset: figures(wrong[rows], s[rows], strata[rows], groups[rows], float(wrong[rows].mean()))
            for subset, rows in subsets.items()
        }

    suspicions = {name: rule.suspicion(scores) for name, rule in with_baselines(grouped=held_out).items()}
    rules = {name: all_figures(s) for name, s in suspicions.items()}
    rows = clear if clear.any() else subsets["all"]
    differences = {
        f"{a} - {b}": matched_difference(
            wrong[rows], suspicions[a][rows], suspicions[b][rows], strata[rows], groups[rows]
        )
        for a, b in COMPARED
        if a in suspicions and wrong.any()
    }
    if held_out:
        by_cleanlab, issues = cleanlab_of(scores)
        rules["cleanlab"] = all_figures(by_cleanlab)
        rules["cleanlab"]["issues"] = {"flagged": int(issues.sum()), "precision": float(wrong[issues].mean())}
    ambiguity = {name: auroc(ties, -np.abs(margin(scores))) for name, margin in MARGINS.items()} if ties.any() else None
    return {
        "trajectory": list(scores.names),
        "rules": rules,
        "irm_by_step": {name: all_figures(-reward(scores, m)) for m, name in enumerate(scores.names) if m},
        "differences": differences,
        "near_ties_auroc": ambiguity,
        "estimates": estimated(scores, wrong) if held_out else None,
    }


def cleanlab_of(scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """(suspicion [pairs], what it calls label issues [pairs]) of cleanlab, given the same held-out probabilities that
    `cl` has: both orientations of every pair, so that both classes are there."""
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
    """The noise rate, the self-check and canaries at the default cut, beside the truth."""
    from rmo_curate import canaries
    from rmo_curate.margins import reward
    from rmo_curate.noise_rate import Resampled, fit_noise, noise_margin
    from rmo_curate.rule_report import flagged_by
    from rmo_curate.thresholds import noisy_budget

    rules, resampled = with_baselines(grouped=True), Resampled(scores)
    found = {}
    for name in ("irm", "irm-ln", "fuse"):
        given, swapped = flagged_by(rules[name], scores, noisy_budget(len(wrong), HIGH_Q))
        found[name] = {
            "canaries": asdict(canaries.find(given, swapped, resampled)),
            "true_precision": float(wrong[given].mean()) if given.any() else None,
            "true_recall": float(given[wrong].mean()) if wrong.any() else None,
        }
    margin = noise_margin(scores)
    return {
        "noise_rate": vars(resampled.rate),
        "flipped": float(wrong.mean()),
        "self_check": vars(canaries.self_check(reward(scores), resampled.rate.value)),
        "calibration_error": calibration_error(wrong, fit_noise(margin).wrong(margin)),
        "rules": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], help="NAME=FILE, a name of the plan's data; repeatable")
    parser.add_argument("--gold", action="append", default=[], help="NAME=FILE, the judge's log-odds; repeatable")
    parser.add_argument("--work", type=Path, default=Path("detect-work"))
    parser.add_argument("--cell", action="append", help="only cells of this name; repeatable")
    parser.add_argument("--again", action="store_true", help="compute the figures of finished cells anew")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["detect"]
    if given.table:
        print("\n".join(tables(cells(plan), RESULTS)))
        return
    files, gold = (
        {name: Path(path) for name, _, path in (text.partition("=") for text in texts)}
        for texts in (given.data, given.gold)
    )
    for cell in cells(plan):
        out, path = RESULTS / f"{cell.name}.json", files.get(cell.data)
        if out.exists() != given.again or path is None or (given.cell and cell.name not in given.cell):
            continue
        ran_on = environment()
        rows = records(plan, cell.data, path)
        flipped = flipped_ids(rows, cell)
        if cell.probe:
            run, minutes = scored_as_given(cell, rows, plan["model"], given.work)
            scores = with_probe(run, flipped, cell)
        else:
            minutes = run_cell(cell, rows, plan["model"], given.work)
            scores = read_scores(given.work / cell.name / "run")
        prompts = {row["id"]: prompt_of(row) for row in rows}
        found = measure(Truth.of(flipped, gold.get(cell.data)), scores, prompts)
        result = {"environment": ran_on, "cell": vars(cell), "minutes": minutes, "bootstrap_draws": DRAWS, **found}
        write_json(out, result)
        print(f"{cell.name}: written", flush=True)


if __name__ == "__main__":
    main()
