"""Kinds of prompt with preferences of their own: found where they are, and nowhere else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from rmo_curate.score import categories, logistic
from rmo_curate.score.categories import LEAST_PAIRS, Categories, fit_categories
from rmo_curate.score.probe import RIDGES, cross_fitted
from tests.rmo_curate.score.test_probe_fit import folds_of, planted

KINDS = np.where(np.arange(1200) % 2, "poem", "proof")


def opposed() -> np.ndarray:
    """States of a reward that one kind of prompt wants large and the other wants small; no label is wrong."""
    return planted(flipped=0.0)[0] * np.where(KINDS == "poem", -1, 1)[:, None].astype(np.float32)


def test_kinds_that_want_the_opposite_are_both_understood():
    states, folds = opposed(), folds_of(1200, 5)
    blind, found = cross_fitted(states.copy(), folds), cross_fitted(states.copy(), folds, Categories.among(KINDS))
    assert (blind.margin > 0).mean() < 0.6 and (found.margin > 0).mean() > 0.85
    assert blind.category_ridge is None and found.category_ridge is not None and found.categories == 2


def test_kinds_that_say_nothing_change_nothing():
    states, folds = planted()[0], folds_of(1200, 5)
    drawn = np.random.default_rng(1).choice(["a", "b", "c"], 1200)
    blind, found = cross_fitted(states.copy(), folds), cross_fitted(states.copy(), folds, Categories.among(drawn))
    assert found.category_ridge is None and found.categories == 3
    np.testing.assert_array_equal(found.margin, blind.margin)


def test_no_kind_hears_the_labels_of_the_fold_that_it_judges(monkeypatch):
    losses = itertools.count(0, -1)  # all labels choose whether kinds are used: here they always are
    monkeypatch.setattr(logistic, "least_loss", lambda margin: next(losses))
    states, folds = opposed()[:300], folds_of(300, 3)
    own = Categories.among(KINDS[:300])
    swapped = states * np.where(folds == 1, -1, 1)[:, None].astype(np.float32)

    def margin(x: np.ndarray) -> np.ndarray:
        return fit_categories(x, folds, own, logistic.cross_fit(x, folds, (3.0,)), (3.0,)).margin

    size = logistic.unit_columns(states).astype(np.float32)
    one, other = margin(states / size), margin(swapped / size)
    np.testing.assert_allclose(other[folds == 1], -one[folds == 1], atol=1e-9)


def test_kinds_with_few_pairs_and_pairs_without_a_kind_are_judged_by_all(monkeypatch):
    values = np.array(["few"] * (LEAST_PAIRS - 1) + [""] * 100 + ["many"] * LEAST_PAIRS + ["most"] * 90)
    found = Categories.among(values)
    assert found.names == ("many", "most") and set(found.of[values == "few"]) == set(found.of[values == ""]) == {0}
    assert set(found.of[values == "many"]) == {1} and set(found.of[values == "most"]) == {2}
    assert Categories.among(np.full(200, "the only one")).names == ()
    monkeypatch.setattr(categories, "MOST_CATEGORIES", 1)
    assert Categories.among(values).names == ("most",)


@pytest.mark.parametrize("features", [5, 100])  # Newton's method, L-BFGS
def test_a_fit_beside_known_log_odds_is_at_the_optimum(features: int):
    rng = np.random.default_rng(0)
    x, known, ridge = rng.normal(size=(300, features)), rng.normal(size=300), 3.0
    w = logistic.fit(x, ridge, known)
    slope = x.T @ logistic.sigmoid(-(known + x @ w)) - ridge * w
    np.testing.assert_allclose(slope, 0, atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_features_are_fitted_as_the_library_fits_them(dtype):
    x = planted(400, 100)[0]
    x = (x / logistic.unit_columns(x)).astype(dtype)
    both, labels = np.concatenate([x, -x]), np.repeat([1, -1], len(x))
    library = LogisticRegression(C=0.5 / RIDGES[0], fit_intercept=False, tol=1e-8, max_iter=5000).fit(both, labels)
    np.testing.assert_allclose(logistic.fit(x, RIDGES[0]), library.coef_[0], atol=2e-3)
