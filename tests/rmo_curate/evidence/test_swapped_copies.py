"""Swapped copies of simulated held-out scores whose truth is known."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from rmo_curate.evidence import swapped_copies
from rmo_curate.evidence.label_noise import Resampled
from rmo_curate.evidence.rules import RULES
from rmo_curate.evidence.swapped_copies import budget_of_precision, detection, self_check, solved
from rmo_curate.runs.margins import reward
from rmo_curate.runs.run import Scores

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


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3])
def test_rate_recall_and_precision_are_those_of_the_truth(rate: float):
    scores, wrong = simulated(rate)
    # 20 N(1.6, 1): log-odds 2 * 1.6 / 20 a nat where labels are right, 1 - 2 eps times as much as labelled
    margin = 0.16 * (1 - 2 * rate) * reward(scores)
    resampled = Resampled(margin, np.arange(len(wrong)) // PER_PROMPT, draws=60)
    assert resampled.rate.low <= wrong.mean() <= resampled.rate.high
    assert resampled.rate.high - resampled.rate.low < 0.05
    rule = RULES["irm"]
    s, of_swapped = rule.suspicion(scores), rule.suspicion_of_swapped(scores)
    threshold = float(np.quantile(s, 0.9))
    found = detection(s >= threshold, of_swapped >= threshold, resampled)
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
    assert budget_of_precision(s[:5], of_swapped[:5], 0.2, 0.1) == 0 < swapped_copies.MIN_FLAGGED


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_the_self_check_agrees_for_normal_margins_and_is_that_of_the_truth(rate: float):
    scores, wrong = simulated(rate, separation=0.7)
    check = self_check(reward(scores), rate)
    assert check.measured == pytest.approx(check.predicted, abs=0.015)
    right_way_round = np.where(wrong, -1, 1) * reward(scores)
    assert check.accuracy == pytest.approx((right_way_round > 0).mean(), abs=0.015)


def test_scores_are_held_out_where_no_scored_pair_was_trained_on():
    scores, _ = simulated(0.2)
    assert swapped_copies.held_out(scores)
    for value in (False, None):
        held_out = scores.held_out.copy()
        held_out[7] = value
        assert not swapped_copies.held_out(replace(scores, held_out=held_out))
    scores.chosen_logp[7] = np.nan  # without scores it does not count
    assert swapped_copies.held_out(replace(scores, held_out=held_out))
