"""The noise rate: the share of labels that are wrong, taken as flipped at random; with an interval over prompts.

A flip changes the sign of a margin x and leaves |x|. Where a proxy is sure (large |x|), a label that it contradicts is
likely a flipped one, so the share of negative margins there tends to the noise rate eps:

    P(x > 0 | |x|) = (1 - eps) sigma(k |x|) + eps (1 - sigma(k |x|))

The estimate is the likeliest eps on a grid of (eps, k). Two things are known before the labels are looked at. Margins
are held-out log-odds of labels as they are, wrong ones included, so their slope among small |x|, k (1 - 2 eps), is near
1; ridges shrink them, so it is near `SLOPE` instead. And eps/0.5 is Beta(2, 2): both ends of the grid are unlikely,
where margins that tell little would otherwise put it. The posterior mean would lean to the middle instead, and put many
wrong labels too low. Nothing is assumed of how margins are distributed, only that the log-odds of a right order grow in
proportion to the margin, as they do for mirrored normals; a mixture of normals, fitted to the margins themselves, takes
their heavy tails for right labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from rmo_curate.score.logistic import logit
from rmo_train.evaluation.metrics import Interval

# Pairs of which a rate is told, and cut by: were the truth of each label known, its interval at a rate of 20% would
# already be 2 x 1.96 x 0.4 / sqrt(100) = 16 points wide.
LEAST_FOR_RATE = 100
DRAWS = 200
BUNDLES = 2000  # of prompts: more are drawn in bundles, whose bootstrap has the same spread at a bounded cost
BINS = 256  # of |x|, of equal numbers of pairs
RATES = np.linspace(0.0, 0.45, 91)  # a rate above cannot be told from one half
SLOPES = np.geomspace(0.1, 50, 160)  # of k
SLOPE, SPREAD = 1.5, 0.25  # of k (1 - 2 eps): the median, and the sd of its logarithm
FORETOLD = 2.0  # standard errors above chance from which held-out labels count as foretold
FAINT = 1e-9  # k where they do not: pairs keep their order, and none is doubted


@dataclass(frozen=True)
class LabelNoise:
    """Labels flipped at the rate `rate`; k of the log-odds k |x| that a right label's margin is above 0."""

    rate: float
    slope: float

    @property
    def tells(self) -> bool:
        """Whether margins say anything of labels."""
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

    def posteriors(self, weights: Iterable[np.ndarray]) -> list[tuple[LabelNoise, np.ndarray]]:
        """Under each of the weights [margins]: the likeliest noise, and P(eps) at each of `RATES`.

        They are asked for one by one: of millions of margins, hundreds of weights would not fit into memory together.
        """
        sure = 1 / (1 + np.exp(-np.clip(SLOPES[:, None] * self.size, 0, 500)))
        right = (RATES[:, None, None] + (1 - 2 * RATES[:, None, None]) * sure).reshape(-1, len(self.size))
        off = (np.log(SLOPES) + np.log1p(-2 * RATES)[:, None] - np.log(SLOPE)) / SPREAD
        prior = (RATES * (0.5 - RATES))[:, None] * np.exp(-(off**2) / 2)
        with np.errstate(divide="ignore"):
            log_right, log_wrong = np.log(right), np.log(np.maximum(1 - right, 1e-12))
        fits = []
        for weight in weights:
            above, all_ = (np.bincount(self.of, w, len(self.size)) for w in (weight * self.positive, weight))
            likelihood = (log_right @ above + log_wrong @ (all_ - above)).reshape(len(RATES), len(SLOPES))
            posterior = np.exp(likelihood - likelihood.max()) * prior
            posterior /= posterior.sum()
            of_rate = posterior.sum(1)
            best = int(of_rate.argmax())
            slope = np.exp(posterior[best] @ np.log(SLOPES) / of_rate[best])
            fits.append((LabelNoise(float(RATES[best]), float(slope)), of_rate))
        return fits


def fit_noise(margin: np.ndarray, groups: np.ndarray) -> LabelNoise:
    """The noise of the finite margins [pairs], held-out log-odds; groups: [pairs], equal where prompts are.

    Where they foretell labels no better than chance, labels may be anything: half of them wrong and the margins sure,
    or the margins nothing. The fit would take the first, its slope being given for small margins; so no label is
    doubted then.
    """
    known = np.isfinite(margin)
    noise = Binned.from_margins(margin[known]).posteriors([np.ones(int(known.sum()))])[0][0]
    return noise if foretold(margin[known], groups[known]) >= FORETOLD else replace(noise, slope=FAINT)


def foretold(margin: np.ndarray, groups: np.ndarray) -> float:
    """How far above chance held-out log-odds foretell labels, in standard errors over prompts; 0 for one prompt.

    Of 2 P(the label as it is) - 1 = tanh(margin / 2), whose mean is 0 or less where margins tell nothing.
    """
    gained = np.tanh(margin / 2)
    _, prompt = np.unique(groups, return_inverse=True)
    off = np.bincount(prompt, gained - gained.mean())
    error = float(np.sqrt((off**2).sum()))
    return float(gained.sum()) / error if error else 0.0


class Resampled:
    """The noise rate of held-out margins, and of resampled prompts: what swapped copies are judged with.

    `known` says which pairs have a margin; `group` is the bundle of prompts [known pairs] that a pair is drawn with;
    `times` how often each is drawn [draws, bundles]; `rates` a noise rate drawn from the posterior under each draw, so
    that intervals know of both: which prompts there are, and how much their margins tell.
    """

    def __init__(self, margin: np.ndarray, groups: np.ndarray, draws: int = DRAWS, seed: int = 0):
        """margin: [pairs], NaN where there is none. groups: [pairs], equal where prompts are."""
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
        (noise, _), *drawn = binned.posteriors(
            chain([np.ones(len(self.group))], (times[self.group].astype(float) for times in self.times))
        )
        below = np.cumsum([posterior for _, posterior in drawn], axis=1)
        self.rates = RATES[np.minimum((below < rng.random((draws, 1))).sum(1), len(RATES) - 1)]
        low, high = np.quantile(self.rates, [0.025, 0.975])
        self.rate = Interval(noise.rate, float(low), float(high))
