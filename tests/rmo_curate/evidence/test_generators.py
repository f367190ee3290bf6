"""The strength of the models that wrote the answers."""

from __future__ import annotations

import numpy as np

from rmo_curate.evidence.generators import strengths

FOLDS = np.arange(400) % 5


def contests(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(chosen, rejected) generators: strong beats middling in 80% and middling beats weak in 80%."""
    rng = np.random.default_rng(seed)
    better = np.where(np.arange(400) % 2 == 0, "strong", "middling")
    worse = np.where(np.arange(400) % 2 == 0, "middling", "weak")
    upset = rng.random(400) < 0.2
    return np.where(upset, worse, better), np.where(upset, better, worse)


def test_the_stronger_generators_answer_is_expected_to_win():
    chosen, rejected = contests()
    found = strengths(chosen, rejected, FOLDS).margin
    rank = {"strong": 2, "middling": 1, "weak": 0}
    expected = np.sign([rank[a] - rank[b] for a, b in zip(chosen, rejected, strict=True)])
    np.testing.assert_array_equal(np.sign(found), expected)
    assert 0.3 < np.abs(found).mean() < np.log(4)  # 80% is log-odds of log 4, of which the ridge takes some


def test_a_comparison_that_was_never_made_follows_from_others():
    chosen, rejected = contests()
    chosen[0], rejected[0] = "strong", "weak"
    found = strengths(chosen, rejected, FOLDS).margin
    assert found[0] > np.abs(found[1:]).max()


def test_unknown_generators_have_the_strength_0():
    chosen, rejected = contests()
    chosen[:3], rejected[:3] = ["", "strong", ""], ["strong", "", ""]
    rejected[200:] = ""  # they lose often, and stay at 0
    fit = strengths(chosen, rejected, np.where(np.arange(400) < 3, 0, FOLDS))
    found = fit.margin
    assert found[0] == -found[1] < 0 and found[2] == 0
    assert not fit.weights[:, 0].any() and fit.weights[:, 1:].all()  # "" is the first name
    assert not strengths(np.full(9, ""), np.full(9, ""), np.arange(9) % 3).margin.any()


def test_a_generator_of_one_prompt_is_not_known_elsewhere():
    chosen, rejected = contests()
    chosen[7], rejected[7] = "only here", "and here"
    assert strengths(chosen, rejected, FOLDS).margin[7] == 0


def test_a_pairs_own_label_negates_its_log_odds():
    chosen, rejected = contests()
    found = strengths(chosen, rejected, FOLDS)
    swap = np.arange(400) == 12
    other = strengths(np.where(swap, rejected, chosen), np.where(swap, chosen, rejected), FOLDS)
    assert other.ridge == found.ridge and other.margin[12] == -found.margin[12]
