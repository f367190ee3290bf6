"""What labels are worth under each action."""

from __future__ import annotations

import numpy as np
import pytest

from rmo_curate.filter.wording import worth_lines
from rmo_curate.filter.worth import best_action, by_action, clean_pairs, worth


def test_worth_by_hand():
    # 100 pairs of which 20 are wrong, and nothing tells which: 100 x 0.6^2.
    blind = np.full(100, 0.8)
    assert clean_pairs(blind) == pytest.approx(36)
    assert by_action(blind) == pytest.approx({"drop": 36, "weight": 36, "soft-label": 36})
    assert best_action(blind) is None
    # Known for certain: dropping the wrong leaves 80 clean ones; soft labels turn the wrong ones round.
    known = np.repeat([1.0, 0.0], [80, 20])
    assert by_action(known) == pytest.approx({"drop": 80, "weight": 80, "soft-label": 100})
    assert best_action(known) == "soft-label"


def test_a_cut_is_worth_what_the_formula_of_its_rates_says():
    rng = np.random.default_rng(0)
    right = rng.beta(4, 1, 5000)
    kept = right >= 0.5
    e, left, q = 1 - right.mean(), 1 - right[kept].mean(), 1 - kept.mean()
    gain = (1 - q) * (1 - 2 * left) ** 2 / (1 - 2 * e) ** 2
    assert by_action(right)["drop"] / clean_pairs(right) == pytest.approx(gain)


def test_no_weights_are_worth_more_than_soft_labels():
    rng = np.random.default_rng(1)
    right = rng.beta(2, 1, 300)
    best = by_action(right)["soft-label"]
    for _ in range(20):
        assert clean_pairs(right, rng.normal(size=300)) <= best
    assert by_action(right)["drop"] <= best and by_action(right)["weight"] <= best <= 300


def test_what_is_known_of_labels_by_simulation():
    """Means of n draws +-1 with P(+1) = p, weighed: (mean / sd)^2 of the sum is the worth."""
    rng = np.random.default_rng(2)
    right = rng.beta(3, 1, 200)
    weight = 2 * right - 1
    signs = np.where(rng.random((20_000, 200)) < right, 1, -1) + rng.normal(0, 30, (20_000, 200))  # noise outweighs it
    sums = signs @ weight
    assert (sums.mean() / sums.std() * 30) ** 2 == pytest.approx(clean_pairs(right, weight), rel=0.1)


def test_labels_worth_nothing_are_not_compared():
    assert list(worth_lines(worth(np.full(10, 0.5)), 10)) == []
    told = list(worth_lines(worth(np.repeat([1.0, 0.0], [8, 2])), 10))
    assert told[0] == "--action drop: 10 scored pairs are worth 8 clean pairs, 2.22 times the labels as given"
