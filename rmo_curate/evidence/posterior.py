"""All evidence about a label, combined into P(the label is right).

Each source gives held-out log-odds, or statistics that serve as such. A second logistic regression, cross-fitted over
the same folds of prompts, learns the weight of each (stacking, Wolpert 1992). Evidence from other comparisons of the
same answers is added, and the noise rate turns the sum x into a probability:

    log-odds of a right label = logit(1 - eps) + k x,   x = sum over sources of what each adds

So the prior and the contributions of the sources add up to the posterior's log-odds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property

import numpy as np

from rmo_curate.evidence.answers import ANSWERS, Comparisons, best_effect
from rmo_curate.evidence.label_noise import LabelNoise, fit_noise
from rmo_curate.evidence.style import Style
from rmo_curate.score import logistic

FOLDS = 10  # of prompts
STACK_RIDGES = (10.0, 30.0, 100.0, 300.0, 1000.0)  # on the weights of columns of unit size
MANY = 200_000  # pairs, beyond which the strongest of these changes nothing: the weakest is taken, untried
SCALE_RIDGE = 1.0  # on the scale of their sum, in units of its size
CLIP = 5.0  # columns are clipped at this many times their typical size, so that no single outlier decides


@dataclass(frozen=True)
class Source:
    """A source of evidence: columns [pairs, c] that change their sign when a pair is swapped; NaN where it says nothing
    about a pair. Columns that are learned from labels are held out: the fit did not see the pair's prompt."""

    name: str
    columns: np.ndarray
    learned: bool = False  # columns are held-out log-odds: their weights are 0 or more


class Lack(Enum):
    """Why evidence is missing."""

    NOT_HELD_OUT = auto()  # a checkpoint may have memorised the labels
    PROXY = auto()  # there is no held-out proxy
    MODEL = auto()  # no model has scored the pairs
    PROMPTS = auto()  # too few for a held-out fit
    CATEGORIES = auto()  # no column names them
    GENERATORS = auto()  # no columns name them


@dataclass(frozen=True)
class Missing:
    """A source of evidence that is missing."""

    lack: Lack
    checkpoint: str = ""  # NOT_HELD_OUT: its name
    prompts: int = 0  # PROMPTS: their number


@dataclass(frozen=True)
class Posterior:
    """The evidence on n labels. `adds[:, j]` is what source j adds to x for each pair as labelled."""

    sources: tuple[str, ...]
    adds: np.ndarray  # float64 [n, sources]
    noise: LabelNoise
    groups: np.ndarray  # [n], the prompt of each pair
    missing: tuple[Missing, ...]
    variance: float  # of the answers' effects
    won: np.ndarray  # int [n, 2], other comparisons won by the chosen and by the rejected answer
    compared: np.ndarray  # int [n, 2]
    style: Style

    @cached_property
    def margin(self) -> np.ndarray:
        """x [n]."""
        return self.adds.sum(axis=1)

    @property
    def log_odds(self) -> np.ndarray:
        """Log-odds that the label is right [n]."""
        return self.noise.log_odds(self.margin)

    @property
    def right(self) -> np.ndarray:
        """P(the label is right) [n]."""
        return logistic.sigmoid(self.log_odds)

    def contributions(self, rows: int | slice = slice(None)) -> np.ndarray:
        """What each source adds to the log-odds of the pairs `rows` [rows, sources]; with `noise.prior` their sum."""
        return self.noise.slope * self.adds[rows]

    def swapped(self) -> Posterior:
        """Log-odds of the same pairs, each with its answers exchanged while all others stay as they are."""
        won, compared = self.won[:, ::-1], self.compared[:, ::-1]
        return replace(self, adds=-self.adds, style=self.style.swapped(), won=won, compared=compared)


def folds_of(prompt: np.ndarray) -> np.ndarray:
    """Fold of every pair, int [n]; a prompt is never split. `prompt` are hashes, so their order is random."""
    _, number = np.unique(prompt, return_inverse=True)
    return number % min(FOLDS, int(number.max(initial=0)) + 1)


def weigh(
    sources: Sequence[Source],
    comparisons: Comparisons,
    prompt: np.ndarray,
    style: Style,
    missing: Sequence[Missing] = (),
) -> Posterior:
    """The posterior of n pairs. prompt: hash [n]; style: kept for the reasons, its margin is one of the sources."""
    n = len(prompt)
    adds = [np.zeros((n, 0))]
    if sources:
        columns = np.hstack([source.columns for source in sources])
        positive = np.concatenate([np.full(source.columns.shape[1], source.learned) for source in sources])
        x = np.nan_to_num(np.clip(columns / typical(columns), -CLIP, CLIP))
        folds = folds_of(prompt)
        fitted = logistic.cross_fit(x, folds, STACK_RIDGES if n < MANY else STACK_RIDGES[:1], positive)
        weighed = x * fitted.weights[folds]
        weighed *= scale_of(weighed.sum(axis=1))
        ends = np.cumsum([source.columns.shape[1] for source in sources])
        adds += [part.sum(axis=1, keepdims=True) for part in np.split(weighed, ends[:-1], axis=1)]
    margin = np.hstack(adds).sum(axis=1)
    effects, variance = best_effect(comparisons, margin)
    won, compared = comparisons.others()
    together = np.column_stack([*adds, effects])
    return Posterior(
        sources=(*(source.name for source in sources), ANSWERS),
        adds=together,
        noise=fit_noise(together.sum(axis=1), prompt),
        groups=prompt,
        missing=tuple(missing),
        variance=variance,
        won=won,
        compared=compared,
        style=style,
    )


def scale_of(margin: np.ndarray) -> float:
    """The factor that turns a margin [n] that predicts labels up to its scale into log-odds of the labels as given.

    The ridge that predicts held-out labels best may have shrunk it to nearly nothing. 1 where it predicts none.
    """
    size = float(np.sqrt(np.mean(margin**2))) or 1.0
    scale = float(logistic.fit(margin[:, None] / size, SCALE_RIDGE)[0])
    return scale / size if scale > 0 else 1.0


def typical(columns: np.ndarray) -> np.ndarray:
    """Typical size of each column, 1 where it is 0: [columns]. A median, which outliers do not move."""
    size = 1.4826 * np.nanmedian(np.abs(columns), axis=0)
    spread = np.sqrt(np.nanmean(columns**2, axis=0))
    size = np.where(size > 0, size, spread)  # for a column that is 0 for most pairs
    return np.where(size > 0, size, 1.0)
