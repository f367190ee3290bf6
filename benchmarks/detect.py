"""How well each rule finds flipped labels, held out: the grid of benchmarks/plan.yaml, a resumable job a cell.

    python -m benchmarks.detect --data judged=TRAIN --gold judged=GOLD --data hh=FILE --work FOLDER [--cell NAME]
    python -m benchmarks.detect --table

A cell flips some labels by a hash of id and seed, scores the pairs and their proxies, and only then compares every rule
with what was flipped. GOLD, the judge's log-odds, tells clear pairs from near-ties; no stage reads it.

Cells of trained proxies run `rmo-curate` on the flipped pairs as a user would. Cells of probes score a data set and
read its hidden states once, as given: a flip exchanges a pair's log-probs and reverses the difference of its states,
exactly, so the probe is fitted on the flipped labels without another forward pass (`--by-command` runs it on the
flipped file instead, to show that).

Writes benchmarks/results/detect/<cell>.json; a cell that is there is not run again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.detection import DRAWS, auroc, calibration_error, figures, length_strata_of, matched_difference
from benchmarks.environment import environment
from rmo_curate.runs import Scores
from rmo_train.tables import fraction_of_hash, read_json, write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "detect"
LEFT_OUT = ("none", "score")
COMPARED = (("fuse", "irm"), ("fuse", "length"), ("irm", "length"), ("fuse", "rmo"), ("irm", "rmo"))
HIGH_Q = 0.95  # the filter's default


@dataclass(frozen=True)
class Cell:
    """One experiment: which labels are flipped, and how the proxies are trained."""

    data: str
    flips: str  # none, uniform or longer
    rate: float
    folds: int
    seed: int
    epochs: int = 1
    learning_rate: float | None = None  # None: the proxies' default
    full: bool = False
    probe: bool = False  # a probe in place of trained proxies; it has no epochs

    @property
    def labels(self) -> str:
        """Name of the data with these flips, the same for every way to train proxies on it."""
        return f"{self.data}-{self.flips}{round(100 * self.rate)}-s{self.seed}"

    @property
    def name(self) -> str:
        if self.probe:
            return f"{self.labels}-k{self.folds}-probe"
        rate = f"-lr{self.learning_rate:g}" if self.learning_rate else ""
        return f"{self.labels}-k{self.folds}-e{self.epochs}{rate}{'-full' if self.full else ''}"

    @property
    def proxy_options(self) -> tuple[str, ...]:
        rate = ("--learning-rate", str(self.learning_rate)) if self.learning_rate else ()
        shape = ("--folds", str(self.folds), "--epochs", str(self.epochs), "--seed", str(self.seed))
        return (*shape, *rate, *(("--full",) if self.full else ()))


def cells(plan: dict[str, Any]) -> list[Cell]:
    """The grid: the first seed of every cell before the second of any."""
    found = [
        Cell(seed=seed, **{k: v for k, v in row.items() if k != "seeds"})
        for row in plan["cells"]
        for seed in row["seeds"]
    ]
    return sorted(found, key=lambda cell: cell.seed)


# ---------------------------------------------------------------------------------------------------- a cell's data


def records(plan: dict[str, Any], data: str, path: Path) -> list[dict[str, Any]]:
    """The records that the plan takes of a file, each with an id of its own."""
    with gzip.open(path, "rt", encoding="utf-8") as f:
        rows = [{"id": f"{data}-{n}", **json.loads(line)} for n, line in enumerate(f)]
    if "prompts" not in plan["data"][data]:
        return rows[: plan["data"][data].get("pairs")]
    prompts: dict[str, None] = {}
    for row in rows:
        prompts.setdefault(row["prompt"])
    start = plan["data"][data].get("after", 0)
    taken = set(list(prompts)[start : start + plan["data"][data]["prompts"]])
    return [row for row in rows if row["prompt"] in taken]


def prompt_of(row: dict[str, Any]) -> str:
    """What comes before the answers: of whole dialogues, all but the last turn."""
    return row["prompt"] if "prompt" in row else row["chosen"].rpartition("\n\nAssistant:")[0]


def flipped_ids(rows: list[dict[str, Any]], cell: Cell) -> set[str]:
    """Ids of the pairs whose labels are exchanged."""
    drawn = {row["id"]: fraction_of_hash("flip", cell.seed, row["id"]) for row in rows}
    if cell.flips == "uniform":
        return {i for i, draw in drawn.items() if draw < cell.rate}
    if cell.flips == "longer":
        shorter_won = [row["id"] for row in rows if len(row["chosen"]) < len(row["rejected"])]
        return set(sorted(shorter_won, key=lambda i: drawn[i])[: round(cell.rate * len(rows))])
    return set()


def flipped_file(cell: Cell, rows: list[dict[str, Any]], path: Path) -> Path:
    """The records with the cell's labels, as a file."""
    flipped = flipped_ids(rows, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as f:
        for row in rows:
            if row["id"] in flipped:
                row = {**row, "chosen": row["rejected"], "rejected": row["chosen"]}
            f.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def run_cell(cell: Cell, rows: list[dict[str, Any]], model: str, work: Path) -> dict[str, dict[str, float]]:
    """Score the cell's pairs and its proxies; minutes of both. A finished stage costs nothing and keeps its time, and
    cells with the same labels share the reference's scores."""
    labelled, folder = work / cell.labels, work / cell.name
    pairs = flipped_file(cell, rows, labelled / "pairs.jsonl")
    score = ("score", pairs, "--model", model, "--out", labelled / "run", "--proxy-folds", 0)
    reference = timed(labelled / "minutes.json", score)
    if not folder.exists():
        folder.mkdir()
        shutil.copytree(labelled / "run", folder / "run")
    if cell.probe:
        command: tuple[Any, ...] = ("probe", folder / "run", "--folds", cell.folds, "--seed", cell.seed)
    else:
        command = ("proxy", folder / "run", *cell.proxy_options, *steps_of_epochs(cell, len(rows)))
    return {"reference": reference, "proxies": timed(folder / "minutes.json", command)}


def scored_as_given(cell: Cell, rows: list[dict[str, Any]], model: str, work: Path) -> tuple[Path, dict[str, Any]]:
    """The run folder of a data set with its own labels and hidden states, and the minutes of both: once a data set."""
    as_given = replace(cell, flips="none", rate=0.0, seed=0)
    folder = work / f"{cell.data}-as-given"
    pairs = flipped_file(as_given, rows, folder / "pairs.jsonl")
    score = ("score", pairs, "--model", model, "--out", folder / "run", "--proxy-folds", 0)
    reference = timed(folder / "minutes.json", score)
    return folder / "run", {
        "reference": reference,
        "proxies": timed(folder / "probe-minutes.json", ("probe", folder / "run")),
    }


def with_probe(
    run_folder: Path,
    flipped: set[str],
    cell: Cell,
    ridge: float | None = None,
    at_equal_length: bool = True,
) -> Scores:
    """Scores of a run under other labels: (base, probe fitted on these labels), with prompt groups."""
    from rmo_curate.margins import length_terms
    from rmo_curate.probe import BETA, RIDGE, STATES, cross_fitted, read_states
    from rmo_curate.proxies import assign_folds
    from rmo_curate.runs import Trajectory, open_run
    from rmo_train.pairs import open_pairs
    from rmo_train.tables import read_manifest

    run, data = open_run(run_folder), open_pairs(run_folder)
    base = run.scores(Trajectory(run.checkpoints[:1], None))
    manifest = read_manifest(run_folder / STATES)
    assert manifest is not None and base.ids is not None and base.ids.to_pylist() == list(data.ids)
    wrong = np.array([i in flipped for i in data.ids])
    states = read_states(run_folder, manifest, data) * np.where(wrong, -1, 1)[:, None].astype(np.float32)
    folds_of = assign_folds(data.groups, cell.folds, cell.seed)

    def exchanged(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.where(wrong.reshape(-1, *[1] * (one.ndim - 1)), other, one)

    chosen_tokens = exchanged(base.chosen_tokens, base.rejected_tokens)
    rejected_tokens = exchanged(base.rejected_tokens, base.chosen_tokens)
    lengths = length_terms(chosen_tokens, rejected_tokens) * at_equal_length
    gains = cross_fitted(states, lengths, folds_of, cell.folds, ridge or RIDGE) / BETA
    chosen = exchanged(base.chosen_logp, base.rejected_logp)
    rejected = exchanged(base.rejected_logp, base.chosen_logp)
    return replace(
        base,
        names=("base", "oof-probe" if cell.folds > 1 else "insample-probe"),
        chosen_logp=np.hstack([chosen, chosen + gains[:, None] / 2]),
        rejected_logp=np.hstack([rejected, rejected - gains[:, None] / 2]),
        chosen_tokens=chosen_tokens,
        rejected_tokens=rejected_tokens,
        held_out=np.full(len(wrong), cell.folds > 1, dtype=object),
        fold=folds_of if cell.folds > 1 else np.full(len(wrong), -1, dtype=np.int16),
        groups=np.unique(data.groups, return_inverse=True)[1],
        of_probe=True,
    )


def timed(timing: Path, arguments: tuple[Any, ...]) -> dict[str, float]:
    """Minutes of one command, of the clock and of both processors' work; kept in `timing` by the run that did it."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "rmo_curate", *map(str, arguments)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if not timing.exists():
        write_json(timing, {"clock": (time.perf_counter() - start) / 60, "processor": processor / 60})
    minutes: dict[str, float] = read_json(timing)
    return minutes


def steps_of_epochs(cell: Cell, pairs: int) -> tuple[str, ...]:
    """Proxies of several epochs are scored after each."""
    if cell.epochs == 1:
        return ()
    seen = pairs if cell.folds == 1 else pairs * (cell.folds - 1) // cell.folds
    return ("--steps", ",".join(str(seen // 16 * epoch) for epoch in range(1, cell.epochs)))


# ---------------------------------------------------------------------------------------------------- its figures


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


def read_scores(run_folder: Path) -> Scores:
    """The scores of a run's own trajectory, with what rules read besides: groups where held out, other seeds."""
    from rmo_curate.runs import open_run

    run = open_run(run_folder)
    trajectory = run.trajectory()
    assert trajectory.end is not None
    scores = run.with_others(run.scores(trajectory), trajectory)
    return run.with_groups(scores, trajectory) if trajectory.end.cross_fitted else scores


def measure(truth: Truth, scores: Scores, prompts: dict[str, str]) -> dict[str, Any]:
    """Every rule against the truth, on all pairs and on the clear ones; the estimates made without it.

    prompts: id -> prompt, what intervals are drawn over.
    """
    from rmo_curate.margins import MARGINS, reward
    from rmo_curate.rules import RULES

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

    suspicions = {
        name: rule.suspicion(scores)
        for name, rule in RULES.items()
        if name not in LEFT_OUT and (held_out or not rule.needs_groups)
    }
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

    from rmo_curate.rules.fitted import fit_logistic, scaled_irm
    from rmo_curate.rules.of_trajectory import sigmoid

    x = scaled_irm(scores)
    known = np.isfinite(x)
    p = sigmoid(x[known] * max(0.0, float(fit_logistic(x[known, None])[0])))
    first, labels = np.concatenate([p, 1 - p]), np.repeat([1, 0], len(p))
    probabilities = np.stack([1 - first, first], axis=1)
    suspicion, issues = np.full(len(x), np.nan), np.zeros(len(x), dtype=bool)
    suspicion[known] = 1 - get_label_quality_scores(labels, probabilities)[: len(p)]
    issues[known] = find_label_issues(labels, probabilities)[: len(p)]
    return suspicion, issues


def estimated(scores: Any, wrong: np.ndarray) -> dict[str, Any]:
    """The noise rate, the self-check and canaries at the default cut, beside the truth."""
    from rmo_curate import canaries
    from rmo_curate.margins import reward
    from rmo_curate.noise_rate import Resampled, fit_noise, noise_margin
    from rmo_curate.rule_report import flagged_by
    from rmo_curate.rules import RULES
    from rmo_curate.thresholds import noisy_budget

    resampled = Resampled(scores)
    found = {}
    for name in ("irm", "irm-ln", "fuse"):
        given, swapped = flagged_by(RULES[name], scores, noisy_budget(len(wrong), HIGH_Q))
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


# ---------------------------------------------------------------------------------------------------- the table


def table(plan: dict[str, Any]) -> Iterator[str]:
    """Length-matched AUROC on clear pairs by rule, a line a cell, and what is missing."""
    missing = []
    for cell in cells(plan):
        path = RESULTS / f"{cell.name}.json"
        if not path.exists():
            missing.append(cell.name)
            continue
        found = read_json(path)
        minutes = sum(stage["processor"] for stage in found["minutes"].values())
        yield f"{cell.name}: {minutes:.0f} processor minutes"
        if found["estimates"]:
            rate = found["estimates"]["noise_rate"]
            yield f"  noise rate {rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"
        for rule, subsets in found["rules"].items():
            headline = subsets.get("clear", subsets["all"])
            a, b = headline["matched_auroc"], headline["auroc"]
            yield (
                f"  {rule:14} matched {a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}]  plain {b['value']:.3f}  "
                f"precision at the rate {headline['precision_at_rate']:.2f}"
            )
    yield f"missing: {', '.join(missing) or 'none'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], help="NAME=FILE, a name of the plan's data; repeatable")
    parser.add_argument("--gold", action="append", default=[], help="NAME=FILE, the judge's log-odds; repeatable")
    parser.add_argument("--work", type=Path, default=Path("detect-work"))
    parser.add_argument("--cell", action="append", help="only cells of this name; repeatable")
    parser.add_argument("--again", action="store_true", help="compute the figures of finished cells anew")
    parser.add_argument("--by-command", action="store_true", help="probes, too, by `rmo-curate` on the flipped file")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["detect"]
    if given.table:
        print("\n".join(table(plan)))
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
        if cell.probe and not given.by_command:
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
