"""Right and wrong labels as two mirrored normals: alpha N(mu, sd) + (1 - alpha) N(-mu, sd).

Exchanging a pair's answers negates its margin, so under flips at random the wrong pairs are the mirror image of the
right ones (PerpCorrect, Kong et al. 2024, fits the same mixture to a histogram). Real margins have heavier tails than
normals, so the share of wrong labels is estimated otherwise: see `rmo_curate.evidence.label_noise`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 4096
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


def fit_mixture(margin: np.ndarray) -> Mixture:
    """EM on the finite margins [pairs]. alpha stays at 0.5 or above: with more than half of the labels wrong the two
    components would change names."""
    x = margin[np.isfinite(margin)]
    share = np.full(len(x), 1 / max(1, len(x)))
    if len(x) > BINS:  # bins of equal numbers, so that EM costs the same for any number of pairs
        parts = np.array_split(np.sort(x), BINS)
        share, second = np.array([len(p) for p in parts]) / len(x), float(np.mean(x**2))
        x = np.array([p.mean() for p in parts])
    else:
        second = float(share @ x**2)
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
