"""Rules that fit something to all pairs first: a mixture, a confidence, a combination of statistics."""

from __future__ import annotations

import numpy as np

from rmo_curate import margins
from rmo_curate.mixture import fit_mixture
from rmo_curate.rules.of_trajectory import sigmoid
from rmo_curate.rules.registry import Statistic, register
from rmo_curate.runs import Scores

FOLDS = 5  # of `fuse`, by prompt
RIDGE = 30.0  # on its weights of features of unit scale: where data are few, no margin decides alone
NEWTON_STEPS = 50


def scaled_irm(scores: Scores) -> np.ndarray:
    """D_T - D_0 [pairs], every fold on one scale."""
    return margins.on_one_scale(margins.reward(scores), scores)


@register("gmm", source="PerpCorrect's mixture of two mirrored normals, Kong et al. 2024, fitted by EM", fitted=True)
def gmm(scores: Scores) -> Statistic:
    """s = P(wrong) - 1/2 under a mixture of N(mu, sd) and N(-mu, sd) of D_T - D_0 on one scale."""
    mixture = fit_mixture(scaled_irm(scores))
    return lambda these: mixture.wrong(scaled_irm(these)) - 0.5


@register("cl", source="confident learning, Northcutt et al. 2021, on Platt-scaled held-out margins", fitted=True)
def cl(scores: Scores) -> Statistic:
    """s = (1 - p) - mean p, p = sigmoid(a (D_T - D_0)): the other label is as confident as given ones are on average.

    The two classes are mirror images, so one threshold serves both and the calibration has no intercept.
    """
    x = scaled_irm(scores)
    # Margins that speak against the labels on the whole give no confidence, rather than a reversed one.
    slope = max(0.0, float(fit_logistic(x[np.isfinite(x), None])[0]))
    confidence = float(np.mean(sigmoid(x[np.isfinite(x)] * slope)))
    return lambda these: sigmoid(-scaled_irm(these) * slope) - confidence


@register(
    "fuse", source="logistic regression that tells pairs from their swapped copies", needs_groups=True, fitted=True
)
def fuse(scores: Scores) -> Statistic:
    """s = -w . (margins of base and T), w learned at equal length on swapped copies of other prompts' pairs."""
    return _fused(scores, with_length=False)


@register("fuse+length", source="fuse with what it learned of length", needs_groups=True, fitted=True)
def fuse_length(scores: Scores) -> Statistic:
    """As fuse, and what it learned of the difference in length counts: it finds what length finds, and its bias."""
    return _fused(scores, with_length=True)


def _fused(scores: Scores, *, with_length: bool) -> Statistic:
    """The combination of features that best tells pairs as given from swapped ones, for each fold from the others.

    Lengths are kept apart in two ways. What T's margins share with them, by least squares, is taken out: a proxy that
    learned from labels that favour the longer answer says it again. And their terms are in the fit, so that margins
    keep the weights that they have among answers of like length; `with_length` says whether the terms count in the end.
    """
    assert scores.groups is not None
    shared = _shared_with_length(scores)
    values = _features(scores, shared)
    unit = _scales(values)
    features = np.hstack([values / unit, _length_terms(scores)])
    fold = scores.groups % FOLDS
    known = np.isfinite(features).all(axis=1)
    weights = np.stack([fit_logistic(features[known & (fold != k)], RIDGE) for k in range(FOLDS)])

    def suspicion(these: Scores) -> np.ndarray:
        values, n = _features(these, shared) / unit, len(unit)
        s = -np.einsum("nf,nf->n", values, weights[fold, :n])
        return s - np.einsum("nf,nf->n", _length_terms(these), weights[fold, n:]) if with_length else s

    return suspicion


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


def fit_logistic(features: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """Weights [features] of sigmoid(w . x), by Newton's method with a ridge, where every row is of class 1.

    With features that change sign under a swap this is the regression that tells rows from their mirror images: the
    mirrored row of class 0 has the same loss. Outliers are clipped to 5 scales, as their leverage would decide alone.
    """
    x = np.clip(features, -5, 5)
    w = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        p = sigmoid(-x @ w)
        gradient = x.T @ p - ridge * w
        curvature = (x * (p * (1 - p))[:, None]).T @ x + ridge * np.eye(len(w))
        change = np.linalg.solve(curvature, gradient)
        w = w + change
        if np.abs(change).max() < 1e-9:
            break
    return w
