"""The probe's fit: what is fitted, on which pairs, and what is kept of wide states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rmo_curate.score import probe
from rmo_curate.score.buckets import in_buckets
from rmo_curate.score.crew import Part, compute
from rmo_curate.score.engines.base import Work
from rmo_curate.score.logistic import cross_fit
from rmo_curate.score.probe import RIDGES, cross_fitted
from rmo_curate.score.states import widest
from tests.rmo_curate.score.test_scoring import pair_data


def planted(n: int = 1200, width: int = 40, flipped: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(differences of states [n, width], which labels are flipped): the better answer has the larger w . state."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=width)
    x = rng.normal(size=(n, width)) * rng.uniform(0.1, 50, width)  # dimensions of very different size
    better = np.sign(x / x.std(0) @ w + rng.normal(size=n))
    wrong = rng.random(n) < flipped
    return (x * np.where(wrong, -better, better)[:, None]).astype(np.float32), wrong


def folds_of(n: int, folds: int) -> np.ndarray:
    return (np.arange(n) % folds).astype(np.int16)


def fitted(x: np.ndarray, folds: int):
    """`cross_fitted` on a copy: it brings differences to unit size in place."""
    return cross_fitted(x.copy(), folds_of(len(x), folds))


def test_the_probe_is_a_logistic_regression_on_states_of_unit_size_over_the_root_of_their_number():
    x, _ = planted(200, 6)
    unit = np.sqrt((x.astype(np.float64) ** 2).mean(0)) * np.sqrt(6)
    expected = cross_fit(x / unit, folds_of(200, 4), RIDGES)
    found = fitted(x, 4)
    assert found.ridge == expected.ridge
    np.testing.assert_allclose(found.margin, expected.margin, rtol=1e-4, atol=1e-4)


def test_a_planted_reward_finds_flipped_labels():
    x, wrong = planted()
    for folds in (10, 1):  # in-sample, too: few dimensions memorise little
        assert roc_auc_score(wrong, -fitted(x, folds).margin) > 0.9


def test_the_more_labels_are_wrong_the_stronger_the_ridge():
    ridges = [fitted(planted(flipped=rate)[0], 5).ridge for rate in (0.0, 0.2, 0.45)]
    assert ridges == sorted(ridges) and ridges[0] < ridges[-1]


def test_no_probe_hears_the_labels_of_the_fold_that_it_judges(monkeypatch):
    monkeypatch.setattr(probe, "RIDGES", (3.0,))  # of several ridges, all labels choose one
    x, _ = planted(300)
    folds = folds_of(300, 3)
    found = fitted(x, 3)
    swapped = np.where(folds == 1, -1, 1)[:, None].astype(np.float32)
    changed = fitted(x * swapped, 3)
    np.testing.assert_array_equal(changed.margin[folds == 1], -found.margin[folds == 1])


def test_states_of_another_size_change_nothing():
    x, _ = planted(300)
    powers = 2.0 ** np.random.default_rng(1).integers(-6, 6, x.shape[1])  # exact in float32
    one, other = (fitted(s.astype(np.float32), 3).margin for s in (x, x * powers))
    np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-4)


@given(st.integers(1, 40), st.integers(1, 60))
def test_buckets_add_up_and_never_more_than_asked_for(numbers: int, width: int):
    x = np.random.default_rng(numbers).normal(size=(3, numbers)).astype(np.float32)
    found = in_buckets(x, width)
    assert found.shape[1] == (numbers if numbers <= width else width)
    np.testing.assert_array_equal(in_buckets(-x, width), -found)  # a swapped pair, exactly
    if numbers > width == 1:  # one bucket: a signed sum of everything
        assert np.abs(found).max() <= np.abs(x).sum(1).max() + 1e-5


def test_what_is_kept_of_a_part_is_made_where_its_states_are_computed():
    states = np.random.default_rng(0).normal(size=(2, 24)).astype(np.float32)
    states[0, 0] = 1e9  # beyond half precision

    class Engine:
        def work(self, data, rows):
            return Work()

        def score_with_states(self, data, rows, advance):
            return np.zeros((2, 2)), states

        state_differences = score = noise_sd = layout = score_with_states

    data = pair_data([([1], [2], [3]), ([1], [4], [5])])
    for width in (8, 100):
        answer = compute(Engine(), Part("part-00000.parquet", data, np.arange(2), width=width))
        assert answer.differences.dtype == np.float16 and np.isfinite(answer.differences).all()
        np.testing.assert_array_equal(answer.differences[1], in_buckets(states, width)[1].astype(np.float16))
    assert answer.differences[0, 0] == np.finfo(np.float16).max


def test_many_pairs_keep_fewer_numbers_each():
    assert [widest(n) for n in (1, 100_000, 1_000_000, 100_000_000)] == [4096, 4096, 500, 256]


def test_inner_products_survive_the_buckets():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 20_000)).astype(np.float32)
    x[25:] = x[:25] + 0.5 * x[25:]  # couples that are alike
    exact, kept = x @ x.T / 20_000, (y := in_buckets(x, 4096)) @ y.T / 20_000
    assert np.abs(kept - exact).max() < 0.1 and np.diag(exact)[:25] == pytest.approx(1, abs=0.1)
