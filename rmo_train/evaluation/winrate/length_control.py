"""The length-controlled win rate of two models: pure functions of arrays."""

from __future__ import annotations

import numpy as np

from rmo_train.evaluation.logistic import newton, sigmoid

RIDGE = 0.01  # on both coefficients, a unit being one prompt: the strength of AlpacaEval's fit without cross-validation


def length_controlled(wins: np.ndarray, difference: np.ndarray) -> float:
    """The win rate of A if A's and B's answers had the same length.

    wins [n]: A's share of the verdicts on each pair of answers, 1, 0.5, 0 or between. difference [n]: characters of A's
    answer minus those of B's. NaN if length cannot be separated from quality: all differences are equal, and not 0.

    AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475, section 3) fits, for a model m against the baseline b,
        logit P(m beats b | x) = theta + phi tanh(d / sd(d)) + psi gamma(x)
    with d the difference of lengths and gamma(x) the difficulty of the instruction, and predicts at d = 0. gamma is
    estimated jointly from many models' answers to AlpacaEval's own 805 instructions; two models cannot identify it,
    so psi is 0 here. The rest is well defined for any prompts: theta and phi by maximum likelihood with a ridge of
    1/100 (it keeps a rate of 0 or 1 finite), and the rate is 1 / (1 + exp(-theta)). Not done either: AlpacaEval chooses
    an L1 penalty by cross-validation and adds the verdicts on two models that were made verbose and terse on purpose.
    Swapping A and B gives 1 minus the rate.
    """
    scale = difference.std(ddof=1) if len(difference) > 1 else 0.0
    if scale == 0 and difference.any():
        return float("nan")
    length = np.tanh(difference / scale) if scale else np.zeros(len(difference))
    theta, _ = newton(np.stack([np.ones(len(length)), length], axis=1), RIDGE, lost=1 - wins)
    return float(sigmoid(theta))
