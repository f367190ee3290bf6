"""The length-controlled win rate of two models: pure functions of arrays."""

from __future__ import annotations

import numpy as np

RIDGE = 0.01  # on both coefficients, a unit being one prompt: the strength of AlpacaEval's fit without cross-validation
STEPS = 100  # of Newton at most; a fit takes five to ten
PRECISION = 1e-10  # of the gradient, a prompt


def length_controlled(wins: np.ndarray, difference: np.ndarray) -> float:
    """The win rate of A that a judge would give if A's and B's answers were of the same length.

    wins [n]: A's share of the verdicts on each pair of answers, 1, 0.5, 0 or between. difference [n]: characters of A's
    answer less those of B's. NaN where length cannot be told from quality: the differences are all the same, and not 0.

    AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475, section 3) fits, for a model m against the baseline b,
        logit P(m beats b | x) = theta + phi tanh(d / sd(d)) + psi gamma(x)
    with d the difference of lengths and gamma(x) the difficulty of the instruction, and predicts at d = 0. gamma is
    estimated jointly from many models' answers to AlpacaEval's own 805 instructions; from two models it cannot be told,
    so psi is 0 here. What is left is well defined for any prompts: theta and phi by maximum likelihood with a ridge of
    1/100 (it keeps a rate of 0 or 1 finite), and the rate is 1 / (1 + exp(-theta)). Not done either: AlpacaEval chooses
    an L1 penalty by cross-validation and adds the verdicts on two models that were made verbose and terse on purpose.
    Swapping A and B gives 1 less the rate.
    """
    scale = difference.std(ddof=1) if len(difference) > 1 else 0.0
    if scale == 0 and difference.any():
        return float("nan")
    length = np.tanh(difference / scale) if scale else np.zeros(len(difference))
    theta, _ = _fit(np.stack([np.ones(len(length)), length], axis=1), wins)
    return float(_logistic(theta))


def _fit(features: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The coefficients [2] of the likeliest logistic curve through `shares` [n] in [0, 1], features [n, 2].

    Newton's method; a step that would make the fit worse is halved.
    """
    coefficients = np.zeros(features.shape[1])
    for _ in range(STEPS):
        chance = _logistic(features @ coefficients)
        gradient = features.T @ (shares - chance) - RIDGE * coefficients
        if np.abs(gradient).max() < PRECISION * len(shares):
            break
        curvature = (features.T * (chance * (1 - chance))) @ features + RIDGE * np.eye(len(coefficients))
        step = np.linalg.solve(curvature, gradient)
        before = _fitness(features, shares, coefficients)
        while _fitness(features, shares, coefficients + step) < before and np.abs(step).max() > PRECISION:
            step /= 2
        coefficients = coefficients + step
    return coefficients


def _fitness(features: np.ndarray, shares: np.ndarray, coefficients: np.ndarray) -> float:
    """Log-likelihood less the ridge; log(1 + exp(x)) is the cost of a pair lost at log-odds x."""
    x = features @ coefficients
    return float(shares @ x - np.logaddexp(0, x).sum() - RIDGE / 2 * coefficients @ coefficients)


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
