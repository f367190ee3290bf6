"""The tables of docs/results.md on detection, as Markdown, made of the cells' results; and which cells have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import Cell
from rmo_train.tables import read_json

RULES = (
    *("fuse", "irm", "irm-ln", "loss", "gmm", "cl", "cleanlab", "aum", "cartography", "ppldiff", "base-ln"),
    *("rmo", "rmo-ln", "length", "random"),
)
FLIPS = {"uniform": "at random", "longer": "longer wins"}
Result = dict[str, Any]
Seeds = list[Result]  # the results of cells that differ by their seed alone
Value = Callable[[Result], float]


def tables(grid: list[Cell], folder: Path) -> Iterator[str]:
    """Every table, then the cells that have no result."""
    paths = {cell: folder / f"{cell.name}.json" for cell in grid}
    found = {cell: without_what_changed(read_json(path)) for cell, path in paths.items() if path.exists()}
    usual: dict[str, Seeds] = {}  # by title: probes of ten folds, trained proxies as `proxy` makes them
    for cell, result in found.items():
        if cell.folds == (10 if cell.probe else 2) and cell.epochs == 1 and not cell.learning_rate and not cell.full:
            usual.setdefault(title(cell), []).append(result)
    compared = {name: seeds for name, seeds in usual.items() if ", 20%" in name}
    yield from by_rule("Length-matched AUROC on clear pairs (HH: on all)", compared, (matched,))
    in_all = (lambda r: r["all"]["auroc"]["value"], average_precision, precision_at_rate)
    yield from by_rule(
        "All pairs: AUROC / average precision / precision among as many as are flipped", compared, in_all
    )
    yield from differences(compared)
    yield from estimates(usual)
    yield from folds({cell: r for cell, r in found.items() if cell.probe and cell.labels.startswith("judged-uniform")})
    yield from steps({cell: r for cell, r in found.items() if cell.epochs > 1})
    yield from near_ties(compared)
    yield f"Not run: {', '.join(cell.name for cell in grid if cell not in found) or 'none'}"


def title(cell: Cell) -> str:
    """What the column of a cell is called: everything but its seed."""
    flips = f"{cell.rate:.0%} {FLIPS[cell.flips]}" if cell.rate else "none"
    data = {"hh": "HH", "heldout": "held-out prompts"}.get(cell.data, cell.data)
    return f"{data}, {flips}" + ("" if cell.probe else ", trained proxies")


def without_what_changed(result: Result) -> Result:
    """A result less its figures of `fuse`, where it is from before fuse took length out (and had no irm by step)."""
    if "irm_by_step" in result:
        return result
    kept = {name: figures for name, figures in result["rules"].items() if not name.startswith("fuse")}
    differences = {name: found for name, found in result["differences"].items() if not name.startswith("fuse")}
    if estimated := result["estimates"]:
        rules = {name: found for name, found in estimated["rules"].items() if name != "fuse"}
        estimated = estimated | {"rules": rules}
    return result | {"rules": kept, "differences": differences, "estimates": estimated}


# ---------------------------------------------------------------------------------------------------- values


def matched(rule: Result) -> float:
    found: float = rule.get("clear", rule["all"])["matched_auroc"]["value"]
    return found


def average_precision(rule: Result) -> float:
    found: float = rule["all"]["average_precision"]
    return found


def precision_at_rate(rule: Result) -> float:
    found: float = rule["all"]["precision_at_rate"]
    return found


def spread(values: list[float]) -> str:
    """The mean, and the least and the most of several seeds."""
    low, mean, high = min(values), float(np.mean(values)), max(values)
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ({low:.2f}-{high:.2f})"


def interval(found: dict[str, float] | None) -> str:
    return "-" if found is None else f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# ---------------------------------------------------------------------------------------------------- tables


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def by_rule(what: str, columns: dict[str, Seeds], values: tuple[Value, ...]) -> Iterator[str]:
    """A row a rule, a column a cell: one value with its spread over seeds, or the means of several."""
    rows = []
    for rule in RULES:
        row = [rule]
        for seeds in columns.values():
            found = [[value(r["rules"][rule]) for r in seeds] for value in values if rule in seeds[0]["rules"]]
            means = " / ".join(f"{np.mean(one):.2f}" for one in found)
            row.append(spread(found[0]) if len(found) == 1 else means or "-")
        rows.append(row)
    counted = [f"{name} ({len(seeds)} seed{'s' * (len(seeds) > 1)})" for name, seeds in columns.items()]
    yield from table([what, *counted], rows)


def differences(columns: dict[str, Seeds]) -> Iterator[str]:
    """One rule's length-matched AUROC less another's, on the same draws of prompts, a seed after the other."""
    names = list(next(iter(columns.values()))[0]["differences"])
    rows = [
        [name, *("; ".join(interval(r["differences"].get(name)) for r in seeds) for seeds in columns.values())]
        for name in names
    ]
    yield from table(["Length-matched AUROC, one less the other, seed by seed", *columns], rows)


def estimates(columns: dict[str, Seeds]) -> Iterator[str]:
    """What is estimated without the truth, beside it, a row a seed."""
    head = ["cell", "processor minutes: reference, proxies", "estimated noise rate", "flipped", "calibration error"]
    for rule in ("irm", "fuse"):
        head += [f"{rule}, first 5%: precision by canaries", "truth", "recall by canaries", "truth"]
    rows = []
    for name, seeds in columns.items():
        for result in seeds:
            minutes = ", ".join(f"{stage['processor']:.0f}" for stage in result["minutes"].values())
            e = result["estimates"]
            row = [f"{name}, seed {result['cell']['seed']}", minutes, interval(e["noise_rate"])]
            row += [number(e["flipped"]), number(e["calibration_error"])]
            for rule in ("irm", "fuse"):
                of = e["rules"].get(rule)
                for what in ("precision", "recall"):
                    row += [interval(of["canaries"][what]), number(of[f"true_{what}"])] if of else ["-", "-"]
            issues = result["rules"]["cleanlab"]["issues"]
            rows.append([*row, f"{issues['flagged']}: {issues['precision']:.2f}"])
    yield from table([*head, "cleanlab calls issues: precision"], rows)


def folds(results: dict[Cell, Result]) -> Iterator[str]:
    """Probes of other numbers of folds, in-sample, and more flips; the first seed."""
    rows = []
    for cell, result in sorted(results.items(), key=lambda item: (item[0].rate, -item[0].folds)):
        if cell.seed == 0:
            of = [result["rules"].get(rule) for rule in ("irm", "fuse")]
            in_all = [None if rule is None else rule["all"]["auroc"]["value"] for rule in of]
            name = "in-sample" if cell.folds == 1 else f"{cell.folds} folds"
            row = [f"{name}, {cell.rate:.0%} flipped"]
            row += [interval(None if rule is None else rule["clear"]["matched_auroc"]) for rule in of]
            rows.append([*row, *map(number, in_all)])
    head = ["probe, judged, at random, seed 0", "irm, length-matched AUROC, clear", "fuse", "irm, AUROC, all", "fuse"]
    yield from table(head, rows)


def steps(results: dict[Cell, Result]) -> Iterator[str]:
    """irm at each checkpoint of proxies that were trained for several epochs."""
    rows = [
        [
            "in-sample" if cell.folds == 1 else f"held out, {cell.folds} folds",
            f"{epoch} ({name})",
            interval(of["clear"]["matched_auroc"]),
            interval(of["all"]["auroc"]),
        ]
        for cell, result in results.items()
        for epoch, (name, of) in enumerate(result["irm_by_step"].items(), start=1)
    ]
    yield from table(["trained proxies", "epoch", "irm, length-matched AUROC, clear", "irm, AUROC, all"], rows)


def near_ties(columns: dict[str, Seeds]) -> Iterator[str]:
    """How well the size of each margin tells the judge's near-ties from other pairs."""
    kinds = ("reward", "logp", "mean_logp")
    rows = [
        [name, *(spread([r["near_ties_auroc"][kind] for r in seeds]) for kind in kinds)]
        for name, seeds in columns.items()
        if seeds[0]["near_ties_auroc"]
    ]
    yield from table(["AUROC of near-ties by size of margin", *kinds], rows)
