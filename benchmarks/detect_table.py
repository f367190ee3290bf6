"""The tables of docs/results/detection.md, as Markdown, made of the cells' results; and which cells have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import Cell
from benchmarks.detect_values import (
    DATA,
    MAIN,
    POSTERIOR,
    WAYS,
    Group,
    Groups,
    Result,
    Seeds,
    calibration_error,
    covers,
    first,
    flipped,
    increments,
    matched,
    mean,
    of_rule,
    over,
    plain,
    rate,
    spread,
    worst_gap,
)
from rmo_train.store.files import read_json


def tables(grid: list[Cell], folder: Path) -> Iterator[str]:
    """Every table, then the cells that have no result."""
    groups = grouped(grid, folder)
    for one in (claims, headline, rules, differences, noise_rates, reasons, learning_curve, exaggeration):
        yield from one(groups)
    yield from not_run([cell for cell in grid if not (folder / f"{cell.name}.json").exists()])


def grouped(grid: list[Cell], folder: Path) -> Groups:
    """The available results; cells that differ only by their seed are grouped."""
    groups: Groups = {}
    for cell in sorted(grid, key=grid_order(grid)):
        if (path := folder / f"{cell.name}.json").exists():
            groups.setdefault(Group.of(cell), []).append(read_json(path))
    return groups


def not_run(missing: list[Cell]) -> Iterator[str]:
    """The cells without a result, in a line."""
    seeds: dict[Group, list[str]] = {}
    for cell in missing:
        seeds.setdefault(Group.of(cell), []).append(str(cell.seed))
    said = [f"{group.title} (seed{'s' * (len(of) > 1)} {', '.join(of)})" for group, of in seeds.items()]
    yield f"Not run: {'; '.join(said) or 'none'}."


def grid_order(grid: list[Cell]) -> Callable[[Cell], tuple[int, int]]:
    """Cells of one group beside each other, groups as the grid first names them."""
    first: dict[Group, int] = {}
    for cell in grid:
        first.setdefault(Group.of(cell), len(first))
    return lambda cell: (first[Group.of(cell)], cell.seed)


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    if rows:
        yield "| " + " | ".join(head) + " |"
        yield "|---" * len(head) + "|"
        yield from ("| " + " | ".join(row) + " |" for row in rows)
        yield ""


def claims(groups: Groups) -> Iterator[str]:
    """Every target, what was measured, and whether it is met."""
    rows = []
    for said, least, group, value in AT_LEAST:
        found = groups.get(group)
        rows.append(
            [said, f"≥ {least:g}", *judged([value(r) for r in found] if found else [], lambda m, x=least: m >= x)]
        )
    whole = {g: seeds for g, seeds in groups.items() if g.pairs is None}
    behind = {g: mean(s, plain(POSTERIOR)) - mean(s, plain("length")) for g, s in whole.items() if g.rate}
    if behind:
        least = min(behind, key=lambda g: behind[g])
        verdict = "met" if behind[least] >= 0 else "**missed**"
        rows.append(["AUROC minus that of length, smallest", "≥ 0", f"{behind[least]:.2f} ({least.title})", verdict])
    random = {g: mean(s, calibration_error) for g, s in whole.items() if g.flips == "uniform" and g.rate == 0.2}
    if random:
        most = max(random, key=lambda g: random[g])
        verdict = "met" if random[most] <= 0.04 else "**missed**"
        said = "calibration error, 20% at random, largest"
        rows.append([said, "≤ 0.04", f"{random[most]:.3f} ({most.title})", verdict])
    rows += [*noise_claims(groups), *gap_claims(groups)]
    yield from table(["claim", "target", "measured", "verdict"], rows)


AT_LEAST: tuple[tuple[str, float, Group, Callable[[Result], float]], ...] = (
    ("length-matched AUROC, first 115 prompts", 0.80, MAIN[0], of_rule(POSTERIOR)),
    ("length-matched AUROC, all judged pairs", 0.82, MAIN[1], of_rule(POSTERIOR)),
    ("length-matched AUROC, held-out prompts", 0.80, MAIN[4], of_rule(POSTERIOR)),
    ("length-matched AUROC, writers known", 0.85, Group("all", "uniform", 0.2, None, True), of_rule(POSTERIOR)),
    ("length-matched AUROC, HH, all pairs", 0.67, MAIN[3], of_rule(POSTERIOR)),
    ("length-matched AUROC, longer wins", 0.76, MAIN[2], of_rule(POSTERIOR)),
    ("length-matched AUROC, 40% flipped", 0.72, Group("all", "uniform", 0.4), of_rule(POSTERIOR)),
    ("first 5% really flipped, first 115 prompts", 0.80, MAIN[0], first),
    ("first 5% really flipped, all judged pairs", 0.80, MAIN[1], first),
)


def judged(values: list[float], meets: Callable[[float], bool]) -> list[str]:
    """What was measured, and the verdict on its mean."""
    if not values:
        return ["-", "not run"]
    return [spread(values), "met" if meets(float(np.mean(values))) else "**missed**"]


SOFT = "soft labels"  # in full, a way of `detect.exaggeration`
UP_TO_30, AT_40, COVERED = 0.03, 0.05, 13 / 15  # targets of the noise rate


def noise_claims(groups: Groups) -> Iterator[list[str]]:
    """The noise rate on all judged pairs: how far its increment is off at most, and how often its interval holds."""
    none = groups.get(Group("all", "none", 0.0))
    if not none:
        return
    at = {g.rate: s for g, s in groups.items() if g == Group("all", "uniform", g.rate)}
    off = {f: max(abs(i - flipped(r)) for i, r in zip(increments(s, none), s, strict=True)) for f, s in at.items()}
    for said, most, values in (
        ("noise rate, largest error of the increment, up to 30%", UP_TO_30, [v for f, v in off.items() if f <= 0.3]),
        ("noise rate, largest error of the increment, at 40%", AT_40, [v for f, v in off.items() if f > 0.3]),
    ):
        if values:
            yield [said, f"≤ {most:g}", f"{max(values):.3f}", "met" if max(values) <= most else "**missed**"]
    all_ = [*none, *(result for seeds in at.values() for result in seeds)]
    held = sum(map(covers, all_))
    verdict = "met" if held / len(all_) >= COVERED else "**missed**"
    yield ["noise rate, intervals that contain the truth", "≥ 13 of 15", f"{held} of {len(all_)}", verdict]


def gap_claims(groups: Groups) -> Iterator[list[str]]:
    """Exaggeration by the filter on all judged pairs: by soft labels in full, by dropping, were its estimate right, and
    by a quantile."""
    for flips, share, most in (("uniform", 0.2, 1.15), ("none", 0.0, 1.10)):
        seeds = groups.get(Group("all", flips, share))
        for way in (SOFT, "as many as are flipped", "high-q 0.95") if seeds else ():
            feature, ratio = worst_gap(seeds, way)
            by = way if way == SOFT else f"dropped: {way}"
            said = f"largest exaggeration of a gap, {by}, {f'{share:.0%} flipped' if share else 'no flips'}"
            yield [said, f"≤ {most:g}", f"{ratio:.2f} ({feature})", "met" if ratio <= most else "**missed**"]


def headline(groups: Groups) -> Iterator[str]:
    """The posterior, a row a group."""
    rows = [
        [
            f"{group.title} ({len(seeds)})",
            over(seeds, of_rule(POSTERIOR)) if group.rate else "-",
            over(seeds, plain(POSTERIOR)) if group.rate else "-",
            over(seeds, plain("length")) if group.rate else "-",
            over(seeds, first) if group.rate else "-",
            over(seeds, calibration_error, 3),
        ]
        for group, seeds in groups.items()
        if group.pairs is None
    ]
    head = ["posterior (seeds)", "length-matched AUROC", "AUROC, all pairs", "AUROC of length", "first 5% flipped"]
    yield from table([*head, "calibration error"], rows)


def rules(groups: Groups) -> Iterator[str]:
    """Length-matched AUROC of every rule, and of each source of evidence alone, a column a main data set."""
    columns = {group: groups[group] for group in MAIN if group in groups}
    if not columns:
        return
    names = list(dict.fromkeys(name for seeds in columns.values() for name in seeds[0]["rules"]))
    sources = list(dict.fromkeys(name for seeds in columns.values() for name in seeds[0]["sources"]))
    rows = [
        [said, *(over_those(seeds, where, name) for seeds in columns.values())]
        for where, said, name in (
            *(("rules", name, name) for name in names),
            *(("sources", f"evidence of {name} alone", name) for name in sources),
        )
    ]
    yield from table(["length-matched AUROC", *(group.title for group in columns)], rows)


def over_those(seeds: Seeds, where: str, name: str) -> str:
    return spread([matched(result[where][name]) for result in seeds if name in result[where]])


def differences(groups: Groups) -> Iterator[str]:
    """Length-matched AUROC less that of other rules, on the same draws of prompts."""
    others = ("irm", "length", "rmo")
    rows = [
        [group.title, *(less(seeds, other) for other in others)]
        for group, seeds in groups.items()
        if group.rate and group.pairs is None
    ]
    yield from table(["posterior minus", *others], rows)


def less(seeds: Seeds, other: str) -> str:
    """The mean difference, and in how many seeds its 95% interval is above 0."""
    found = [result["differences"][other] for result in seeds]
    above = sum(one["low"] > 0 for one in found)
    return f"{np.mean([one['value'] for one in found]):.2f} (above 0 in {above} of {len(found)})"


def noise_rates(groups: Groups) -> Iterator[str]:
    """The estimated noise rate beside the true one, where there is an estimate without flips to compare with."""
    rows = []
    for group, seeds in groups.items():
        none = groups.get(Group(group.data, "none", 0.0))
        if none is None or group.flips not in ("uniform", "none") or group.pairs or group.generators:
            continue
        found = increments(seeds, none)
        off = max(abs(i - flipped(result)) for i, result in zip(found, seeds, strict=True))
        held = f"{sum(map(covers, seeds))} of {len(seeds)}"
        by = (spread(found), f"{off:.2f}") if group.rate else ("-", "-")
        rows.append([group.title, f"{mean(seeds, flipped):.2f}", over(seeds, rate), *by, held])
    head = ["noise rate", "flipped", "estimated", "increment", "largest error", "interval contains the truth"]
    yield from table(head, rows)


def reasons(groups: Groups) -> Iterator[str]:
    """The cut of 5% beside what swapped copies promise of it: random flips, then flips with a reason."""
    rows = []
    for group, seeds in groups.items():
        if not group.rate or group.pairs or group.generators:
            continue
        of = [result["estimates"]["rules"][POSTERIOR] for result in seeds]
        row = [group.title]
        for what in ("precision", "recall"):
            row.append(spread([one[f"true_{what}"] for one in of]))
            row.append(spread([one["canaries"][what]["value"] for one in of]))
        rows.append([*row, over(seeds, rate)])
    head = [
        "first 5%",
        "flipped among them",
        "promised",
        "share of all flips found",
        "promised",
        "estimated noise rate",
    ]
    yield from table(head, rows)


def learning_curve(groups: Groups) -> Iterator[str]:
    """Length-matched AUROC by number of pairs, with and without a model; 20% flipped at random."""
    rows = []
    for data in ("all", "hh"):
        of = {g: s for g, s in groups.items() if g == Group(data, "uniform", 0.2, g.pairs)}
        for group in sorted(of, key=lambda g: g.pairs or float("inf")):
            seeds = of[group]
            n = round(mean(seeds, lambda result: result["rules"][POSTERIOR]["all"]["pairs"]))
            rows.append(
                [
                    DATA.get(data, "HH"),
                    f"{n:,}",
                    over(seeds, of_rule(POSTERIOR)),
                    over(seeds, lambda result: result["without_model"]["matched_auroc"]["value"]),
                    over(seeds, first),
                    over(seeds, lambda result: result["without_model"]["first"]),
                ]
            )
    head = ["20% at random", "pairs", "length-matched AUROC", "without a model", "first 5% flipped", "without a model"]
    yield from table(head, rows)


def curves(groups: Groups) -> list[dict[str, Any]]:
    """The learning curve for `rmo_curate.evidence.expected`: means over seeds."""
    found = []
    for data, name in (("all", "pairs that GPT-4 judged"), ("hh", "HH-RLHF")):
        of = sorted(
            (seeds for g, seeds in groups.items() if g == Group(data, "uniform", 0.2, g.pairs)),
            key=lambda seeds: mean(seeds, _pairs),
        )
        found.append(
            {
                "data": name,
                "pairs": [round(mean(seeds, _pairs)) for seeds in of],
                "with_model": [round(mean(seeds, of_rule(POSTERIOR)), 3) for seeds in of],
                "without": [
                    round(mean(seeds, lambda r: float(r["without_model"]["matched_auroc"]["value"])), 3) for seeds in of
                ],
            }
        )
    return found


def _pairs(result: Result) -> float:
    return float(result["rules"][POSTERIOR]["all"]["pairs"])


def exaggeration(groups: Groups) -> Iterator[str]:
    """The largest gap of a style feature over its gap under the true labels, by what is done to noisy pairs."""
    rows = [
        [group.title, *(f"{ratio:.2f} ({name})" for name, ratio in (worst_gap(seeds, way) for way in WAYS))]
        for group, seeds in groups.items()
        if group.pairs is None and not group.generators and seeds[0]["gaps"]
    ]
    yield from table(["largest gap over the true one", *WAYS], rows)
