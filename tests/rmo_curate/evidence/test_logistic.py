"""The one logistic regression: its optimum, the law of swapped pairs, and what held-out log-odds have seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from rmo_curate.score.logistic import (
    clearly_better,
    cross_fit,
    fit,
    lasso,
    least_loss,
    logit,
    loss,
    sigmoid,
    unit_columns,
)


def drawn(n: int, width: int, seed: int = 0, flipped: float = 0.2) -> np.ndarray:
    """Differences [n, width] of pairs whose better answer has the larger sum, some labelled the other way round."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    better = np.sign(x.sum(1) + rng.logistic(size=n))
    return x * np.where(rng.random(n) < flipped, -better, better)[:, None]


def test_the_optimum_of_one_feature_by_hand():
    # Three of 4 pairs are labelled as x = 1 and one the other way: loss 3 log(1 + e^-w) + log(1 + e^w) + r w^2 / 2,
    # whose slope is -3 s(-w) + s(w) + r w. At w = log 2: s(w) = 2/3, s(-w) = 1/3, so r log 2 = 1 - 2/3.
    x = np.array([[1.0], [1.0], [-1.0], [1.0]])
    assert fit(x, (1 / 3) / np.log(2))[0] == pytest.approx(np.log(2), rel=1e-5)


@pytest.mark.parametrize("width", [5, 70])  # below and above the width to which the Hessian is made
def test_weights_are_the_minimum_of_the_ridged_loss(width: int):
    x = drawn(300, width)

    def objective(w):
        return np.logaddexp(0, -x @ w).sum() + 3 / 2 * w @ w

    np.testing.assert_allclose(fit(x, 3.0), minimize(objective, np.zeros(width), tol=1e-12).x, atol=2e-4)


def test_dense_and_sparse_rows_and_any_order_give_the_same():
    x = drawn(200, 8) * (np.random.default_rng(1).random((200, 8)) < 0.3)
    expected = fit(x, 2.0)
    np.testing.assert_allclose(fit(csr_matrix(x), 2.0), expected, atol=1e-4)
    np.testing.assert_allclose(fit(x[::-1], 2.0), expected, atol=1e-5)


@pytest.mark.parametrize("form", [np.asarray, csr_matrix])
def test_what_is_given_is_not_changed(form):
    x = drawn(50, 4)
    given = form(x.copy())
    fit(given, 1.0)
    cross_fit(given, np.arange(50) % 2, (1.0, 10.0))
    np.testing.assert_array_equal(given.toarray() if form is csr_matrix else given, x)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(0, 999), st.floats(0.1, 30))
def test_swapping_every_pair_negates_the_weights_and_keeps_the_labels_log_odds(n: int, seed: int, ridge: float):
    x = drawn(n, 3, seed)
    weights = fit(x, ridge)
    np.testing.assert_allclose(fit(-x, ridge), -weights, atol=1e-4)
    np.testing.assert_allclose(-x @ fit(-x, ridge), x @ weights, atol=1e-3)


def test_one_row_teaches_its_own_direction():
    x = np.array([[2.0, -1.0]])
    weights = fit(x, 1.0)
    # w = a x with a = s(-a |x|^2): the slope of log(1 + exp(-w.x)) + |w|^2 / 2
    a = weights[0] / 2
    assert weights[1] == pytest.approx(-a) and a == pytest.approx(float(sigmoid(np.array(-5 * a))), rel=1e-4)
    np.testing.assert_allclose(fit(csr_matrix(x), 1.0), weights, atol=1e-4)


# ---------------------------------------------------------------------------------------------------- held out


def test_no_pair_hears_a_label_of_its_own_fold():
    x, folds = drawn(300, 6), np.arange(300) % 3
    found = cross_fit(x, folds, (3.0,))
    one = x.copy()
    one[7] *= -1
    assert cross_fit(one, folds, (3.0,)).margin[7] == -found.margin[7]
    mirrored = np.random.default_rng(0).random(300) < 0.5
    sign = np.where(mirrored & (folds == 1), -1.0, 1.0)
    changed = cross_fit(x * sign[:, None], folds, (3.0,))
    np.testing.assert_array_equal((sign * changed.margin)[folds == 1], found.margin[folds == 1])
    np.testing.assert_array_equal(changed.weights[1], found.weights[1])
    assert np.abs(changed.weights[0] - found.weights[0]).max() > 0.01  # the others do hear them


@pytest.mark.parametrize("positive", [None, np.array([True, False, True, False])])
def test_margins_are_rows_times_the_weights_of_their_fold(positive):
    x, folds = drawn(90, 4), np.arange(90) % 4
    found = cross_fit(x, folds, (1.0, 30.0), positive)
    np.testing.assert_allclose(found.margin, (x * found.weights[folds]).sum(1), atol=1e-12)
    expected = fit(x[folds != 2], found.ridge)
    if positive is None:
        np.testing.assert_allclose(found.weights[2], expected, atol=1e-8)


def test_with_one_fold_the_fit_is_in_sample():
    x = drawn(60, 3)
    np.testing.assert_allclose(cross_fit(x, np.zeros(60, dtype=int), (2.0,)).margin, x @ fit(x, 2.0), atol=1e-9)


def test_the_ridge_is_the_one_that_foretells_held_out_labels_best():
    ridges = (0.1, 1.0, 10.0, 100.0, 1000.0)
    for x in (drawn(300, 20), drawn(300, 20, flipped=0.45), drawn(2000, 2, flipped=0.0)):
        folds = np.arange(len(x)) % 5
        losses = [least_loss(cross_fit(x, folds, (r,)).margin) for r in ridges]
        k = ridges.index(cross_fit(x, folds, ridges).ridge)
        assert losses[k] == min(losses[k:]) and losses[k] <= losses[max(0, k - 1)]  # the next weaker one is no better
        assert cross_fit(x, folds, ridges[::-1]).ridge == ridges[k]


