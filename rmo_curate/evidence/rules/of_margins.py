"""Rules that compare the margins of the base with those of T, the trajectory's end, or use the user's own scores."""

from __future__ import annotations

import numpy as np

from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores
from rmo_train.console.errors import UserError


def irm(scores: Scores) -> np.ndarray:
    """s = -(D_T - D_0): the proxy came to prefer the rejected response.

    The implicit reward margin of DPO, Rafailov et al. 2023.
    """
    return -margins.reward(scores)


def irm_ln(scores: Scores) -> np.ndarray:
    """s = -(D_T - D_0) of per-token means: irm corrected for length. Normalised as in SimPO, Meng et al. 2024."""
    return -(margins.mean_logp(scores) - margins.mean_logp(scores, 0))


def rmo(scores: Scores) -> np.ndarray:
    """s = min(-D_0, D_0 - D_T): positive exactly if the base prefers the rejected response and the proxy even more so.

    Reward Margin Optimization, AAAI 2026: the noise rule D_0 < 0 and D_T < D_0.
    """
    return np.minimum(-margins.logp(scores, 0), -margins.reward(scores))


def rmo_ln(scores: Scores) -> np.ndarray:
    """s = min(-D_0, D_0 - D_T) of per-token means."""
    base = margins.mean_logp(scores, 0)
    return np.minimum(-base, base - margins.mean_logp(scores))


def score(scores: Scores) -> np.ndarray:
    """s = rejected minus chosen score of --score-column, such as a reward model's. Needs no proxy."""
    if scores.external is None:
        raise UserError("--rule score needs a column with your own scores: give --score-column NAME")
    return margins.where_scored(-scores.external, scores)
