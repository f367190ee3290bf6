"""What other pairs say of the same answers: by hand, and the law that a pair's own label says nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.evidence.answers import VARIANCES, Comparisons, best_effect, effect
from rmo_curate.score.logistic import loss


def of(*pairs: tuple[str, str]) -> Comparisons:
    """(chosen, rejected) names of answers."""
    return Comparisons.of(*(np.array(side) for side in zip(*pairs, strict=True)))


def test_won_and_compared_leave_the_pair_itself_out():
    won, compared = of(("a", "b"), ("a", "c"), ("c", "b"), ("d", "e")).others()
    # a won 2 of 2, b 0 of 2, c 1 of 2, d and e are in one pair each.
    assert won.tolist() == [[1, 0], [1, 1], [0, 0], [0, 0]]
    assert compared.tolist() == [[1, 1], [1, 1], [1, 1], [0, 0]]


def test_the_effect_of_three_pairs_by_hand():
    # Margins 0, variance 8/pi: scale 1/sqrt(2); surprise s/2 = 1/(2 sqrt 2), certainty s^2/4 = 1/8.
    variance = 8 / np.pi
    surprise, certainty = 1 / (2 * np.sqrt(2)), 1 / 8
    one = surprise / (1 / variance + certainty)  # an answer that won its one other comparison
    found = effect(of(("a", "b"), ("a", "c"), ("c", "b")), np.zeros(3), variance)
    # a over b: a won 1 elsewhere, b lost 1; a over c: both won 1; c over b: c lost 1, b lost 1.
    np.testing.assert_allclose(found, [2 * one, 0, 0], atol=1e-12)
    found = effect(of(("a", "b"), ("a", "c")), np.zeros(2), variance)
    np.testing.assert_allclose(found, [one, one])


def test_a_surprising_win_says_more_than_an_expected_one():
    pairs = of(("a", "b"), ("a", "c"))
    expected, surprising = (effect(pairs, np.array([0.0, margin]), 1.0)[0] for margin in (3.0, -3.0))
    assert 0 < expected < surprising


def test_answers_that_are_in_no_other_pair_have_no_effect():
    found = effect(of(("a", "b"), ("c", "d"), ("c", "e")), np.array([1.0, -2.0, 0.5]), 2.0)
    assert found[0] == 0 and (found[1:] != 0).all()
    assert not effect(of(("a", "b")), np.array([4.0]), 1.0).any()


comparisons = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(-4, 4)), min_size=1, max_size=12).map(
    lambda rows: [row for row in rows if row[0] != row[1]] or [(0, 1, 0.5)]
)


@settings(max_examples=200, deadline=None)
@given(comparisons, st.sampled_from(VARIANCES), st.integers(0, 11))
def test_a_pairs_own_label_negates_its_effect_and_says_nothing_else_of_it(rows, variance, which):
    winner, loser, margin = (np.array(column) for column in zip(*rows, strict=True))
    k = which % len(rows)
    swap = np.arange(len(rows)) == k
    flipped = Comparisons.of(np.where(swap, loser, winner), np.where(swap, winner, loser))
    before = effect(Comparisons.of(winner, loser), margin, variance)
    after = effect(flipped, np.where(swap, -margin, margin), variance)
    assert after[k] == pytest.approx(-before[k], abs=1e-12)
    np.testing.assert_array_equal(flipped.others()[0][k], Comparisons.of(winner, loser).others()[0][k][::-1])


@settings(max_examples=100, deadline=None)
@given(comparisons, st.sampled_from(VARIANCES))
def test_swapping_every_pair_keeps_who_won_against_the_labels(rows, variance):
    winner, loser, margin = (np.array(column) for column in zip(*rows, strict=True))
    given_ = effect(Comparisons.of(winner, loser), margin, variance)
    # Every label the other way round: an answer that was better by e is worse by e, and so is its rival's e.
    np.testing.assert_allclose(effect(Comparisons.of(loser, winner), margin, variance), given_, atol=1e-12)


def test_a_repeated_pair_supports_its_copy_and_a_reversed_one_contradicts_it():
    twice = effect(of(("a", "b"), ("a", "b")), np.zeros(2), 1.0)
    against = effect(of(("a", "b"), ("b", "a")), np.zeros(2), 1.0)
    assert twice[0] == twice[1] > 0 and against[0] == against[1] == pytest.approx(-twice[0])


def ranked(prompts: int, spread: float, rate: float, seed: int = 0) -> tuple[Comparisons, np.ndarray]:
    """All 6 pairs of 4 answers to each prompt, labelled by their quality (sd `spread`), some flipped; margins 0."""
    rng = np.random.default_rng(seed)
    first, second = (np.tile(side, prompts) for side in np.triu_indices(4, 1))
    base = 4 * np.repeat(np.arange(prompts), 6)
    quality = rng.normal(0, spread, 4 * prompts)
    a, b = base + first, base + second
    right = quality[a] - quality[b] + rng.logistic(size=len(a)) > 0
    wins = right != (rng.random(len(a)) < rate)
    return Comparisons.of(np.where(wins, a, b), np.where(wins, b, a)), np.zeros(len(a))


def test_answers_of_different_quality_get_an_effect_that_foretells_labels():
    pairs, margin = ranked(400, 1.5, 0.1)
    effects, variance = best_effect(pairs, margin)
    assert variance > 0 and loss(effects) < loss(margin) - 0.02
    losses = {v: loss(effect(pairs, margin, v)) for v in VARIANCES}
    assert variance == min(losses, key=lambda v: losses[v])


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_are_pure_noise_give_next_to_no_effect(seed):
    pairs, margin = ranked(400, 0.0, 0.5, seed)
    effects, variance = best_effect(pairs, margin)
    assert variance in (0, VARIANCES[0]) and np.abs(effects).max() < 0.3
    assert np.log(2) - 0.003 < loss(effects) <= np.log(2)


def test_an_effect_that_foretells_the_wrong_labels_is_none():
    effects, variance = best_effect(of(("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")), np.zeros(4))
    assert variance == 0 and not effects.any()
