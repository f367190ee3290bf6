"""The share of wrong labels, estimated from held-out margins, with an interval over prompts."""

from __future__ import annotations

import numpy as np

from rmo_curate.mixture import Binned, Mixture, fit_binned
from rmo_curate.rules.fitted import scaled_irm
from rmo_curate.runs import Scores
from rmo_train.errors import UserError
from rmo_train.metrics import Interval

DRAWS = 200
MOST = 0.45  # a rate above it cannot be told from one half


class Resampled:
    """The mixture of held-out margins, and of resampled prompts: what the noise rate and canaries are made of."""

    def __init__(self, scores: Scores, draws: int = DRAWS, seed: int = 0):
        """scores: with groups; pairs without scores are left out. UserError where scores are not held out."""
        require_held_out(scores)
        assert scores.groups is not None
        margin = scaled_irm(scores)
        self.known = np.isfinite(margin)
        self.binned = Binned.from_margins(margin[self.known])
        _, self.group = np.unique(scores.groups[self.known], return_inverse=True)
        self.mixture = self._fitted(np.ones(len(self.group)))
        rng = np.random.default_rng(seed)
        prompts = int(self.group.max()) + 1
        counts = (np.bincount(rng.integers(0, prompts, prompts), minlength=prompts) for _ in range(draws))
        self.draws: list[tuple[np.ndarray, float]] = []  # how often each prompt is drawn, the noise rate then
        for times in counts:
            self.draws.append((times, rate_of(self._fitted(times[self.group].astype(np.float64)))))

    def _fitted(self, weight: np.ndarray) -> Mixture:
        return fit_binned(self.binned, np.bincount(self.binned.of, weight, len(self.binned.centre)))

    @property
    def rate(self) -> Interval:
        """The noise rate with its 95% interval."""
        low, high = np.quantile([rate for _, rate in self.draws], [0.025, 0.975])
        return Interval(rate_of(self.mixture), float(low), float(high))


def rate_of(mixture: Mixture) -> float:
    return min(1 - mixture.right, MOST)


def require_held_out(scores: Scores) -> None:
    """Margins of pairs that a proxy was trained on say what it memorised, flips included."""
    known = np.isfinite(scores.chosen_logp[:, -1])
    seen = np.array([h is not True for h in scores.held_out[known]])
    if seen.any():
        raise UserError(
            f"{scores.names[-1]!r}: {seen.sum():,} of {len(seen):,} pairs were not scored held out, so a noise rate or "
            "a precision estimated from them would be too good; use cross-fitted proxies (`rmo-curate proxy RUN "
            "--folds 2`, then --proxy oof-...)"
        )
