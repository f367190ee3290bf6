"""Which styles win, and what a filter does to them."""

from __future__ import annotations

import numpy as np
import pytest

import rmo_curate.evidence.style
from rmo_curate.evidence.style import LEAST_GAP, Style, gaps
from rmo_curate.evidence.texts import STYLE
from rmo_curate.score.categories import LEAST_PAIRS

NAMES = list(STYLE)


def tasteful(n: int = 600, seed: int = 0) -> np.ndarray:
    """Differences [n, features] of pairs whose judge likes bullets and dislikes "sorry", in features of unlike size."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(NAMES))) * np.geomspace(0.01, 100, len(NAMES))
    unit = x / x.std(0)
    liked = unit[:, NAMES.index("bullets")] - unit[:, NAMES.index("sorry")]
    return (x * np.sign(liked + rng.logistic(size=n))[:, None]).astype(np.float32)


def test_a_judges_taste_is_found_whatever_the_features_sizes():
    x = tasteful()
    found = Style.of(x, np.arange(600) % 5)
    adds = found.by_feature()
    top = np.argsort(-np.abs(adds).mean(0))[:2]
    assert {NAMES[i] for i in top} == {"bullets", "sorry"}
    assert (found.margin > 0).mean() > 0.65
    np.testing.assert_allclose(adds.sum(1), found.margin, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.by_feature(np.array([3])), adds[3:4])


def test_no_style_hears_the_labels_of_its_own_fold():
    x, folds = tasteful(), np.arange(600) % 5
    found = Style.of(x, folds)
    swap = np.arange(600) == 11
    other = Style.of(np.where(swap[:, None], -x, x), folds)
    assert other.margin[11] == pytest.approx(-found.margin[11], abs=1e-9)


def test_swapped_pairs_have_the_mirrored_style():
    found = Style.of(tasteful(), np.arange(600) % 5)
    np.testing.assert_array_equal(found.swapped().margin, -found.margin)
    np.testing.assert_array_equal(found.swapped().by_feature(), -found.by_feature())


def test_an_unknown_style_says_nothing():
    found = Style.unknown(tasteful(7))
    assert not found.margin.any() and not found.by_feature().any()


def test_a_category_has_its_own_taste_where_that_foretells_labels():
    x, folds = tasteful(), np.arange(600) % 5
    category = np.where(np.arange(600) % 2, "plain", "fancy")
    opposed = np.where((category == "plain")[:, None], -x, x)
    assert (Style.of(opposed, folds).margin > 0).mean() < 0.6
    found = Style.of(opposed, folds, category)
    assert (found.margin > 0).mean() > 0.65
    assert found.names == ("fancy", "plain") and found.kind_of(0) == "fancy" and not found.of_words
    np.testing.assert_array_equal(found.swapped().margin, -found.margin)


def test_no_category_hears_the_labels_of_its_own_fold(monkeypatch):
    monkeypatch.setattr(rmo_curate.evidence.style, "LASSO", (2.0,))  # the choice of a penalty sees all labels
    x, folds, category = tasteful(), np.arange(600) % 5, np.where(np.arange(600) % 2, "plain", "fancy")
    opposed = np.where((category == "plain")[:, None], -x, x)
    found = Style.of(opposed, folds, category)
    for i in (3, 11, 200):
        other = Style.of(np.where((np.arange(600) == i)[:, None], -opposed, opposed), folds, category)
        assert other.margin[i] == pytest.approx(-found.margin[i], abs=1e-6)


def test_a_category_that_says_nothing_changes_nothing():
    x, folds = tasteful(), np.arange(600) % 5
    drawn = np.random.default_rng(1).choice(["a", "b"], 600)
    found = Style.of(x, folds, drawn)
    np.testing.assert_array_equal(found.margin, Style.of(x, folds).margin)
    assert found.names == () and found.kind_of(0) is None  # no reason names a kind


def test_rare_and_unknown_categories_have_the_taste_of_all():
    x, folds = tasteful(), np.arange(600) % 5
    category = np.array(["rare"] * (LEAST_PAIRS - 1) + [""] * 100 + ["common"] * (501 - LEAST_PAIRS))
    x = np.where((category == "common")[:, None], -x, x)  # a taste of their own
    found = Style.of(x, folds, category)
    assert found.names == ("common",) and found.kind_of(0) is None and found.kind_of(50) is None
    np.testing.assert_array_equal(found.margin[:100], Style.of(x, folds).margin[:100])


def differences(**features: list[float]) -> np.ndarray:
    n = len(next(iter(features.values())))
    x = np.zeros((n, len(NAMES)), dtype=np.float32)
    for name, values in features.items():
        x[:, NAMES.index(name)] = values
    return x


def test_gaps_by_hand():
    # Length: root mean square 1; mean 1/2 of four, 1 of those kept. Bold: mean -1 of both, root mean square sqrt(3).
    x = differences(length=[1, 1, 1, -1], bold=[-3, 1, -1, -1])
    kept = np.array([True, True, False, False])
    by_name = {gap.feature: gap for gap in gaps(x, kept)}
    assert list(by_name) == ["bold", "length"]  # the largest first: 0.58 and 0.5
    assert (by_name["length"].before, by_name["length"].after) == pytest.approx((0.5, 1.0))
    assert by_name["length"].ratio == pytest.approx(2)
    assert by_name["bold"].before == pytest.approx(-1 / np.sqrt(3)) and by_name["bold"].ratio == pytest.approx(1)


def test_weights_count_in_part_and_exchanged_pairs_the_other_way_round():
    x = differences(length=[1, 1, 1, -1])
    all_ = np.ones(4, dtype=bool)
    # Weights 1, 1, 1/2, 1/2: (1 + 1 + 1/2 - 1/2) / 3.
    (weighed,) = gaps(x, all_, np.array([1, 1, 0.5, 0.5]))
    assert weighed.after == pytest.approx(2 / 3)
    # The last one flipped: all four have the longer answer chosen.
    (flipped,) = gaps(x, all_, np.array([1, 1, 1, -1]))
    assert flipped.after == pytest.approx(1)
    # Soft labels p = 1, 1, 0.75, 0.25 count 2 p - 1: 1, 1, 0.5, -0.5, of 3 in all.
    (soft,) = gaps(x, all_, 2 * np.array([1, 1, 0.75, 0.25]) - 1)
    assert soft.after == pytest.approx((1 + 1 + 0.5 + 0.5) / 3)


def test_only_gaps_worth_a_figure_are_told():
    rng = np.random.default_rng(0)
    x = differences(length=list(rng.normal(LEAST_GAP - 0.1, 1, 5000)), bold=list(rng.normal(LEAST_GAP + 0.1, 1, 5000)))
    assert [gap.feature for gap in gaps(x, np.ones(5000, dtype=bool))] == ["bold"]


def test_where_none_is_kept_there_is_no_gap():
    (gap,) = gaps(differences(length=[1, 2]), np.zeros(2, dtype=bool))
    assert gap.after == 0 and gap.ratio == 0
