"""The detection grid as Markdown: a column for the cells that differ by their seed alone, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import Cell
from rmo_train.tables import read_json

RULES = (
    *("fuse", "fuse+length", "irm", "irm-ln", "loss", "gmm", "cl", "cleanlab", "aum", "cartography"),
    *("ppldiff", "base-ln", "rmo", "rmo-ln", "authors-code", "length", "random"),
)
Results = list[dict[str, Any]]  # of the seeds of one column
Value = Callable[[dict[str, Any]], float]


def tables(grid: list[Cell], folder: Path) -> Iterator[str]:
    """Every table, then the cells that have no result."""
    columns: dict[str, Results] = {}
    missing = []
    for cell in grid:
        path = folder / f"{cell.name}.json"
        if path.exists():
            columns.setdefault(title(cell), []).append(read_json(path))
        else:
            missing.append(cell.name)
    flipped = {name: found for name, found in columns.items() if "rate0" not in name and "none" not in name}
    yield from by_rule("Length-matched AUROC on clear pairs (all, where nothing tells them)", flipped, matched)
    yield from by_rule("AUROC on all pairs", flipped, lambda rule: rule["all"]["auroc"]["value"])
    yield from by_rule("Average precision on all pairs", flipped, lambda rule: rule["all"]["average_precision"])
    yield from by_rule("Precision among as many as are flipped", flipped, lambda rule: rule["all"]["precision_at_rate"])
    yield from differences(flipped)
    yield from estimates(columns)
    yield from steps(flipped)
    yield f"Missing: {', '.join(missing) or 'none'}"


def title(cell: Cell) -> str:
    """What the column of a cell is called: everything but its seed."""
    return cell.name.replace(f"-s{cell.seed}-", " ")


def matched(rule: dict[str, Any]) -> float:
    found: float = rule.get("clear", rule["all"])["matched_auroc"]["value"]
    return found


def spread(values: list[float]) -> str:
    """The mean, and the least and the most of several seeds."""
    low, mean, high = min(values), float(np.mean(values)), max(values)
    return f"{mean:.2f}" if len(values) == 1 else f"{mean:.2f} ({low:.2f} to {high:.2f})"


def table(heading: str, head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"**{heading}**"
    yield ""
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""


def by_rule(heading: str, columns: dict[str, Results], value: Value) -> Iterator[str]:
    """A row a rule, a column a cell; one seed: the value, several: mean (least to most)."""
    rows = [
        [
            rule,
            *(
                spread([value(r["rules"][rule]) for r in found]) if rule in found[0]["rules"] else "-"
                for found in columns.values()
            ),
        ]
        for rule in RULES
    ]
    yield from table(heading, ["rule", *(f"{name}, {len(found)} seeds" for name, found in columns.items())], rows)


def differences(columns: dict[str, Results]) -> Iterator[str]:
    """One rule's length-matched AUROC less another's, on the same draws of prompts, a seed after the other."""
    names = list(next(iter(columns.values()))[0]["differences"])
    rows = [
        [
            name,
            *(
                "; ".join(interval(r["differences"][name]) if name in r["differences"] else "-" for r in found)
                for found in columns.values()
            ),
        ]
        for name in names
    ]
    yield from table("Length-matched AUROC, one less the other, seed by seed", ["", *columns], rows)


def estimates(columns: dict[str, Results]) -> Iterator[str]:
    """What is estimated without the truth, beside it, a row a seed."""
    head = ["cell, seed", "processor minutes: reference, proxies", "noise rate", "flipped", "calibration error"]
    for rule in ("irm", "fuse"):
        head += [f"{rule}, first 5%: precision by canaries", "truth", "recall by canaries", "truth"]
    rows = []
    for name, found in columns.items():
        for r in found:
            minutes = ", ".join(f"{stage['processor']:.0f}" for stage in r["minutes"].values())
            row = [f"{name}, {r['cell']['seed']}", minutes]
            if e := r["estimates"]:
                row += [interval(e["noise_rate"]), f"{e['flipped']:.2f}", f"{e['calibration_error']:.2f}"]
                for rule in ("irm", "fuse"):
                    of = e["rules"][rule]
                    for what in ("precision", "recall"):
                        truth = of[f"true_{what}"]
                        row += [interval(of["canaries"][what]), "-" if truth is None else f"{truth:.2f}"]
            rows.append(row + ["-"] * (len(head) - len(row)))
    yield from table("Estimates", head, rows)


def steps(columns: dict[str, Results]) -> Iterator[str]:
    """irm at each checkpoint of a trajectory of several."""
    rows = []
    for name, found in columns.items():
        if len(by_step := found[0].get("irm_by_step", {})) > 1:
            rows += [
                [name, step, f"{matched(one):.2f}", f"{one['all']['auroc']['value']:.2f}"]
                for step, one in by_step.items()
            ]
    if rows:
        yield from table("irm by step", ["cell", "checkpoint", "length-matched AUROC, clear", "AUROC, all"], rows)


def interval(found: dict[str, float]) -> str:
    return f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
