"""The logistic regression of pairs: which of two answers is chosen, from what differs between them.

A pair is a row x of differences (chosen less rejected), and P(chosen beats rejected) = sigmoid(w . x), the model of
Bradley and Terry 1952 with linear strengths. There is no intercept, so a swapped pair has the mirrored log-odds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from rmo_train.evaluation.logistic import newton
from rmo_train.evaluation.logistic import sigmoid as sigmoid

Fitted = TypeVar("Fitted")

WIDE = 64  # features beyond which the Hessian costs more than it saves
STEPS, TOLERANCE = 1000, 1e-6  # of L-BFGS: the most steps, and the slope per pair at which it ends
NEWTON_STEPS, HALVINGS, FISTA_STEPS, WEIGHT_TOLERANCE = 50, 20, 1000, 1e-4  # of the lasso
LEAST_DEVIATIONS = 2.0  # standard errors by which a fit must be better to be called so
SCALES = np.geomspace(0.25, 8.0, 16)  # of held-out log-odds when ridges are compared


@dataclass(frozen=True)
class CrossFit:
    """Held-out log-odds of every pair, and what they were computed with."""

    margin: np.ndarray  # float64 [pairs], by the fit that saw nothing of a pair's fold
    weights: np.ndarray  # [folds, features], of the columns as they are given
    ridge: float


def fit(x: Any, ridge: float, known: np.ndarray | float = 0.0) -> np.ndarray:
    """Weights w [features] that maximise sum log sigmoid(known + x w) - ridge/2 |w|^2 for rows x [pairs, features],
    dense or sparse; known: log-odds that are there already [pairs].

    Newton's method where the Hessian is small, else L-BFGS.
    """
    from scipy.sparse import issparse

    if x.shape[1] <= WIDE and not issparse(x):
        return newton(x.astype(np.float64), ridge, known=known)
    return _lbfgs(x, ridge, known)


def _lbfgs(x: Any, ridge: float, known: np.ndarray | float) -> np.ndarray:
    """The optimum of many features. Products are computed in the precision of x, which would be copied otherwise."""
    from scipy.optimize import minimize

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        log_odds = known + (x @ w.astype(x.dtype)).astype(np.float64)
        pull = (x.T @ sigmoid(-log_odds).astype(x.dtype)).astype(np.float64)
        return float(np.logaddexp(0, -log_odds).sum() + ridge / 2 * w @ w), ridge * w - pull

    found = minimize(
        objective,
        np.zeros(x.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS, "gtol": TOLERANCE * x.shape[0], "ftol": 64 * np.finfo(np.float64).eps},
    )
    weights: np.ndarray = found.x
    return weights


class Design(Protocol):
    """Rows x [pairs, features] that are too wide to be held: only some of their columns ever are."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def slope(self, p: np.ndarray) -> np.ndarray:
        """x' p for p [pairs]."""

    def columns(self, some: np.ndarray) -> np.ndarray:
        """x[:, some]."""

    def energy(self) -> float:
        """The sum of all squares."""


@dataclass(frozen=True)
class Dense:
    """A design in memory."""

    x: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        return self.x.shape[0], self.x.shape[1]

    def slope(self, p: np.ndarray) -> np.ndarray:
        return self.x.T @ p

    def columns(self, some: np.ndarray) -> np.ndarray:
        return self.x[:, some]

    def energy(self) -> float:
        return float((self.x**2).sum())


def lasso(
    design: Design | np.ndarray, strength: float, known: np.ndarray | float = 0.0, start: np.ndarray | None = None
) -> np.ndarray:
    """Weights w [features] that maximise sum log sigmoid(known + x w) - strength s sum |w| for rows x [pairs, features]
    with columns of like size; s is the standard deviation of the sum's slope in a weight if labels are coin flips, half
    the root of a column's mean sum of squares. So only features that labels follow by `strength` deviations count.

    Proximal Newton (Lee et al. 2014) on the weights that are not 0 or want to leave it. start: near the optimum.
    """
    x = Dense(design.astype(np.float64)) if isinstance(design, np.ndarray) else design
    pairs, features = x.shape
    penalty = strength / 2 * float(np.sqrt(x.energy() / max(1, features)))

    def objective(log_odds: np.ndarray, w: np.ndarray) -> float:
        return float(np.logaddexp(0, -log_odds).sum() + penalty * np.abs(w).sum())

    w, log_odds = np.zeros(features), known + np.zeros(pairs)
    if start is not None and start.any():
        w, held = start.copy(), np.flatnonzero(start)
        log_odds = log_odds + x.columns(held) @ start[held]
    value = objective(log_odds, w)
    for _ in range(NEWTON_STEPS):
        p = sigmoid(-log_odds)
        slope = x.slope(p)
        active = np.flatnonzero((w != 0) | (np.abs(slope) > penalty))
        some = x.columns(active)
        curvature = (some * (p * (1 - p))[:, None]).T @ some
        step = _least(curvature, slope[active], penalty, w[active]) - w[active]
        if np.abs(step).max(initial=0.0) <= WEIGHT_TOLERANCE * max(1.0, np.abs(w).max(initial=0.0)):
            break
        ahead = some @ step
        for scale in 0.5 ** np.arange(HALVINGS):  # it overshoots on separable rows
            tried = w.copy()
            tried[active] += scale * step
            reached = objective(log_odds + scale * ahead, tried)
            if reached <= value:
                break
        w, log_odds, value = tried, log_odds + scale * ahead, reached
    return w


