"""Accuracies by hand, length matching, and bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmo_train.evaluation.metrics import (
    McNemar,
    accuracy,
    bootstrap,
    length_matched_accuracy,
    mcnemar,
    paired_difference,
)


def test_a_tie_counts_half():
    assert accuracy(np.array([1.0, -1.0, 0.0, 2.0])) == 0.625
    assert accuracy(np.zeros(7)) == 0.5


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=60))
def test_the_longer_wins_has_no_length_matched_skill(lengths):
    chosen, rejected = (np.array(x) for x in zip(*lengths, strict=True))
    matched = length_matched_accuracy((chosen - rejected).astype(float), chosen, rejected)
    assert np.isnan(matched) or matched == pytest.approx(0.5)


def test_length_matched_accuracy_by_hand():
    chosen = np.array([5, 5, 1, 1, 30, 30, 1])
    rejected = np.array([4, 4, 2, 2, 10, 10, 21])
    margins = np.array([1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0])
    # differences of 1: longer right in 1 of 2, shorter in 2 of 2, weight 4; of 20: 2 of 2 and 0 of 1, weight 2
    assert length_matched_accuracy(margins, chosen, rejected) == pytest.approx((4 * 0.75 + 2 * 0.5) / 6)


def test_bootstrap_resamples_whole_prompts():
    groups = np.repeat(["a", "b", "c", "d"], 25)
    values = np.repeat([1.0, 1.0, -1.0, -1.0], 25)
    interval = bootstrap(lambda rows: accuracy(values[rows]), groups)
    assert interval.value == 0.5
    assert (interval.low, interval.high) == (0.0, 1.0)  # four prompts decide, not a hundred pairs
    again = bootstrap(lambda rows: accuracy(values[rows]), groups)
    assert again == interval


def test_a_constant_has_no_spread():
    interval = bootstrap(lambda rows: 0.5, np.arange(10))
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)


def test_mcnemar_by_hand():
    a = np.array([1.0, 1.0, -1.0, -1.0, -1.0, 0.0, 2.0, -2.0])
    b = np.array([1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 0.0, -1.0])
    # right by b alone 3, by a alone 1: 2 (C(4, 0) + C(4, 1)) / 2^4; two pairs have a tie
    prompts = np.arange(8)
    assert mcnemar(a, b, prompts) == McNemar(a_alone=1, b_alone=3, ties=2, p=pytest.approx(10 / 16))
    assert mcnemar(b, a, prompts) == McNemar(a_alone=3, b_alone=1, ties=2, p=pytest.approx(10 / 16))
    assert mcnemar(a, a, prompts).p == 1.0


def test_mcnemar_counts_a_prompt_once():
    a, b = np.full(12, -1.0), np.full(12, 1.0)
    assert mcnemar(a, b, np.arange(12)).p == pytest.approx(2 / 2**12)
    assert mcnemar(a, b, np.repeat([0, 1, 2], 4)) == McNemar(a_alone=0, b_alone=12, ties=0, p=pytest.approx(2 / 2**3))


def test_a_paired_difference_has_the_spread_of_the_differences_alone():
    groups = np.arange(40)
    a = np.tile([1.0, -1.0], 20)  # as uncertain as can be
    interval = paired_difference(lambda margins, rows: accuracy(margins), a, a * 2, groups)
    assert (interval.low, interval.value, interval.high) == (0, 0, 0)
    b = np.where(groups < 10, 1.0, a)  # 5 of 40 pairs more
    found = paired_difference(lambda margins, rows: accuracy(margins), a, b, groups)
    assert found.value == 5 / 40 and 0 < found.low < found.value < found.high
    # 2.5% and 97.5% of Binomial(40, 1/8) are 1 and 9
    assert found.low * 40 == pytest.approx(1, abs=1) and found.high * 40 == pytest.approx(9, abs=1)
