"""Baselines for detection: published statistics that rank pairs as `irm` does, or below chance, and `fuse`.

They are functions of `Scores`, as the rules of `rmo_curate/evidence/rules/` are, and no command offers them.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.mixture import fit_mixture
from rmo_curate.evidence.rules.rule import NATS, NATS_PER_TOKEN, Rule, Statistic, as_it_is
from rmo_curate.filter.rule_comparison import COMPARED
from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores
from rmo_curate.score.logistic import fit, sigmoid

BETA = 0.1  # DPO's, which the proxies are trained with by default
FOLDS = 5  # of `fuse`, by prompt
RIDGE = 30.0  # on its weights of features of unit scale: where data are few, no margin decides alone
CLIP = 5.0  # scales beyond which an outlier counts no more: its leverage would decide alone


# ------------------------------------------------------------------------------------------------- the proxy's margins


def base_ln(scores: Scores) -> np.ndarray:
    """s = -D_0 of per-token means: the perplexity difference under the reference alone."""
    return -margins.mean_logp(scores, 0)


def ppldiff(scores: Scores) -> np.ndarray:
    """s = -D_T of per-token means: PerpCorrect, Kong et al. 2024, over the responses' tokens."""
    return -margins.mean_logp(scores)


def loss(scores: Scores) -> np.ndarray:
    """s = softplus(-beta (D_T - D_0)) - ln 2: a held-out DPO loss above the untrained model's. SelectiveDPO, Gao et al.
    2025, with one proxy."""
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        return np.logaddexp(0, -BETA * margins.reward(scores)) - math.log(2)


# ------------------------------------------------------------------------------------------------- the trajectory


def aum(scores: Scores) -> np.ndarray:
    """s = -mean over the steps of (D_t - D_0), each on one scale: area under the margin, Pleiss et al. 2020."""
    return -np.mean([margins.on_one_scale(m, scores) for m in _steps(scores)], axis=0)


def cartography(scores: Scores) -> np.ndarray:
    """s = 1/2 - mean over the steps of sigmoid(beta (D_t - D_0)): dataset cartography, Swayamdipta et al. 2020."""
    return 0.5 - np.mean([sigmoid(BETA * m) for m in _steps(scores)], axis=0)


def _steps(scores: Scores) -> list[np.ndarray]:
    """Reward margins of the checkpoints after the base: [pairs] each."""
    return [margins.reward(scores, m) for m in range(1, len(scores.names))]


# ------------------------------------------------------------------------------------------------- fitted to all pairs


def scaled_irm(scores: Scores) -> np.ndarray:
    """D_T - D_0 [pairs], every fold on one scale."""
    return margins.on_one_scale(margins.reward(scores), scores)


def gmm(scores: Scores) -> Statistic:
    """s = P(wrong) - 1/2 under a mixture of N(mu, sd) and N(-mu, sd) of D_T - D_0 on one scale: PerpCorrect's."""
    mixture = fit_mixture(scaled_irm(scores))
    return lambda these: mixture.wrong(scaled_irm(these)) - 0.5


def cl(scores: Scores) -> Statistic:
    """s = (1 - p) - mean p, p of `confidence`: the other label is as confident as given ones are on average.

    Confident learning, Northcutt et al. 2021; the two classes are mirror images, so one threshold serves both.
    """
    slope = _slope(scores)
    mean = float(np.nanmean(sigmoid(scaled_irm(scores) * slope)))
    return lambda these: sigmoid(-scaled_irm(these) * slope) - mean


def confidence(scores: Scores) -> np.ndarray:
    """P(the label is right) [pairs]: sigmoid(a (D_T - D_0)), a learned on the given labels (Platt scaling)."""
    return sigmoid(scaled_irm(scores) * _slope(scores))


def _slope(scores: Scores) -> float:
    """If margins contradict the labels on the whole, the confidence is 0.5, not reversed."""
    x = scaled_irm(scores)
    return max(0.0, float(fit_clipped(x[np.isfinite(x), None], ridge=1.0)[0]))


def fuse(scores: Scores) -> Statistic:
    """s = -w . (margins of base and T), w from what best tells other prompts' pairs, as given, from swapped copies.

    Lengths are kept apart in two ways. What T's margins share with them, by least squares, is taken out: a proxy that
    learned from labels that favour the longer answer says it again. And their terms are in the fit, then left out, so
    that margins keep the weights that they have among answers of similar length.
    """
    assert scores.groups is not None
    shared = _shared_with_length(scores)
    values = _features(scores, shared)
    unit = _scales(values)
    features = np.hstack([values / unit, _length_terms(scores)])
    fold = scores.groups % FOLDS
    known = np.isfinite(features).all(axis=1)
    weights = np.stack([fit_clipped(features[known & (fold != k)], RIDGE) for k in range(FOLDS)])
    return lambda these: -np.einsum("nf,nf->n", _features(these, shared) / unit, weights[fold, : len(unit)])


def _of_proxy(scores: Scores) -> np.ndarray:
    """T's margins: [pairs, 1 or 2]. A trained proxy's is a sum over tokens, and has a mean per token beside it; a
    probe's is one number a pair."""
    columns = [scaled_irm(scores)]
    if not scores.of_probe:
        columns.append(margins.on_one_scale(margins.mean_logp(scores) - margins.mean_logp(scores, 0), scores))
    return np.stack(columns, axis=1)


def _shared_with_length(scores: Scores) -> np.ndarray:
    """What T's margins have of each term of length, by least squares: [terms, margins]."""
    margin = _of_proxy(scores)
    known = np.isfinite(margin).all(axis=1)
    return np.linalg.lstsq(_length_terms(scores)[known], margin[known], rcond=None)[0]


def _features(scores: Scores, shared: np.ndarray) -> np.ndarray:
    """[pairs, features]: each changes its sign when the pair is swapped."""
    beyond_length = _of_proxy(scores) - _length_terms(scores) @ shared
    return np.column_stack([beyond_length, margins.logp(scores, 0), margins.mean_logp(scores, 0)])


def _length_terms(scores: Scores) -> np.ndarray:
    return margins.length_terms(scores.chosen_tokens, scores.rejected_tokens)


def _scales(features: np.ndarray) -> np.ndarray:
    """Typical size of each feature, 1 where it is 0: [features]."""
    size = margins.MAD_TO_SD * np.nanmedian(np.abs(features), axis=0)
    return np.where(size > 0, size, 1.0)


def fit_clipped(features: np.ndarray, ridge: float) -> np.ndarray:
    """Weights [features] that tell rows from their mirror images; outliers count no more than `CLIP`."""
    return fit(np.clip(features, -CLIP, CLIP), ridge) if len(features) else np.zeros(features.shape[1])


BASELINES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("fuse", fuse, "weighted margins"),
        Rule("loss", as_it_is(loss), NATS),
        Rule("gmm", gmm, "probability"),
        Rule("cl", cl, "probability"),
        Rule("aum", as_it_is(aum), "typical margins"),
        Rule("cartography", as_it_is(cartography), "probability"),
        Rule("ppldiff", as_it_is(ppldiff), NATS_PER_TOKEN),
        Rule("base-ln", as_it_is(base_ln), NATS_PER_TOKEN),
    )
}


def with_baselines(*, grouped: bool) -> dict[str, Rule]:
    """Rules that `rmo-curate rules` compares, and the baselines; grouped: also `fuse`, which needs prompt groups."""
    return COMPARED | {name: rule for name, rule in BASELINES.items() if grouped or name != "fuse"}
