"""The baselines of detection, against hand-computed values, their laws, and cleanlab."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import roc_auc_score

from benchmarks.baselines import BASELINES, confidence, scaled_irm, with_baselines
from rmo_curate.evidence.rules import RULES
from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores
from tests.rmo_curate.evidence.test_rules import HAND, many, scores_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("base-ln", [3, -7]),
        ("ppldiff", [4.5, -11]),
        ("loss", [np.log((1 + np.exp(0.4)) / 2), np.log((1 + np.exp(-0.6)) / 2)]),
        ("aum", [4 / (1.4826 * 5), -6 / (1.4826 * 5)]),  # the median of |reward| is 5
        ("cartography", [0.5 - 1 / (1 + np.exp(0.4)), 0.5 - 1 / (1 + np.exp(-0.6))]),
    ],
)
def test_baselines_by_hand(name, expected):
    np.testing.assert_allclose(BASELINES[name].suspicion(HAND), expected, rtol=1e-12)


def test_no_baseline_is_a_rule_of_the_commands():
    assert not set(BASELINES) & set(RULES)
    assert set(with_baselines(grouped=False)) == set(with_baselines(grouped=True)) - {"fuse"}


@given(many)
def test_swapping_every_pair_negates_what_is_linear_in_margins(scores):
    for name in ("base-ln", "ppldiff", "aum", "cartography", "fuse"):
        s = BASELINES[name].suspicion(scores)
        np.testing.assert_allclose(BASELINES[name].suspicion_of_swapped(scores), -s, atol=1e-9, err_msg=name)
    loss = BASELINES["loss"]  # softplus(x) = softplus(-x) + x
    np.testing.assert_allclose(
        loss.suspicion_of_swapped(scores), loss.suspicion(scores) + 0.1 * margins.reward(scores), atol=1e-9
    )


@given(many)
def test_a_pair_without_scores_has_no_suspicion(scores):
    scores.chosen_logp[0], scores.rejected_logp[0] = np.nan, np.nan
    for rule in BASELINES.values():
        assert np.isnan(rule.suspicion(scores)[0]), rule.name


@given(many)
def test_fitted_baselines_order_pairs_as_irm_on_one_scale_does(scores):
    order = np.argsort(scaled_irm(scores), kind="stable")
    for name in ("gmm", "cl"):
        assert (np.diff(BASELINES[name].suspicion(scores)[order]) <= 1e-9).all(), name
    by_irm = np.argsort(margins.reward(scores), kind="stable")
    assert (np.diff(BASELINES["loss"].suspicion(scores)[by_irm]) <= 1e-12).all()


def test_a_fold_whose_proxy_moved_three_times_as_far_changes_no_ranking():
    rng = np.random.default_rng(3)
    n = 400
    base, moved, fold = rng.normal(0, 4, n), rng.normal(2, 3, n), (np.arange(n) % 2).astype(np.int16)
    tokens = rng.integers(3, 40, (2, n))

    def scores(scale: float) -> Scores:
        end = base + moved * np.where(fold == 1, scale, 1.0)
        logps = np.stack([base, end], axis=1)
        return replace(scores_of(logps, np.zeros((n, 2)), *tokens), fold=fold)

    for name in ("aum", "gmm", "cl"):
        one, three = (BASELINES[name].suspicion(scores(scale)) for scale in (1.0, 3.0))
        np.testing.assert_allclose(three, one, atol=1e-6, err_msg=name)


def test_fuse_beats_its_parts_where_they_complete_each_other():
    rng = np.random.default_rng(5)
    n = 3000
    wrong = rng.random(n) < 0.2
    right = np.where(wrong, -1, 1)
    tokens = np.full(n, 10)
    base = right * rng.normal(0.8, 1, n)
    end = base + right * rng.normal(0.8, 1, n)
    scores = scores_of(np.stack([base, end], axis=1), np.zeros((n, 2)), tokens, tokens)
    rules = with_baselines(grouped=True)
    found = {name: roc_auc_score(wrong, rules[name].suspicion(scores)) for name in ("fuse", "irm", "base-ln")}
    assert found["fuse"] > max(found["irm"], found["base-ln"]) + 0.05


def test_fuse_does_not_follow_a_proxy_whose_margin_is_mere_length():
    rng = np.random.default_rng(8)
    n = 2000
    tokens = rng.integers(5, 60, (2, n))
    length = margins.length_terms(*tokens) @ [1.0, 2.0, 3.0]
    base = rng.normal(1, 1, n)
    scores = scores_of(np.stack([base, base + length], axis=1), np.zeros((n, 2)), *tokens)
    scores = replace(scores, of_probe=True)
    assert abs(np.corrcoef(BASELINES["fuse"].suspicion(scores), length)[0, 1]) < 0.3  # base per token has some
    assert abs(np.corrcoef(RULES["irm"].suspicion(scores), length)[0, 1]) > 0.99


def test_confident_learning_flags_what_cleanlab_flags():
    cleanlab = pytest.importorskip("cleanlab.filter")
    rng = np.random.default_rng(1)
    n = 600
    wrong = rng.random(n) < 0.2
    end = np.where(wrong, -1, 1) * rng.normal(2, 2, n)
    tokens = np.full(n, 10)
    scores = scores_of(np.stack([np.zeros(n), end], axis=1), np.zeros((n, 2)), tokens, tokens)
    p = confidence(scores)
    # both orientations of every pair, so that both classes are there: class 1 = the first answer is better
    labels = np.repeat([1, 0], n)
    first = np.concatenate([p, 1 - p])
    issues = cleanlab.find_label_issues(labels, np.stack([1 - first, first], axis=1), filter_by="confident_learning")
    np.testing.assert_array_equal(issues[:n], BASELINES["cl"].suspicion(scores) >= 0)
