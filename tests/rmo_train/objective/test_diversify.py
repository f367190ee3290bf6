"""Batch margin diversification: an exact partition, near its bound, a function of (margins, G, seed, epoch) alone."""

import warnings
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rmo_train.console.errors import UserError
from rmo_train.objective.diversify import bound_fraction, diversified_batches, random_batches

MARGINS = arrays(np.float64, st.integers(1, 80), elements=st.floats(-1e9, 1e9))
SIZES = st.integers(1, 20)


def company(batches):
    """Every two indices that share a batch."""
    return {pair for batch in batches for pair in combinations(sorted(batch.tolist()), 2)}


@settings(deadline=None)
@given(MARGINS, SIZES, st.integers(0, 2**32), st.integers(0, 100))
def test_every_pair_is_in_exactly_one_batch(margins, size, seed, epoch):
    n = len(margins)
    for batches in (
        diversified_batches(margins, size, seed=seed, epoch=epoch),
        random_batches(n, size, seed=seed, epoch=epoch),
    ):
        assert sorted(np.concatenate(batches).tolist()) == list(range(n))
        assert [len(batch) for batch in batches] == [size] * (n // size) + [n % size] * (n % size > 0)
        assert -1e-9 <= bound_fraction(margins, batches) <= 1 + 1e-9


@settings(deadline=None)
@given(MARGINS, SIZES, st.integers(0, 100))
def test_the_same_arguments_give_the_same_order_in_any_unit(margins, size, epoch):
    first = diversified_batches(margins, size, seed=3, epoch=epoch)
    for same in (margins.copy(), margins * 4):  # a power of two, so that no rounding differs
        again = diversified_batches(same, size, seed=3, epoch=epoch)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_it_does_not_touch_the_margins_it_is_given():
    margins = np.random.default_rng(0).normal(size=100)
    before = margins.copy()
    diversified_batches(margins, 8, seed=0, epoch=0)
    assert np.array_equal(margins, before)


def test_bound_fraction_by_hand():
    margins = np.array([0.0, 1.0, 2.0, 3.0])  # Var_total 1.25
    assert bound_fraction(margins, [np.array([0, 3]), np.array([1, 2])]) == pytest.approx(1.0)  # (2.25 + 0.25) / 2.5
    assert bound_fraction(margins, [np.array([0, 2]), np.array([1, 3])]) == pytest.approx(0.8)  # (1 + 1) / 2.5
    assert bound_fraction(margins, [np.array([0, 1]), np.array([3, 2])]) == pytest.approx(0.2)
    # a short last batch: (3 * 2/3 + 1 * 0) / (4 * 1.25)
    assert bound_fraction(margins, [np.array([0, 1, 2]), np.array([3])]) == pytest.approx(0.4)
    assert bound_fraction(np.full(4, 0.1), [np.array([0, 1]), np.array([2, 3])]) == 1.0


def test_four_margins_are_paired_as_the_bound_asks():
    margins = np.array([3.0, 0.0, 2.0, 1.0])
    for seed in range(10):
        batches = diversified_batches(margins, 2, seed=seed, epoch=0)
        assert {tuple(sorted(margins[batch].tolist())) for batch in batches} == {(0.0, 3.0), (1.0, 2.0)}


@pytest.mark.parametrize(
    ("name", "least"), [("normal", 0.9999), ("student_t", 0.999), ("lognormal", 0.98), ("two_values", 0.999)]
)
@pytest.mark.parametrize("n", [8000, 8007])
def test_it_reaches_the_bound(name, least, n):
    rng = np.random.default_rng(5)
    margins = {
        "normal": lambda: rng.normal(size=n),
        "student_t": lambda: rng.standard_t(3, size=n),
        "lognormal": lambda: rng.lognormal(size=n),
        "two_values": lambda: (rng.random(n) < 0.3).astype(float),  # 4.8 ones a batch: some 4, some 5
    }[name]()
    if name == "two_values":
        least = 1 - 0.2 * 0.8 / 16 / 0.21 - 0.001  # means must differ: 4 or 5 of 16
    assert bound_fraction(margins, diversified_batches(margins, 16, seed=0, epoch=0)) >= least


@pytest.mark.parametrize(("n", "size"), [(60, 4), (64, 16), (101, 8), (33, 10)])
def test_it_beats_the_random_partition_on_average(n, size):
    ours, random = [], []
    for seed in range(20):
        margins = np.random.default_rng(seed).standard_t(2, size=n)
        ours.append(bound_fraction(margins, diversified_batches(margins, size, seed=seed, epoch=0)))
        random.append(bound_fraction(margins, random_batches(n, size, seed=seed, epoch=0)))
    assert np.mean(ours) > np.mean(random)


@pytest.mark.parametrize("draw", ["normal", "standard_cauchy"])
def test_two_epochs_put_hardly_more_pairs_together_again_than_chance(draw):
    n, size = 4800, 16
    margins = getattr(np.random.default_rng(1), draw)(size=n)
    first, second = (company(diversified_batches(margins, size, seed=9, epoch=epoch)) for epoch in (0, 1))
    by_chance = len(first) * (size - 1) / (n - 1)  # 112
    assert len(first & second) < 2 * by_chance


def test_seed_and_epoch_change_the_batches():
    margins = np.random.default_rng(0).normal(size=64)
    orders = [
        np.concatenate(diversified_batches(margins, 8, seed=seed, epoch=epoch)).tolist()
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_batches_come_in_no_order_of_margin():
    """Neither the place in a batch nor the batch's place in the epoch says how large a margin is."""
    margins = np.random.default_rng(0).normal(size=16_000)
    by_place = margins[np.array(diversified_batches(margins, 16, seed=0, epoch=0))]
    assert np.abs(by_place.mean(axis=0)).max() < 5 / np.sqrt(1000)
    spread = by_place.std(axis=1)
    assert abs(np.corrcoef(np.arange(1000), spread)[0, 1]) < 0.15


def test_the_short_batch_is_not_the_same_pairs_every_epoch():
    margins = np.random.default_rng(0).normal(size=1003)
    last = {tuple(sorted(diversified_batches(margins, 16, seed=0, epoch=e)[-1].tolist())) for e in range(5)}
    assert len(last) == 5


def test_margins_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match=r"pair 2 .*nan.*1 of 4 .*--no-diversify"):
        diversified_batches(np.array([0.0, 1.0, np.nan, 2.0]), 2, seed=0, epoch=0)
    with pytest.raises(UserError, match="batch size 0"):
        diversified_batches(np.zeros(4), 0, seed=0, epoch=0)


def test_equal_margins_are_batched_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = diversified_batches(np.full(10, 0.1), 4, seed=0, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(10))
