"""The noise rate: the share of wrong labels, assumed to be flipped at random, with an interval over prompts.

A flip changes the sign of a margin x and keeps |x|. Where a proxy is confident (large |x|), a label that it contradicts
is probably flipped, so the share of negative margins there approaches the noise rate eps:

    P(x > 0 | |x|) = (1 - eps) sigma(k |x|) + eps (1 - sigma(k |x|))

The estimate is the most probable eps (MAP) on a grid of (eps, k), with two priors. First, margins are held-out
log-odds of the labels as given, wrong ones included, so their slope at small |x|, k (1 - 2 eps), should be near 1. Over
all |x| it is 1; large |x| flatten it, so at small |x| it is steeper, and the prior is centred at `SLOPE`. Second,
eps/0.5 is Beta(2, 2), since uninformative margins would otherwise put the estimate at an end of the grid. The
posterior mean would be pulled towards the middle and underestimate high noise rates. The distribution of margins is
left free; only the log-odds of a right order are assumed to be proportional to the margin, as they are for mirrored
normals. A mixture of normals fitted to the margins would mistake their heavy tails for right labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rmo_curate.score.logistic import logit
from rmo_train.evaluation.intervals import LEAST_PROMPTS
from rmo_train.evaluation.metrics import Interval

# Minimum number of pairs for reporting a rate or filtering by it: even if the truth of each label were known, the
# interval at a rate of 20% would be 2 x 1.96 x 0.4 / sqrt(100) = 16 points wide.
LEAST_FOR_RATE = 100
DRAWS = 200
BUNDLES = 2000  # more prompts than this are resampled in bundles: the same spread at a bounded cost
BINS = 256  # of |x|, with equal numbers of pairs
RATES = np.linspace(0.0, 0.45, 91)  # a higher rate cannot be distinguished from 0.5
SLOPES = np.geomspace(0.1, 50, 160)  # of k
SLOPE, SPREAD = 1.5, 0.25  # of k (1 - 2 eps): the median, and the sd of its logarithm
FORETOLD = 2.0  # standard errors above chance at which held-out labels count as predicted
FAINT = 1e-9  # k if they are not: pairs keep their order, and no label is doubted


@dataclass(frozen=True)
class Judgeable:
    """How many pairs, of how many prompts, have margins that labels can be judged by."""

    pairs: int
    prompts: int

    @classmethod
    def of(cls, margin: np.ndarray, groups: np.ndarray) -> Judgeable:
        """margin: [pairs], NaN where there is none; groups: [pairs], equal where prompts are."""
        known = np.isfinite(margin)
        return cls(int(known.sum()), len(np.unique(groups[known])))

    @property
    def enough(self) -> bool:
        """Whether a rate is told of them, and labels are dropped by it."""
        return self.pairs >= LEAST_FOR_RATE and self.prompts >= LEAST_PROMPTS


@dataclass(frozen=True)
class LabelNoise:
    """Labels flipped at the rate `rate`; k of the log-odds k |x| that a right label's margin is above 0."""

    rate: float
    slope: float

    @property
    def tells(self) -> bool:
        """Whether margins say anything about labels."""
        return self.slope > FAINT

    @property
    def prior(self) -> float:
        """Log-odds that a label is right, before its margin is seen."""
        return -logit(self.rate)

    def log_odds(self, margin: np.ndarray) -> np.ndarray:
        """Log-odds that a label is right, given its margin: [pairs], NaN where the margin is."""
        return self.prior + self.slope * margin


@dataclass(frozen=True)
class Binned:
    """Margins by size: the bin of each, a bin's mean |x|, and which margins are above 0."""

    of: np.ndarray  # int [margins]
    size: np.ndarray  # [bins]
    positive: np.ndarray  # bool [margins]

    @classmethod
    def from_margins(cls, margin: np.ndarray) -> Binned:
        size = np.abs(margin)
        bins = min(BINS, len(margin))
        of = np.empty(len(margin), dtype=np.int64)
        of[np.argsort(size, kind="stable")] = np.arange(len(margin)) * bins // max(1, len(margin))
        return cls(of, np.bincount(of, size, bins) / np.bincount(of, minlength=bins), margin > 0)

    @property
    def cell(self) -> np.ndarray:
        """Of each margin: its bin, twice as many where those above 0 are apart. int [margins]"""
        return 2 * self.of + self.positive

    def posteriors(self, counted: np.ndarray) -> Iterator[tuple[LabelNoise, np.ndarray]]:
        """For each row of counted margins [draws, cells]: the likeliest noise, and P(eps, k) at each of `RATES` and
        `SLOPES`."""
        sure = 1 / (1 + np.exp(-np.clip(SLOPES[:, None] * self.size, 0, 500)))
        right = (RATES[:, None, None] + (1 - 2 * RATES[:, None, None]) * sure).reshape(-1, len(self.size))
        off = (np.log(SLOPES) + np.log1p(-2 * RATES)[:, None] - np.log(SLOPE)) / SPREAD
        prior = (RATES * (0.5 - RATES))[:, None] * np.exp(-(off**2) / 2)
        with np.errstate(divide="ignore"):
            log_right, log_wrong = np.log(right), np.log(np.maximum(1 - right, 1e-12))
        for below, above in zip(counted[:, 0::2], counted[:, 1::2], strict=True):
            likelihood = (log_right @ above + log_wrong @ below).reshape(len(RATES), len(SLOPES))
            posterior = np.exp(likelihood - likelihood.max()) * prior
            posterior /= posterior.sum()
            of_rate = posterior.sum(1)
            best = int(of_rate.argmax())
            slope = np.exp(posterior[best] @ np.log(SLOPES) / of_rate[best])
            yield LabelNoise(float(RATES[best]), float(slope)), posterior


