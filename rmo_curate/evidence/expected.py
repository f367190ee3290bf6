"""Expected detection by number of pairs: a learning curve, measured on two data sets with known flips."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

CURVE = "learning_curve.json"  # beside this file; written by `python -m benchmarks.detect --table --write`


@dataclass(frozen=True)
class Curve:
    """Length-matched AUROC for labels flipped at random, by number of pairs, with and without a model (means)."""

    data: str  # in words
    pairs: tuple[int, ...]
    with_model: tuple[float, ...]
    without: tuple[float, ...]

    def at(self, pairs: int, *, model: bool) -> float:
        """Interpolated in log(pairs); constant beyond the ends of the curve."""
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
    here: float  # at the outlook's number of pairs, with or without a model
    with_model: float  # at the same number of pairs, with a model
    least_pairs: int  # smallest number of pairs on the curve
    most_pairs: int
    at_most: float  # with a model, at `most_pairs`


@dataclass(frozen=True)
class Outlook:
    """Measurements at this number of pairs."""

    pairs: int
    scored: bool  # by a model
    measured: tuple[Measured, ...]


def outlook(pairs: int, *, scored: bool) -> Outlook:
    """Expected detection at `pairs` pairs, scored by a model or not."""
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
