"""The length-controlled rate: worked values, its laws, and what it makes of a judge that sees length alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_train.evaluation.winrate.length_control import RIDGE, length_controlled


def logistic(x):
    return 1 / (1 + np.exp(-x))


def by_hand(wins: np.ndarray, difference: np.ndarray) -> float:
    """The same maximum by plain gradient steps: log-likelihood less RIDGE (theta^2 + phi^2) / 2."""
    x = np.tanh(difference / difference.std(ddof=1))
    theta = phi = 0.0
    for _ in range(20_000):
        error = wins - logistic(theta + phi * x)
        theta += 0.02 * (error.sum() - RIDGE * theta)
        phi += 0.02 * ((error * x).sum() - RIDGE * phi)
    return logistic(theta)


def test_values_by_hand():
    wins = np.array([1, 1, 0.5, 0, 1, 0, 0.5, 1.0])
    difference = np.array([120, 40, -30, -200, 10, 15, -5, 300.0])
    assert length_controlled(wins, difference) == pytest.approx(by_hand(wins, difference), abs=1e-6)
    # Without a difference the rate is the plain one, pulled to one half by the ridge: n (0.75 - p) = logit(p) / 100.
    wins = np.array([1, 1, 0.5, 0.5] * 25)
    assert length_controlled(wins, np.zeros(100)) == pytest.approx(0.75, abs=2e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 0.75, 1]), st.integers(-3000, 3000)), min_size=2, max_size=40))
def test_swapping_the_models_gives_one_less_the_rate(pairs: list[tuple[float, int]]):
    wins, difference = np.array(pairs, dtype=float).T
    rate = length_controlled(wins, difference)
    assert length_controlled(1 - wins, -difference) == pytest.approx(1 - rate, abs=1e-6, nan_ok=True)


def test_equal_answers_are_at_one_half():
    assert length_controlled(np.full(20, 0.5), np.zeros(20)) == pytest.approx(0.5, abs=1e-9)


def test_a_judge_that_sees_length_alone_is_seen_through():
    """A's answers are longer in 84 of 100 prompts, and a longer answer wins, always or mostly.

    A judge without any doubt is a step, which no logistic curve fits well: its rate is right on average (20 draws).
    """
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(20):
        difference = rng.normal(300, 300, 400).round()
        always = (difference > 0).astype(float)
        assert always.mean() > 0.75
        rates.append(length_controlled(always, difference))
    assert np.mean(rates) == pytest.approx(0.5, abs=0.07)
    difference = rng.normal(300, 300, 2000).round()
    mostly = (rng.random(2000) < logistic(2 * np.tanh(difference / difference.std()))).astype(float)
    assert mostly.mean() > 0.7
    assert length_controlled(mostly, difference) == pytest.approx(0.5, abs=0.04)


def test_a_better_model_stays_better_at_equal_length():
    """With quality 1 and length 2 in the log-odds, what is left at equal length is logistic(1) = 0.731."""
    rng = np.random.default_rng(1)
    difference = rng.normal(300, 300, 4000)
    chance = logistic(1 + 2 * np.tanh(difference / difference.std()))
    wins = (rng.random(4000) < chance).astype(float)
    assert wins.mean() > 0.8
    assert length_controlled(wins, difference) == pytest.approx(0.731, abs=0.03)


def test_the_fit_is_that_of_a_library():
    """scikit-learn's, each pair counted once as won and once as lost, by its share of each; separated data, too."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    for n in (3, 20, 300):
        difference = rng.normal(100, 400, n)
        for wins in (rng.choice([0, 0.25, 0.5, 1], n), (difference > 0) * 1.0, (difference > 150) * 1.0):
            features = np.stack([np.ones(n), np.tanh(difference / difference.std(ddof=1))], axis=1)
            fit = LogisticRegression(C=1 / RIDGE, fit_intercept=False, solver="newton-cholesky", tol=1e-10)
            fit.fit(np.tile(features, (2, 1)), np.repeat([1, 0], n), sample_weight=np.concatenate([wins, 1 - wins]))
            assert length_controlled(wins, difference) == pytest.approx(logistic(fit.coef_[0, 0]), abs=1e-6)


def test_where_length_cannot_be_told_from_quality_there_is_no_rate():
    assert np.isnan(length_controlled(np.array([1.0, 0.0, 1.0]), np.array([5.0, 5.0, 5.0])))
    assert np.isnan(length_controlled(np.array([1.0]), np.array([5.0])))


def test_a_rate_of_one_stays_finite():
    assert 0.97 < length_controlled(np.ones(10), np.arange(10.0) - 4.5) < 1
