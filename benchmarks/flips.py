"""Deliberately wrong labels: which pairs of a data set have their answers exchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_train.store.id_hash import fractions

Row = dict[str, Any]  # id, chosen, rejected; for the reason `generator` also chosen_model and rejected_model
MARKUP = re.compile(r"(?m)^\s*(?:[-*•#]|\d+[.)]) |\*\*|```")
REASONS = ("longer", "formatted", "generator")


def flipped(rows: Sequence[Row], flips: str, rate: float, seed: int) -> np.ndarray:
    """Which labels are exchanged, by a hash of (seed, id): bool [rows].

    flips: none; uniform, at random; or a reason, as a biased judge would have it: the pairs whose label goes against
    the reason are flipped until the rate is reached.
    """
    if flips == "none" or not rate:
        return np.zeros(len(rows), dtype=bool)
    drawn = fractions("flip", seed, pa.array([row["id"] for row in rows], pa.string()))
    if flips == "uniform":
        return drawn < rate
    against = np.array([_against(flips, row) for row in rows])
    order = np.flatnonzero(against)[np.argsort(drawn[against], kind="stable")]
    found = np.zeros(len(rows), dtype=bool)
    found[order[: round(rate * len(rows))]] = True
    return found


def _against(reason: str, row: Row) -> bool:
    """Whether the biased judge would have chosen the rejected answer."""
    if reason == "longer":
        return len(row["chosen"]) < len(row["rejected"])
    if reason == "formatted":
        return len(MARKUP.findall(row["chosen"])) < len(MARKUP.findall(row["rejected"]))
    assert reason == "generator"
    return _favoured(row["rejected_model"]) and not _favoured(row["chosen_model"])


def _favoured(generator: str) -> bool:
    """The generators that a biased judge favours: half of them, by a hash of the name."""
    return bool(fractions("favoured", 0, pa.array([generator]))[0] < 0.5)


def write_flipped(rows: Sequence[Row], wrong: np.ndarray, path: Path) -> Path:
    """The records with these labels, as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as f:
        for row, swap in zip(rows, wrong, strict=True):
            f.write(json.dumps(exchanged(row) if swap else row, ensure_ascii=False) + "\n")
    return path


def exchanged(row: Row) -> Row:
    """A record with its answers exchanged."""
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def draw(stage: str, *names: object) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    return float(fractions(stage, 0, pa.array(["\x1f".join(map(str, names))]))[0])
