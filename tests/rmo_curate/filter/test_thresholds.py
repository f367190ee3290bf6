import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.filter.thresholds import draws, drop_probability, most_suspect, noisy_budget
from rmo_train.store.id_hash import fractions
from tests.rmo_train.store.test_id_hash import plain_hash


@pytest.mark.parametrize(
    ("n", "high_q", "budget"),
    [
        (100, 0.95, 5),  # (1 - 0.95) * 100 is 5.000000000000004 in floats
        (20, 0.95, 1),
        (10, 0.9, 1),  # (1 - 0.9) * 10 is 0.9999999999999998
        (1000, 0.7, 300),  # 300.00000000000006
        (19, 0.95, 0),
        (7, 0, 7),
        (7, 1, 0),
        (0, 0.5, 0),
    ],
)
def test_the_budget_is_exact(n, high_q, budget):
    assert noisy_budget(n, high_q) == budget


@given(st.integers(0, 10**7), st.integers(0, 1000))
def test_the_budget_is_that_of_the_decimal_that_was_typed(n, thousandths):
    assert noisy_budget(n, thousandths / 1000) == math.floor((1000 - thousandths) * Fraction(n, 1000))


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 30))
def test_the_most_suspect_are_those_of_a_plain_sort(values, budget):
    s = np.array(values, dtype=float)
    s[::7] = np.nan
    ids = [f"p{i}" for i in range(len(s))]
    eligible = [i for i in range(len(s)) if s[i] > 0]
    expected = sorted(eligible, key=lambda i: (-s[i], plain_hash(ids[i], 0)))[:budget]
    assert np.flatnonzero(most_suspect(s, pa.array(ids, pa.string()), budget)).tolist() == sorted(expected)


def test_a_tie_across_the_cut_goes_by_the_hash_of_the_id():
    ids = [f"p{i}" for i in range(6)]
    s = np.array([9.0, 1.0, 1.0, 1.0, 1.0, 0.5])  # p0 goes, and three of p1 to p4, whose hashes begin 34, b35, bc, b3f
    assert np.flatnonzero(most_suspect(s, pa.array(ids), 4)).tolist() == [0, 1, 2, 4]


def test_drop_probability_by_hand():
    p = drop_probability(np.array([0.0, 1.0, 2.0, 4.0, 100.0, np.nan]), tau=2.0)
    np.testing.assert_allclose(
        p, [0.5 * (1 + math.tanh(2)), 0.5 * (1 + math.tanh(1)), 0.5, 0.5 * (1 - math.tanh(2)), 0, np.nan], atol=1e-15
    )
    assert p[0] > 0.98


@given(st.floats(1e-6, 1e6), st.lists(st.floats(0, 1e7), min_size=2))
def test_a_smaller_margin_is_never_likelier_to_be_kept(tau, values):
    p = drop_probability(np.sort(np.array(values)), tau)
    assert (np.diff(p) <= 0).all() and ((p >= 0) & (p <= 1)).all()


def test_with_tau_0_only_zero_margins_are_ambiguous():
    p = drop_probability(np.array([0.0, 1e-9, 5.0]), tau=0.0)
    np.testing.assert_allclose(p, [0.5 * (1 + math.tanh(2)), 0, 0])


def test_draws_are_the_ambiguous_fractions_of_their_seed():
    ids = pa.array(["a", "p7", "ü", "0" * 32])
    assert draws(42, ids).tolist() == fractions("ambiguous", 42, ids).tolist()
    assert draws(1, ids)[0] != draws(2, ids)[0]
