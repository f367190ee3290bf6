"""Canaries and the noise rate on simulated held-out scores whose truth is known."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from rmo_curate.noise_rate import LabelNoise, Resampled, fit_noise

from rmo_curate import canaries
from rmo_curate.canaries import budget_of_precision, find, self_check, solved
from rmo_curate.margins import reward
from rmo_curate.rules import RULES
from rmo_curate.runs import Scores
from rmo_train.errors import UserError

PROMPTS, PER_PROMPT = 3000, 3


def simulated(rate: float, seed: int = 0, separation: float = 1.6) -> tuple[Scores, np.ndarray]:
    """Held-out scores of pairs whose D_T - D_0 is normal, and which labels are wrong."""
    rng = np.random.default_rng(seed)
    n = PROMPTS * PER_PROMPT
    wrong = rng.random(n) < rate
    base = rng.normal(0, 5, n)
    end = base + 20 * np.where(wrong, -1, 1) * rng.normal(separation, 1, n)
    chosen = np.stack([base, end], axis=1)
    tokens = np.full(n, 10)
    ids = pa.array([f"p{i}" for i in range(n)])
    scores = Scores(
        ("base", "oof-9"), chosen, np.zeros_like(chosen), tokens, tokens, np.full(n, True, dtype=object), ids=ids
    )
    return replace(
        scores, groups=np.arange(n) // PER_PROMPT, fold=(np.arange(n) // PER_PROMPT % 2).astype(np.int16)
    ), wrong


def test_the_equations_by_hand():
    # eps 0.2, R 0.9, F 0.1: h1 = 0.8 * 0.9 + 0.2 * 0.1 = 0.74, h0 = 0.2 * 0.9 + 0.8 * 0.1 = 0.26
    assert np.allclose(solved(np.array(0.26), np.array(0.74), 0.2), (0.9, 0.1, 0.18 / 0.26))
    assert np.isnan(solved(np.array(0.0), np.array(0.1), 0.2)[2])


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("tails", ["normal", "heavy"])
def test_the_noise_rate_is_found_whatever_the_margins_tails(rate: float, tails: str):
    rng = np.random.default_rng(4)
    n = 60_000
    size = np.abs(rng.normal(1.5, 1, n) if tails == "normal" else rng.standard_t(2, n))
    right = rng.random(n) < 1 / (1 + np.exp(-2 * size))  # log-odds in proportion to the margin
    wrong = rng.random(n) < rate
    margin = np.where(right != wrong, size, -size)
    found = fit_noise(margin)
    assert found.rate == pytest.approx(rate, abs=0.02)
    posterior = found.wrong(margin)
    for low in (0.0, 0.1, 0.3, 0.6):
        rows = (posterior >= low) & (posterior < low + 0.2)
        if rows.sum() > 500:
            assert wrong[rows].mean() == pytest.approx(posterior[rows].mean(), abs=0.08)


def test_the_posterior_of_a_flip_by_hand():
    # odds of a flip at x: (0.2 / 0.8) exp(-2 x)
    expected = [0.2, 1 / (1 + 4 * np.exp(1)), 1 / (1 + 4 * np.exp(-1))]
    np.testing.assert_allclose(LabelNoise(0.2, 2.0).wrong(np.array([0, 0.5, -0.5])), expected)
    assert LabelNoise(0.0, 2.0).wrong(np.array([-9.0])) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3])
def test_rate_recall_and_precision_are_those_of_the_truth(rate: float):
    scores, wrong = simulated(rate)
    resampled = Resampled(scores, draws=60)
    assert resampled.rate.low <= wrong.mean() <= resampled.rate.high
    assert resampled.rate.high - resampled.rate.low < 0.05
    rule = RULES["irm"]
    s, of_swapped = rule.suspicion(scores), rule.suspicion_of_swapped(scores)
    threshold = float(np.quantile(s, 0.9))
    found = find(s >= threshold, of_swapped >= threshold, resampled)
    flagged = s >= threshold
    assert found.recall.value == pytest.approx(flagged[wrong].mean(), abs=0.03)
    assert found.false_alarms.value == pytest.approx(flagged[~wrong].mean(), abs=0.03)
    assert found.precision.value == pytest.approx(wrong[flagged].mean(), abs=0.05)
    assert found.precision.low <= wrong[flagged].mean() <= found.precision.high


def test_the_budget_has_the_precision_that_was_wanted():
    scores, wrong = simulated(0.2)
    rule = RULES["irm"]
    s, of_swapped = rule.suspicion(scores), rule.suspicion_of_swapped(scores)
    n = budget_of_precision(s, of_swapped, float(wrong.mean()), 0.85)
    assert wrong[np.argsort(-s)[:n]].mean() == pytest.approx(0.85, abs=0.05)
    assert 0 < budget_of_precision(s, of_swapped, float(wrong.mean()), 0.95) < n
    assert budget_of_precision(s, of_swapped, 0.0, 0.8) == 0
    assert budget_of_precision(s[:5], of_swapped[:5], 0.2, 0.1) == 0 < canaries.MIN_FLAGGED


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_the_self_check_agrees_for_normal_margins_and_is_that_of_the_truth(rate: float):
    scores, wrong = simulated(rate, separation=0.7)
    check = self_check(reward(scores), rate)
    assert check.measured == pytest.approx(check.predicted, abs=0.015)
    right_way_round = np.where(wrong, -1, 1) * reward(scores)
    assert check.accuracy == pytest.approx((right_way_round > 0).mean(), abs=0.015)


def test_scores_that_are_not_held_out_are_refused():
    scores, _ = simulated(0.2)
    held_out = scores.held_out.copy()
    held_out[:7] = False
    with pytest.raises(UserError, match=r"7 of 9,000 pairs were not scored held out"):
        Resampled(replace(scores, held_out=held_out))
    with pytest.raises(UserError, match="not scored held out"):
        Resampled(replace(scores, held_out=np.full(len(held_out), None, dtype=object)))
