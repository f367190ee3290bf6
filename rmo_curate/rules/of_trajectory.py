"""Rules that average: over several proxies, or over the steps of the trajectory."""

from __future__ import annotations

import math

import numpy as np

from rmo_curate import margins
from rmo_curate.rules.registry import register
from rmo_curate.runs import Scores

BETA = 0.1  # DPO's, which the proxies are trained with by default


@register("loss", source="SelectiveDPO, Gao et al. 2025: the held-out DPO loss, averaged over proxies")
def loss(scores: Scores) -> np.ndarray:
    """s = mean over proxies of softplus(-beta (D_T - D_0)) - ln 2: a held-out loss above the untrained model's."""
    members = [BETA * margins.reward(member) for member in (scores, *scores.others)]
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.mean([np.logaddexp(0, -m) for m in members], axis=0) - math.log(2)


@register("aum", source="area under the margin, Pleiss et al. 2020, over the trajectory's steps")
def aum(scores: Scores) -> np.ndarray:
    """s = -mean over the steps of (D_t - D_0), each on one scale: a margin that was low all along."""
    return -np.mean([margins.on_one_scale(m, scores) for m in _steps(scores)], axis=0)


@register("cartography", source="dataset cartography, Swayamdipta et al. 2020: mean confidence over the steps")
def cartography(scores: Scores) -> np.ndarray:
    """s = 1/2 - mean over the steps of sigmoid(beta (D_t - D_0)): never confident in the given label."""
    return 0.5 - np.mean([sigmoid(BETA * m) for m in _steps(scores)], axis=0)


def _steps(scores: Scores) -> list[np.ndarray]:
    """Reward margins of the checkpoints after the base: [pairs] each."""
    return [margins.reward(scores, m) for m in range(1, len(scores.names))]


def sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.exp(-np.logaddexp(0, -x))
