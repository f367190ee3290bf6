"""The share of wrong labels, and what a sum of evidence says of one, on simulated margins whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from rmo_curate.evidence.label_noise import BUNDLES, FORETOLD, LabelNoise, Resampled, fit_noise, foretold
from rmo_curate.score.logistic import sigmoid


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_the_noise_rate_is_found_whatever_the_margins_tails(rate: float, tails: str):
    rng = np.random.default_rng(4)
    n = 60_000
    size = np.abs(rng.normal(1.5, 1, n) if tails == "normal" else rng.standard_t(2, n))
    right = rng.random(n) < 1 / (1 + np.exp(-2 * size))  # log-odds in proportion to the margin
    wrong = rng.random(n) < rate
    # held-out log-odds of the labels as they are: flips make them 1 - 2 eps times as large
    margin = 2 * (1 - 2 * rate) * np.where(right != wrong, size, -size)
    found = fit_noise(margin, np.arange(len(margin)))
    assert found.rate == pytest.approx(rate, abs=0.02)
    posterior = sigmoid(-found.log_odds(margin))
    for low in (0.0, 0.1, 0.3, 0.6):
        rows = (posterior >= low) & (posterior < low + 0.2)
        if rows.sum() > 500:
            assert wrong[rows].mean() == pytest.approx(posterior[rows].mean(), abs=0.08)


def test_the_posterior_of_a_flip_by_hand():
    # odds of a flip at x: (0.2 / 0.8) exp(-2 x)
    expected = [0.2, 1 / (1 + 4 * np.exp(1)), 1 / (1 + 4 * np.exp(-1))]
    np.testing.assert_allclose(sigmoid(-LabelNoise(0.2, 2.0).log_odds(np.array([0, 0.5, -0.5]))), expected)
    assert LabelNoise(0.25, 2.0).prior == pytest.approx(np.log(3))
    assert np.isfinite(LabelNoise(0.0, 2.0).log_odds(np.array([-9.0]))).all()  # a rate of 0 is a strong prior, no more


def mirrored(n: int, rate: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(margins of right labels N(1, 1), of wrong ones mirrored; which are wrong)"""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < rate
    return np.where(wrong, -1, 1) * rng.normal(1, 1, n), wrong


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_normal_margins_give_their_own_log_odds(rate: float):
    # N(1, 1) over N(-1, 1): log-odds 2 x
    found = fit_noise(margin := mirrored(60_000, rate)[0], np.arange(len(margin)))
    assert found.rate == pytest.approx(rate, abs=0.02) and found.slope == pytest.approx(2, abs=0.2)


def test_how_far_labels_are_foretold_by_hand():
    margin = np.log([3.0, 3.0, 1 / 3, 3.0])  # tanh(margin / 2): 1/2, 1/2, -1/2, 1/2, of mean 1/4
    off = np.array([0.25, 0.25, -0.75, 0.25])
    assert foretold(margin, np.arange(4)) == pytest.approx(1 / np.sqrt((off**2).sum()))
    two = np.array([off[:2].sum(), off[2:].sum()])
    assert foretold(margin, np.array([0, 0, 1, 1])) == pytest.approx(1 / np.sqrt((two**2).sum()))
    assert foretold(margin, np.zeros(4)) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_margins_that_tell_nothing_leave_every_label_undoubted(seed: int):
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 1, 300)
    noise = fit_noise(margin, np.arange(300))
    assert noise.tells == (foretold(margin, np.arange(300)) >= FORETOLD)
    if not noise.tells:  # the order stays
        assert (noise.log_odds(margin) > 0).all() and (np.argsort(noise.log_odds(margin)) == np.argsort(margin)).all()


def test_pairs_without_a_margin_do_not_count():
    x, _ = mirrored(800, 0.2)
    with_gaps = np.append(x, [np.nan, np.nan])
    assert fit_noise(with_gaps, np.arange(len(with_gaps))) == fit_noise(x, np.arange(len(x)))
    assert np.isnan(fit_noise(x, np.arange(len(x))).log_odds(with_gaps)[-2:]).all()
    resampled = Resampled(with_gaps, np.arange(802), draws=5)
    assert resampled.known.sum() == len(resampled.group) == 800


def test_whole_prompts_are_drawn_and_many_of_them_in_bundles():
    x, _ = mirrored(6000, 0.2)
    few = Resampled(x, np.arange(6000) // 6, draws=5)
    assert few.size == 1000 and (few.times.sum(1) == 1000).all()
    np.testing.assert_array_equal(few.group[::6], few.group[5::6])
    many = Resampled(x, np.arange(6000), draws=5)
    assert many.size == BUNDLES and np.bincount(many.group).tolist() == [3] * BUNDLES


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2])
def test_the_interval_has_the_rate_and_repeated_prompts_widen_it(rate: float):
    x, wrong = mirrored(3000, rate)
    found = Resampled(x, np.arange(3000), draws=60).rate
    assert found.low - 0.005 <= wrong.mean() <= found.high
    repeated = Resampled(np.repeat(x[:300], 10), np.arange(3000) // 10, draws=60).rate
    assert repeated.high - repeated.low > 1.3 * (found.high - found.low)


def test_the_same_seed_draws_the_same():
    x, _ = mirrored(500, 0.2)
    one, other = (Resampled(x, np.arange(500), draws=20, seed=3) for _ in range(2))
    assert one.rate == other.rate and (one.rates == other.rates).all()