def test_bounded_weights_are_at_0_or_above_and_the_rest_is_fitted_without_those_at_0():
    x = drawn(400, 4)
    x[:, 2] *= -1  # a column that speaks backwards
    positive = np.array([True, True, True, False])
    found = cross_fit(x, np.arange(400) % 3, (1.0,), positive)
    assert (found.weights[:, 2] == 0).all() and (found.weights[:, :2] > 0).all()
    rest = fit(x[np.arange(400) % 3 != 0][:, [0, 1, 3]], 1.0)
    np.testing.assert_allclose(found.weights[0][[0, 1, 3]], rest, atol=1e-8)
    free = cross_fit(x, np.arange(400) % 3, (1.0,), np.array([True, True, False, True]))
    assert (free.weights[:, 2] < 0).all()
    assert not cross_fit(-np.abs(x), np.arange(400) % 3, (1.0,), np.ones(4, dtype=bool)).margin.any()


# ---------------------------------------------------------------------------------------------------- small ones


def test_losses_by_hand():
    assert loss(np.array([0.0, 0.0])) == pytest.approx(np.log(2))
    assert loss(np.array([np.log(3), -np.log(3)])) == pytest.approx((np.log(4 / 3) + np.log(4)) / 2)
    assert np.isnan(loss(np.zeros(0)))
    x = np.array([0.1, 0.2, 0.05])  # all right, and far too unsure
    assert least_loss(x) == pytest.approx(loss(8 * x))


def test_sigmoid_and_logit_are_inverse_and_finite_at_the_ends():
    np.testing.assert_allclose(sigmoid(np.array([0.0, np.log(3), -np.log(3)])), [0.5, 0.75, 0.25])
    assert sigmoid(np.array([-1e4, 1e4])).tolist() == [0, 1] and np.isnan(sigmoid(np.array([np.nan]))[0])
    assert logit(0.75) == pytest.approx(np.log(3))
    assert np.isfinite([logit(0.0), logit(1.0)]).all() and logit(0.0) == pytest.approx(-logit(1.0))


def test_columns_are_brought_to_unit_size_whatever_the_labels():
    x = np.array([[3.0, 0.0], [-4.0, 0.0]])
    np.testing.assert_allclose(unit_columns(x), [np.sqrt(12.5), 1])
    np.testing.assert_array_equal(unit_columns(x * [[1], [-1]]), unit_columns(x))
    assert unit_columns(np.zeros((0, 2))).tolist() == [1, 1]


def sparse_taste(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows [n, d] of correlated columns, whose first two decide."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) @ (np.eye(d) + rng.normal(size=(d, d)) * 0.3)
    return x * np.sign(x[:, :1] - x[:, 1:2] + rng.logistic(size=(n, 1)))


@pytest.mark.parametrize(("n", "d"), [(60, 5), (500, 37), (300, 150)])
@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_the_lasso_is_scikit_learns(n, d, strength):
    from sklearn.linear_model import LogisticRegression

    x = sparse_taste(n, d)
    penalty = strength / 2 * np.sqrt((x**2).sum() / d)
    sign = np.where(np.arange(n) % 2, 1, -1)
    asked = LogisticRegression(
        l1_ratio=1, C=1 / penalty, solver="liblinear", fit_intercept=False, tol=1e-9, max_iter=10_000
    )
    expected = asked.fit(x * sign[:, None], sign).coef_[0]
    np.testing.assert_allclose(lasso(x, strength), expected, atol=1e-3)


@given(st.integers(0, 2**16), st.sampled_from([0.3, 1.0, 3.0]))
@settings(max_examples=25, deadline=None)
def test_the_lasso_is_at_its_optimum(seed, strength):
    """No weight wants to move: the slope of a weight that is not 0 equals the penalty, of others it is no larger."""
    rng = np.random.default_rng(seed)
    x, known = sparse_taste(120, 9, seed), rng.normal(size=120)
    w = lasso(x, strength, known)
    penalty = strength / 2 * np.sqrt((x**2).sum() / 9)
    slope = x.T @ sigmoid(-(known + x @ w))
    np.testing.assert_allclose(slope[w != 0], penalty * np.sign(w[w != 0]), rtol=2e-2)
    assert (np.abs(slope[w == 0]) <= penalty * (1 + 1e-6)).all()
    np.testing.assert_allclose(lasso(x, strength, known, start=w + 0.1), w, atol=2e-3)


def test_a_lasso_strong_enough_has_no_weight_and_empty_columns_none():
    x = sparse_taste(200, 6)
    assert not lasso(x, 1000.0).any()
    x[:, 3] = 0
    w = lasso(x, 0.5)
    assert w[3] == 0 and w[0] > 0 > w[1]


def test_a_fit_is_clearly_better_only_beyond_chance_and_over_prompts():
    rng = np.random.default_rng(0)
    right = rng.normal(1.0, 1.0, 400)
    none = np.zeros(400)
    assert clearly_better(right, none, np.arange(400))
    assert not clearly_better(none, none, np.arange(400))
    assert not clearly_better(rng.normal(0.02, 1.0, 400), none, np.arange(400))
    assert not clearly_better(right, none, np.zeros(400, dtype=int))  # all of one prompt
