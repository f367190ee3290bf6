"""The share of labels flipped at random, estimated from held-out margins, with an interval over prompts.

A flip changes the sign of a margin x and leaves |x|. Where a proxy is sure (large |x|), a label that it contradicts is
likely a flipped one, so the share of negative margins there tends to the noise rate eps:

    P(x > 0 | |x|) = (1 - eps) sigma(k |x|) + eps (1 - sigma(k |x|))

The estimate is eps's posterior mean on a grid of (eps, k), each as likely as any other before the data are seen: where
margins tell little, the likeliest eps is often an end of the grid, and the mean is not. Nothing is assumed of how
margins are distributed, only that the log-odds of a right order grow in proportion to the margin, as they do for
mirrored normals; a mixture of normals, fitted to the margins themselves, takes their heavy tails for right labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate import margins
from rmo_curate.runs import Scores
from rmo_train.errors import UserError
from rmo_train.metrics import Interval

DRAWS = 200
BUNDLES = 2000  # of prompts: more are drawn in bundles, whose bootstrap has the same spread at a bounded cost
BINS = 256  # of |x|, of equal numbers of pairs
RATES = np.linspace(0.0, 0.45, 91)  # a rate above cannot be told from one half
SLOPES = np.geomspace(0.02, 50, 80)  # per MAD


def noise_margin(scores: Scores) -> np.ndarray:
    """The margin that labels are judged by: [pairs], D_T - D_0 of per-token means, every fold on one scale.

    A probe's D_T - D_0 is a log-odds as it is.
    """
    if scores.of_probe:
        return margins.on_one_scale(margins.reward(scores), scores)
    return margins.on_one_scale(margins.mean_logp(scores) - margins.mean_logp(scores, 0), scores)


@dataclass(frozen=True)
class LabelNoise:
    """Labels flipped at the rate `rate`; k of the log-odds k |x| that a right label's margin is above 0."""

    rate: float
    slope: float

    def wrong(self, margin: np.ndarray) -> np.ndarray:
        """P(the label is flipped | margin): [pairs], NaN where the margin is. Its log-odds are logit(eps) - k x."""
        with np.errstate(divide="ignore"):
            prior = np.log(self.rate) - np.log1p(-self.rate)
        return 1 / (1 + np.exp(np.clip(self.slope * margin - prior, -500, 500)))


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

    def posteriors(self, weights: list[np.ndarray]) -> list[tuple[LabelNoise, np.ndarray]]:
        """Under each of the weights [margins]: the noise by its posterior means, and P(eps) at each of `RATES`."""
        sure = 1 / (1 + np.exp(-np.clip(SLOPES[:, None] * self.size, 0, 500)))
        right = (RATES[:, None, None] + (1 - 2 * RATES[:, None, None]) * sure).reshape(-1, len(self.size))
        with np.errstate(divide="ignore"):
            log_right, log_wrong = np.log(right), np.log(np.maximum(1 - right, 1e-12))
        found = []
        for weight in weights:
            above, all_ = (np.bincount(self.of, w, len(self.size)) for w in (weight * self.positive, weight))
            likelihood = (log_right @ above + log_wrong @ (all_ - above)).reshape(len(RATES), len(SLOPES))
            posterior = np.exp(likelihood - likelihood.max())
            posterior /= posterior.sum()
            of_rate, of_slope = posterior.sum(1), posterior.sum(0)
            noise = LabelNoise(float(of_rate @ RATES), float(np.exp(of_slope @ np.log(SLOPES))))
            found.append((noise, of_rate))
        return found


def fit_noise(margin: np.ndarray) -> LabelNoise:
    """The noise of the finite margins [pairs]."""
    known = margin[np.isfinite(margin)]
    return Binned.from_margins(known).posteriors([np.ones(len(known))])[0][0]


class Resampled:
    """The noise rate of held-out margins, and of resampled prompts: what canaries are computed with.

    `group` is the bundle of prompts [known pairs] that a pair is drawn with; `times` how often each is drawn [draws,
    bundles]; `rates` a noise rate drawn from the posterior under each draw, so that intervals know of both: which
    prompts there are, and how much their margins tell.
    """

    def __init__(self, scores: Scores, draws: int = DRAWS, seed: int = 0):
        """scores: with groups; pairs without scores are left out. UserError where scores are not held out."""
        require_held_out(scores)
        assert scores.groups is not None
        margin = noise_margin(scores)
        self.known = np.isfinite(margin)
        rng = np.random.default_rng(seed)
        _, prompt = np.unique(scores.groups[self.known], return_inverse=True)
        prompts = int(prompt.max()) + 1
        self.size = min(prompts, BUNDLES)
        self.group = (rng.permutation(prompts) % self.size)[prompt]
        self.times = np.stack(
            [np.bincount(rng.integers(0, self.size, self.size), minlength=self.size) for _ in range(draws)]
        )
        binned = Binned.from_margins(margin[self.known])
        (noise, _), *drawn = binned.posteriors(
            [np.ones(len(self.group)), *(times[self.group].astype(float) for times in self.times)]
        )
        below = np.cumsum([posterior for _, posterior in drawn], axis=1)
        self.rates = RATES[np.minimum((below < rng.random((draws, 1))).sum(1), len(RATES) - 1)]
        low, high = np.quantile(self.rates, [0.025, 0.975])
        self.rate = Interval(noise.rate, float(low), float(high))


def require_held_out(scores: Scores) -> None:
    """Margins of pairs that a proxy was trained on say what it memorised, flips included."""
    known = np.isfinite(scores.chosen_logp[:, -1])
    seen = np.array([h is not True for h in scores.held_out[known]])
    if seen.any():
        raise UserError(
            f"{scores.names[-1]!r}: {seen.sum():,} of {len(seen):,} pairs were not scored held out, so a noise rate or "
            "a precision estimated from them would be too good; fit a cross-fitted probe (`rmo-curate probe "
            "RUN`, then --proxy oof-probe)"
        )
