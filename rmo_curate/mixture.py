"""Right and wrong labels as two mirrored normals: alpha N(mu, sd) + (1 - alpha) N(-mu, sd).

Exchanging a pair's answers negates its margin, so under flips at random the wrong pairs are the mirror image of the
right ones (PerpCorrect, Kong et al. 2024, fits the same mixture to a histogram).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 4096  # margins are put in bins of equal numbers first: EM costs the same for any number of pairs
STEPS = 2000
TOLERANCE = 1e-10


@dataclass(frozen=True)
class Mixture:
    right: float  # alpha, the share of right labels, in [0.5, 1]
    mean: float  # mu >= 0
    sd: float

    def wrong(self, margin: np.ndarray) -> np.ndarray:
        """P(the label is wrong | margin): [pairs], NaN where the margin is."""
        return 1 / (1 + np.exp(np.clip(self._log_odds(margin), -500, 500)))

    def _log_odds(self, margin: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            prior = np.log(self.right) - np.log1p(-self.right)
        return 2 * self.mean * margin / self.sd**2 + prior


@dataclass(frozen=True)
class Binned:
    """Margins in bins: which one each is in, and what a bin stands for."""

    of: np.ndarray  # int [finite margins]
    centre: np.ndarray  # [bins] mean of its margins
    square: np.ndarray  # [bins] mean of their squares

    @classmethod
    def from_margins(cls, margin: np.ndarray) -> Binned:
        order = np.argsort(margin, kind="stable")
        of = np.empty(len(margin), dtype=np.int64)
        bins = min(BINS, len(margin))
        of[order] = np.arange(len(margin)) * bins // max(1, len(margin))
        count = np.bincount(of, minlength=bins)
        return cls(of, np.bincount(of, margin, bins) / count, np.bincount(of, margin**2, bins) / count)


def fit_mixture(margin: np.ndarray) -> Mixture:
    """The mixture of the finite margins [pairs]."""
    known = margin[np.isfinite(margin)]
    binned = Binned.from_margins(known)
    return fit_binned(binned, np.bincount(binned.of, minlength=len(binned.centre)).astype(np.float64))


def fit_binned(binned: Binned, weight: np.ndarray) -> Mixture:
    """EM on bins of total weights [bins]. alpha stays at 0.5 or above: with more than half of the labels wrong the two
    components would change names."""
    share = weight / weight.sum()
    x, second = binned.centre, float(share @ binned.square)
    mixture = Mixture(0.8, float(share @ np.abs(x)), max(second, 1e-300) ** 0.5 / 2)
    for _ in range(STEPS):
        right = 1 - mixture.wrong(x)
        mean = abs(float(share @ ((2 * right - 1) * x)))
        # E[(x -+ mu)^2] over both components: the cross term is mu's own definition.
        sd = max(second - mean**2, 1e-12 * second, 1e-300) ** 0.5
        found = Mixture(float(np.clip(share @ right, 0.5, 1 - 1e-9)), mean, sd)
        moved = max(abs(found.right - mixture.right), abs(found.mean - mixture.mean) / sd)
        mixture = found
        if moved < TOLERANCE:
            break
    return mixture
