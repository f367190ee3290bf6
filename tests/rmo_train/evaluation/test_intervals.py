"""Intervals of few pairs: worked out by hand, never surer than the data, and the bootstrap's where pairs are many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_train.evaluation.intervals import (
    Weighted,
    accuracy_difference,
    accuracy_interval,
    length_matched_difference,
    length_matched_interval,
    share_interval,
    tango,
    verdict,
    wilson,
)
from rmo_train.evaluation.metrics import Interval, accuracy, bootstrap, sign_test

RIGHT, WRONG, Z = 1.0, -1.0, 1.959964


def test_six_right_answers_are_not_certain():
    found = accuracy_interval(np.full(6, RIGHT), np.arange(6))
    # Wilson at 6 of 6: n / (n + z^2) = 6 / 9.8415 to 1
    assert (found.value, found.high) == (1.0, 1.0) and found.low == pytest.approx(6 / (6 + Z**2))
    assert verdict(found, 6, even=0.5) == "too few to tell"


def test_wilson_by_hand():
    # 81 of 263 at 1.96: 0.2553 to 0.3662 (Newcombe 1998, table I, method 3)
    assert wilson(81 / 263, 263, Z) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20, Z) == pytest.approx((0, Z**2 / (20 + Z**2)))


def test_tango_by_hand():
    # no pair differs: z^2 / (n + z^2) to either side
    end = Z**2 / (40 + Z**2)
    assert tango(0.0, 0.0, 40, Z) == pytest.approx((-end, end), abs=1e-6)
    # all pairs differ one way: (n - z^2) / (n + z^2) to 1
    assert tango(1.0, 0.0, 40, Z) == pytest.approx(((40 - Z**2) / (40 + Z**2), 1), abs=1e-6)


def test_the_ends_of_tangos_interval_are_z_errors_away_by_the_likeliest_shares():
    up, down, n = 12 / 50, 2 / 50, 50
    for x in tango(up, down, n, Z):
        q = np.linspace(max(0, -x) + 1e-7, (1 - x) / 2 - 1e-7, 400_001)  # share of `down` pairs; q + x: of `up` pairs
        likelihood = up * np.log(q + x) + down * np.log(q) + (1 - up - down) * np.log(1 - 2 * q - x)
        best = q[likelihood.argmax()]
        assert n * (up - down - x) ** 2 / (2 * best + x - x**2) == pytest.approx(Z**2, rel=1e-3)


def test_pairs_of_a_prompt_are_not_as_many_answers():
    alone, alike = (accuracy_interval(np.full(24, RIGHT), groups) for groups in (np.arange(24), np.repeat(range(6), 4)))
    assert alone.low == pytest.approx(24 / (24 + Z**2))
    assert alike.low < 6 / (6 + Z**2)  # as six, and their likeness is a guess of six


def test_many_pairs_have_the_bootstrap():
    groups = np.arange(80)
    margins = np.where(groups % 4 == 0, WRONG, RIGHT)  # 20 prompts of the rarer outcome
    assert accuracy_interval(margins, groups) == bootstrap(lambda rows: accuracy(margins[rows]), groups)
    rare = np.where(groups % 20 == 0, WRONG, RIGHT)  # 4 prompts
    assert accuracy_interval(rare, groups).low == pytest.approx(wilson(0.95, 80, Z)[0])


def test_a_reference_beside_itself_is_sure_and_a_model_too():
    ties, groups = np.zeros(6), np.arange(6)
    assert accuracy_interval(ties, groups) == Interval(0.5, 0.5, 0.5)
    margins = np.array([1.0, -1.0, 2.0, 1.0, 1.0, -3.0])
    assert accuracy_difference(margins, margins, groups) == Interval(0, 0, 0)
    same_outcomes = accuracy_difference(margins, 2 * margins, groups)
    assert same_outcomes.low < same_outcomes.value == 0 < same_outcomes.high
    # answers that tie by a judge are no such thing
    assert share_interval(np.full(6, 0.5), groups).low == pytest.approx(wilson(0.5, 6, Z)[0])


def test_beside_the_reference_a_difference_is_as_sure_as_the_accuracy():
    margins, groups = np.array([RIGHT] * 25 + [WRONG] * 5), np.arange(30)
    alone, beside = accuracy_interval(margins, groups), accuracy_difference(np.zeros(30), margins, groups)
    assert (beside.low, beside.high) == pytest.approx((alone.low - 0.5, alone.high - 0.5))
    back = accuracy_difference(margins, np.zeros(30), groups)
    assert (back.low, back.high) == pytest.approx((-beside.high, -beside.low))


def test_what_the_exact_test_does_not_tell_apart_has_0_in_its_interval():
    n = 30
    a, b = np.full(n, RIGHT), np.full(n, RIGHT)
    a[:5] = WRONG  # 5 gained and none lost: z = sqrt 5 > 1.96, but 2 / 2^5 > 0.05
    assert tango(5 / n, 0, n, Z)[0] > 0 and sign_test(5, 0) > 0.05
    assert verdict(accuracy_difference(a, b, np.arange(n)), n) == "not distinguishable"
    a[5] = WRONG  # 2 / 2^6 < 0.05
    assert verdict(accuracy_difference(a, b, np.arange(n)), n) == "higher"
    assert verdict(accuracy_difference(b, a, np.arange(n)), n) == "lower"


def test_a_length_matched_accuracy_of_few_pairs_is_not_certain():
    chosen, rejected = np.array([5, 1, 5, 1, 7, 1, 1, 9]), np.array([3, 3, 3, 3, 7, 3, 3, 9])
    found = length_matched_interval(np.full(8, RIGHT), chosen, rejected, np.arange(8))
    # two longer and four shorter ones, a half of the weight each: 1 / (2 (1/4)^2 + 4 (1/8)^2) = 16/3 pairs
    assert found.value == 1.0 and found.low == pytest.approx((16 / 3) / (16 / 3 + Z**2))
    assert Weighted.of(np.arange(8), np.array([2, 1, 2, 1, 0, 1, 1, 0])).pairs == 6
    changed = length_matched_difference(np.full(8, WRONG), np.full(8, RIGHT), chosen - rejected, np.arange(8))
    assert changed.value == 1.0 and changed.low < 1
    nothing = length_matched_interval(np.full(2, RIGHT), np.array([4, 4]), np.array([4, 4]), np.arange(2))
    assert np.isnan(nothing.value) and np.isnan(nothing.low)


outcomes = st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.integers(0, 8)), min_size=1, max_size=40)


@settings(deadline=None)
@given(outcomes)
def test_an_interval_holds_its_value_and_is_never_a_point_but_of_ties(pairs):
    margins, groups = (np.array(column) for column in zip(*pairs, strict=True))
    found = accuracy_interval(margins, groups)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high or not margins.any()


@settings(deadline=None)
@given(outcomes, st.data())
def test_a_difference_and_its_reverse_are_mirrored(pairs, data):
    a, groups = (np.array(column) for column in zip(*pairs, strict=True))
    b = np.array(data.draw(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=len(a), max_size=len(a))))
    there, back = accuracy_difference(a, b, groups), accuracy_difference(b, a, groups)
    assert -1 <= there.low <= there.value <= there.high <= 1
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low), abs=1e-6)
    assert there.low < there.high or np.array_equal(a, b)


@pytest.mark.parametrize(
    ("low", "high", "prompts", "said"),
    [
        (0.01, 0.2, 20, "higher"),
        (-0.2, -0.01, 20, "lower"),
        (0.0, 0.2, 20, "not distinguishable"),
        (-1, 1, 20, "not distinguishable"),
        (0.01, 0.2, 19, "too few to tell"),
        (float("nan"), float("nan"), 20, "not distinguishable"),
    ],
)
def test_a_verdict_needs_prompts_and_an_interval_without_0(low, high, prompts, said):
    assert verdict(Interval((low + high) / 2, low, high), prompts) == said


def test_the_interval_of_a_share_of_many_is_the_bootstrap_itself():
    rng = np.random.default_rng(4)
    values, prompts = (rng.random(600) < 0.7) * 1.0, np.arange(600) // 3
    assert share_interval(values, prompts) == bootstrap(lambda rows: float(values[rows].mean()), prompts)