def _least(curvature: np.ndarray, slope: np.ndarray, penalty: float, start: np.ndarray) -> np.ndarray:
    """The w that minimises (w - start)' curvature (w - start) / 2 - slope (w - start) + penalty sum |w|.

    FISTA (Beck and Teboulle 2009) with restarts (O'Donoghue and Candes 2015), in units of equal curvature.
    """
    unit = np.sqrt(np.diag(curvature))
    unit = np.where(unit > 0, unit, 1.0)
    scaled = curvature / unit / unit[:, None]
    pull, threshold = slope / unit + scaled @ (start * unit), penalty / unit
    step = 1 / np.abs(scaled).sum(axis=0).max(initial=1.0)  # no eigenvalue is larger than a column's sum
    w = ahead = start * unit
    momentum = 1.0
    for _ in range(FISTA_STEPS):
        moved = ahead - step * (scaled @ ahead - pull)
        reached = np.sign(moved) * np.maximum(np.abs(moved) - step * threshold, 0.0)
        change = reached - w
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2 if (ahead - reached) @ change <= 0 else 1.0
        ahead = reached + (momentum - 1) / faster * change if faster > 1 else reached
        momentum, w = faster, reached
        if np.abs(change).max(initial=0.0) <= WEIGHT_TOLERANCE / 10 * np.abs(w).max(initial=0.0):
            break
    return w / unit


def _fit_bounded(x: np.ndarray, ridge: float, positive: np.ndarray) -> np.ndarray:
    """`fit` with the weights of the columns `positive` (bool [features]) at 0 or above: those that come out below are
    left out, and the rest is fitted again."""
    weights, kept = np.zeros(x.shape[1]), np.ones(x.shape[1], dtype=bool)
    while kept.any():
        solved = fit(x[:, kept], ridge)
        below = np.zeros_like(kept)
        below[kept] = (solved < 0) & positive[kept]
        if not below.any():
            weights[kept] = solved
            break
        kept &= ~below
    return weights


def cross_fit(
    x: Any,
    folds: np.ndarray,
    ridges: Sequence[float],
    positive: np.ndarray | None = None,
    by: Callable[[Any, float], np.ndarray] = fit,
) -> CrossFit:
    """Fit on all folds but one, ask that one, for every fold; of several ridges the one that foretells labels best.

    x: differences [pairs, features]. folds: int [pairs], whole prompts; with one fold only the fit is in-sample.
    Ridges are compared by the likelihood of the labels under held-out log-odds, whatever their scale: how much of them
    to believe is the posterior's matter. They are tried from the strongest, until a weaker one foretells worse.
    positive: bool [features], whose weights may not be below 0. by: `fit`, or `lasso`, whose strengths are the ridges.
    """
    return strongest_first(
        ridges, lambda ridge: _cross_fit(x, folds, ridge, positive, by), lambda fitted: fitted.margin
    )


def strongest_first(
    penalties: Sequence[float], fitted: Callable[[float], Fitted], margin: Callable[[Fitted], np.ndarray]
) -> Fitted:
    """The fit whose held-out log-odds `margin` foretell labels best; tried from the strongest penalty, until a weaker
    one foretells worse. Penalties so strong that nothing is left foretell alike."""
    strongest, *weaker = sorted(penalties, reverse=True)
    best = fitted(strongest)
    least = least_loss(margin(best))
    for penalty in weaker:
        found = fitted(penalty)
        lost = least_loss(margin(found))
        if lost > least:
            break
        if lost < least:
            best, least = found, lost
    return best


def _cross_fit(
    x: Any, folds: np.ndarray, ridge: float, positive: np.ndarray | None, by: Callable[[Any, float], np.ndarray]
) -> CrossFit:
    numbers = np.unique(folds)
    margin, weights = np.empty(x.shape[0]), np.zeros((int(numbers.max(initial=0)) + 1, x.shape[1]))
    for number in numbers:
        asked = folds == number
        rows = x[~asked] if len(numbers) > 1 else x
        weights[number] = by(rows, ridge) if positive is None else _fit_bounded(rows, ridge, positive)
        margin[asked] = x[asked] @ weights[number]
    return CrossFit(margin, weights, ridge)


def loss(margin: np.ndarray) -> float:
    """Mean of -log P(the label), nats, where `margin` [pairs] are its log-odds."""
    return float(np.mean(np.logaddexp(0, -margin))) if len(margin) else float("nan")


def least_loss(margin: np.ndarray) -> float:
    """`loss` at the scale of the margins that suits them best."""
    return loss(_best_scale(margin) * margin)


def losses(margin: np.ndarray) -> np.ndarray:
    """-log P(the label) of every pair, nats [pairs], at that scale."""
    return np.logaddexp(0, -_best_scale(margin) * margin)


def _best_scale(margin: np.ndarray) -> float:
    return float(min(SCALES, key=lambda scale: loss(scale * margin)))


def clearly_better(margin: np.ndarray, than: np.ndarray, prompt: np.ndarray) -> bool:
    """Whether held-out log-odds [pairs] predict labels better than others, by `LEAST_DEVIATIONS` standard errors over
    prompts: the best of many fits is often better by chance. prompt: [pairs], equal where prompts are.
    """
    gained = losses(than) - losses(margin)
    _, number = np.unique(prompt, return_inverse=True)
    of_prompts = np.bincount(number, gained)
    return bool(of_prompts.sum() > LEAST_DEVIATIONS * np.sqrt((of_prompts**2).sum()))


def unit_columns(x: np.ndarray) -> np.ndarray:
    """Root mean square of each column, 1 where it is 0, [features]: what differences are divided by, so that one ridge
    means the same for all; it does not change when pairs are swapped."""
    size = np.sqrt(np.einsum("nd,nd->d", x, x, dtype=np.float64) / max(1, len(x)))
    return np.where(size > 0, size, 1.0)


def logit(probability: float) -> float:
    """Log-odds, finite at 0 and 1."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(p) - np.log1p(-p))
