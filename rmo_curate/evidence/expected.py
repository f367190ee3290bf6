"""What to expect of the evidence at a number of pairs: a learning curve, measured on two data sets with known flips."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

CURVE = "learning_curve.json"  # beside this file; written by `python -m benchmarks.detect --table --write`


@dataclass(frozen=True)
class Curve:
    """Length-matched AUROC for labels flipped at random, by pairs, with a model and without; means over draws."""

    data: str  # in words
    pairs: tuple[int, ...]
    with_model: tuple[float, ...]
    without: tuple[float, ...]

    def at(self, pairs: int, *, model: bool) -> float:
        """Interpolated in the logarithm of the pairs; the ends of the curve beyond them."""
        values = self.with_model if model else self.without
        return float(np.interp(np.log(max(1, pairs)), np.log(self.pairs), values))


@cache
def curves() -> tuple[Curve, ...]:
    """As they were measured."""
    text = files(__package__).joinpath(CURVE).read_text(encoding="utf-8")
    return tuple(
        Curve(row["data"], *(tuple(row[name]) for name in ("pairs", "with_model", "without")))
        for row in json.loads(text)
    )


def lines(pairs: int, scored: bool) -> list[str]:
    """Sentences about `pairs` pairs, scored by a model or not."""
    if not pairs:
        return []
    measured = " and ".join(f"{curve.at(pairs, model=scored):.2f} on {curve.data}" for curve in curves())
    said = [
        f"At {pairs:,} pairs a label flipped at random was more suspect than a right one of like lengths in this share "
        f"of cases (0.5 is chance): {measured}."
    ]
    if not scored:
        more = " and ".join(f"{curve.at(pairs, model=True):.2f}" for curve in curves())
        said.append(f"Scored with a 135M model the shares were {more}.")
    largest = max(curve.pairs[-1] for curve in curves())
    if pairs < largest:
        at_most = " and ".join(f"{curve.with_model[-1]:.2f} at {curve.pairs[-1]:,} pairs" for curve in curves())
        said.append(f"More pairs help: scored, {at_most}.")
    return said