def fit_noise(margin: np.ndarray, groups: np.ndarray) -> LabelNoise:
    """The noise of the finite margins [pairs], held-out log-odds; groups: [pairs], the prompt of each pair.

    If margins predict labels no better than chance, either half of the labels are wrong or the margins are useless. The
    prior on the slope would make the fit choose the former, so in this case no label is doubted.
    """
    known = np.isfinite(margin)
    binned = Binned.from_margins(margin[known])
    ((noise, _),) = binned.posteriors(np.bincount(binned.cell, minlength=2 * len(binned.size))[None].astype(float))
    return noise if foretold(margin[known], groups[known]) >= FORETOLD else replace(noise, slope=FAINT)


def foretold(margin: np.ndarray, groups: np.ndarray) -> float:
    """How far above chance held-out log-odds predict labels, in standard errors over prompts; 0 for one prompt.

    Computed on 2 P(the label as given) - 1 = tanh(margin / 2), whose mean is 0 or less if margins are uninformative.
    """
    gained = np.tanh(margin / 2)
    _, prompt = np.unique(groups, return_inverse=True)
    off = np.bincount(prompt, gained - gained.mean())
    error = float(np.sqrt((off**2).sum()))
    return float(gained.sum()) / error if error else 0.0


class Resampled:
    """The noise rate of held-out margins and of bootstrap resamples over prompts, used with swapped copies.

    `known`: which pairs have a margin. `group`: the bundle of prompts [known pairs] with which a pair is drawn.
    `times`: how often each bundle is drawn [draws, bundles]. `rates`, `slopes`: noise drawn from the posterior of each
    resample, so that intervals reflect both the sampling of prompts and the uncertainty of the noise.
    """

    def __init__(self, margin: np.ndarray, groups: np.ndarray, draws: int = DRAWS, seed: int = 0):
        """margin: [pairs], NaN if there is none. groups: [pairs], the prompt of each pair."""
        self.known = np.isfinite(margin)
        rng = np.random.default_rng(seed)
        _, prompt = np.unique(groups[self.known], return_inverse=True)
        prompts = int(prompt.max()) + 1
        self.size = min(prompts, BUNDLES)
        self.group = (rng.permutation(prompts) % self.size)[prompt]
        self.times = np.stack(
            [np.bincount(rng.integers(0, self.size, self.size), minlength=self.size) for _ in range(draws)]
        )
        binned = Binned.from_margins(margin[self.known])
        cells = 2 * len(binned.size)
        once = np.bincount(binned.cell, minlength=cells)[None].astype(float)
        (noise, _), *drawn = binned.posteriors(np.concatenate([once, self.counted(binned.cell, cells)]))
        of_rate = np.array([posterior.sum(axis=1) for _, posterior in drawn])
        rate = drawn_from(of_rate, rng)
        of_slope = np.array([posterior[i] for i, (_, posterior) in zip(rate, drawn, strict=True)])
        self.rates, self.slopes = RATES[rate], SLOPES[drawn_from(of_slope, rng)]
        low, high = np.quantile(self.rates, [0.025, 0.975])
        self.rate = Interval(noise.rate, float(low), float(high))

    def counted(self, cell: np.ndarray, cells: int) -> np.ndarray:
        """How many pairs of each cell are drawn: [draws, cells]. cell: int [known pairs]."""
        held = np.bincount(self.group * cells + cell, minlength=self.size * cells).reshape(self.size, cells)
        return self.times.astype(float) @ held

    def leanings(self, margin: np.ndarray) -> np.ndarray:
        """2 P(a label is right) - 1 at each of the margins [n], under the noise of each draw: [draws, n]."""
        with np.errstate(divide="ignore"):
            priors = np.log1p(-self.rates) - np.log(self.rates)
        return np.tanh((priors[:, None] + self.slopes[:, None] * margin) / 2)


def drawn_from(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A place drawn from each row of weights [rows, places] that need not add up to 1: int [rows]."""
    below = np.cumsum(weights, axis=1)
    return np.minimum((below < rng.random((len(below), 1)) * below[:, -1:]).sum(axis=1), weights.shape[1] - 1)
