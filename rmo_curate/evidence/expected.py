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


@dataclass(frozen=True)
class Measured:
    """Length-matched AUROC on one data set."""

    data: str  # in words
    here: float  # at the outlook's pairs, scored by a model or not as they are
    with_model: float  # at as many pairs, scored
    least_pairs: int  # of the curve
    most_pairs: int
    at_most: float  # scored, at that many


@dataclass(frozen=True)
class Outlook:
    """What was measured at as many pairs."""

    pairs: int
    scored: bool  # by a model
    measured: tuple[Measured, ...]


def outlook(pairs: int, *, scored: bool) -> Outlook:
    """What to expect of the evidence at `pairs` pairs, scored by a model or not."""
    measured = (
        Measured(
            curve.data,
            curve.at(pairs, model=scored),
            curve.at(pairs, model=True),
            curve.pairs[0],
            curve.pairs[-1],
            curve.with_model[-1],
        )
        for curve in curves()
    )
    return Outlook(pairs, scored, tuple(measured))
