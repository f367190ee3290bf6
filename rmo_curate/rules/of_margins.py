"""Rules that compare the margins of the base with those of T, the trajectory's end."""

from __future__ import annotations

import numpy as np

from rmo_curate import margins
from rmo_curate.rules.registry import register
from rmo_curate.runs import Scores
from rmo_train.errors import UserError

AUTHORS_RANGE = 10.0  # nats; the constant of the authors' script


@register("irm", source="implicit reward margin of DPO, Rafailov et al. 2023")
def irm(scores: Scores) -> np.ndarray:
    """s = -(D_T - D_0): the proxy came to prefer the rejected response."""
    return -margins.reward(scores)


@register("irm-ln", source="irm with length-normalised log-probs, as in SimPO, Meng et al. 2024")
def irm_ln(scores: Scores) -> np.ndarray:
    """s = -(D_T - D_0) of per-token means: irm without the pull of length."""
    return -(margins.mean_logp(scores) - margins.mean_logp(scores, 0))


@register("rmo", source="Reward Margin Optimization, AAAI 2026: the noise rule D_0 < 0 and D_T < D_0")
def rmo(scores: Scores) -> np.ndarray:
    """s = min(-D_0, D_0 - D_T): positive exactly where the base is wrong and the proxy more so."""
    return np.minimum(-margins.logp(scores, 0), -margins.reward(scores))


@register("rmo-ln", source="rmo with length-normalised log-probs")
def rmo_ln(scores: Scores) -> np.ndarray:
    """s = min(-D_0, D_0 - D_T) of per-token means."""
    base = margins.mean_logp(scores, 0)
    return np.minimum(-base, base - margins.mean_logp(scores))


@register("authors-code", source="the script of RMO's authors: rmo's rule, or |D_0| and |D_T| both at most 10 nats")
def authors_code(scores: Scores) -> np.ndarray:
    """s = max(rmo, 10 - max(|D_0|, |D_T|)): positive where the authors' script would drop a pair."""
    size = np.maximum(np.abs(margins.logp(scores, 0)), np.abs(margins.logp(scores)))
    return np.maximum(rmo(scores), AUTHORS_RANGE - size)


@register("base-ln", source="perplexity difference under the reference alone", needs_proxy=False)
def base_ln(scores: Scores) -> np.ndarray:
    """s = -D_0 of per-token means: the base finds the rejected response more fluent. Needs no proxy."""
    return -margins.mean_logp(scores, 0)


@register("ppldiff", source="PerpCorrect, Kong et al. 2024: log-perplexity of chosen minus rejected, responses only")
def ppldiff(scores: Scores) -> np.ndarray:
    """s = -D_T of per-token means: the proxy finds the rejected response more fluent."""
    return -margins.mean_logp(scores)


@register("score", source="a reward model or a judge of your own", needs_proxy=False)
def score(scores: Scores) -> np.ndarray:
    """s = rejected minus chosen score of --score-column: somebody else's opinion. Needs no proxy."""
    if scores.external is None:
        raise UserError("--rule score reads scores of yours: give --score-column NAME")
    return margins.where_scored(-scores.external, scores)
