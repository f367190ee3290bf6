"""The mixture of right and wrong labels: recovered from simulated margins, mirrored under a swap."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.mixture import Mixture, fit_mixture


def simulated(n: int, rate: float, mean: float, sd: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(margins, which labels are wrong)"""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < rate
    return np.where(wrong, -1, 1) * rng.normal(mean, sd, n), wrong


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("sd", [1.0, 30.0])
def test_em_recovers_the_rate_the_mean_and_the_width(rate: float, sd: float):
    found = fit_mixture(simulated(40_000, rate, 1.5 * sd, sd)[0])
    assert 1 - found.right == pytest.approx(rate, abs=0.015)
    assert (found.mean / sd, found.sd / sd) == (pytest.approx(1.5, abs=0.03), pytest.approx(1, abs=0.03))


def test_the_posterior_by_hand_and_calibrated():
    # odds of right at x: 3 exp(2 * 1 * x / 4)
    assert Mixture(0.75, 1.0, 2.0).wrong(np.array([0.0, 2.0])).tolist() == pytest.approx([1 / 4, 1 / (1 + 3 * np.e)])
    x, wrong = simulated(40_000, 0.2, 1.0)
    posterior = fit_mixture(x).wrong(x)
    for low in (0.1, 0.3, 0.5, 0.7):
        rows = (posterior >= low) & (posterior < low + 0.2)
        assert wrong[rows].mean() == pytest.approx(posterior[rows].mean(), abs=0.03)


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 400), st.floats(0.1, 4), st.integers(0, 99))
def test_less_margin_is_never_less_suspect(n: int, mean: float, seed: int):
    x = np.sort(simulated(n, 0.2, mean, seed=seed)[0])
    wrong = fit_mixture(x).wrong(x)
    assert (np.diff(wrong) <= 1e-12).all() and (wrong >= 0).all() and (wrong <= 1).all()


def test_pairs_without_scores_have_no_posterior_and_do_not_count():
    x = simulated(500, 0.2, 2.0)[0]
    with_gaps = np.append(x, [np.nan, np.nan])
    assert fit_mixture(with_gaps) == fit_mixture(x)
    assert np.isnan(fit_mixture(x).wrong(with_gaps)[-2:]).all()
