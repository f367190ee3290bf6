from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from rmo_curate import margins
from rmo_curate.rules import RULES, check_proxy, get_rule, suspicion
from rmo_curate.rules.fitted import fit_logistic, scaled_irm
from rmo_curate.runs import Scores, Trajectory, open_run
from rmo_train.errors import UserError


def scores_of(chosen, rejected, chosen_tokens, rejected_tokens) -> Scores:
    n, m = np.shape(chosen)
    names = ("base", *(f"oof-{i}" for i in range(1, m)))
    logps = np.array([chosen, rejected], dtype=float)
    tokens = np.asarray(chosen_tokens), np.asarray(rejected_tokens)
    return Scores(
        names, logps[0], logps[1], *tokens, np.full(n, None),
        ids=pa.array([f"p{i}" for i in range(n)]), groups=np.arange(n), external=np.arange(n) - 1.5,
    )  # fmt: skip


nats = st.floats(-300, 0, allow_nan=False).map(lambda x: round(x, 3))
tokens = st.integers(1, 50)
pair = st.tuples(st.tuples(nats, nats, nats), st.tuples(nats, nats, nats), tokens, tokens)
many = st.lists(pair, min_size=2, max_size=8).map(lambda rows: scores_of(*zip(*rows, strict=True)))

# Two pairs, base and T. Pair 0: D_0 = -10+8 = -2, D_T = -12+6 = -6; per token -5+2 = -3, -6+1.5 = -4.5.
# Pair 1: D_0 = -6+9 = 3, D_T = -3+12 = 9; per token -2+9 = 7, -1+12 = 11.
HAND = scores_of([[-10, -12], [-6, -3]], [[-8, -6], [-9, -12]], [2, 3], [4, 1])


def test_margins_by_hand():
    assert margins.logp(HAND).tolist() == [-6, 9]
    assert margins.logp(HAND, 0).tolist() == [-2, 3]
    assert margins.reward(HAND).tolist() == [-4, 6]
    assert margins.reward(HAND, 0).tolist() == [0, 0]
    assert margins.mean_logp(HAND).tolist() == [-4.5, 11]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("irm", [4, -6]),
        ("irm-ln", [1.5, -4]),
        ("rmo", [2, -6]),  # min(2, 4); min(-3, -6)
        ("rmo-ln", [1.5, -7]),  # min(3, 1.5); min(-7, -4)
        # |D| at most 6 and 9 nats: 10 - 6 = 4 > 2, 10 - 9 = 1 > -6
        ("authors-code", [4, 1]),
        ("base-ln", [3, -7]),
        ("ppldiff", [4.5, -11]),
        ("loss", [np.log((1 + np.exp(0.4)) / 2), np.log((1 + np.exp(-0.6)) / 2)]),
        ("aum", [4 / (1.4826 * 5), -6 / (1.4826 * 5)]),  # the median of |reward| is 5
        ("cartography", [0.5 - 1 / (1 + np.exp(0.4)), 0.5 - 1 / (1 + np.exp(-0.6))]),
        ("length", [2, -2]),
        ("none", [np.nan, np.nan]),
    ],
)
def test_rules_by_hand(name, expected):
    np.testing.assert_allclose(get_rule(name).suspicion(HAND), expected, rtol=1e-12)


@given(many)
def test_swapping_every_pair_negates_every_margin_and_irm(scores):
    swapped = margins.swapped(scores)
    for margin in margins.MARGINS.values():
        np.testing.assert_array_equal(margin(swapped), -margin(scores))
    for name in ("irm", "irm-ln", "base-ln", "ppldiff", "aum", "cartography", "fuse", "fuse+length", "length", "score"):
        s = RULES[name].suspicion(scores)
        np.testing.assert_allclose(RULES[name].suspicion_of_swapped(scores), -s, atol=1e-9, err_msg=name)
    # P(wrong) of a pair and of its copy add up to 1 where both priors are even; a loss differs by its mean margin
    loss = RULES["loss"]
    np.testing.assert_allclose(
        loss.suspicion(swapped), loss.suspicion(scores) + 0.1 * margins.reward(scores), atol=1e-9
    )


@given(many)
def test_fitted_rules_order_pairs_as_irm_on_one_scale_does(scores):
    margin = scaled_irm(scores)
    order = np.argsort(margin, kind="stable")
    for name in ("gmm", "cl"):
        assert (np.diff(RULES[name].suspicion(scores)[order]) <= 1e-9).all(), name
    assert (np.diff(RULES["loss"].suspicion(scores)[np.argsort(margins.reward(scores), kind="stable")]) <= 1e-12).all()


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
        one, three = (RULES[name].suspicion(scores(scale)) for scale in (1.0, 3.0))
        np.testing.assert_allclose(three, one, atol=1e-6, err_msg=name)


def test_a_combination_learned_on_canaries_beats_its_parts_where_they_complete_each_other():
    rng = np.random.default_rng(5)
    n = 3000
    wrong = rng.random(n) < 0.2
    right = np.where(wrong, -1, 1)
    tokens = np.full(n, 10)
    base = right * rng.normal(0.8, 1, n)
    end = base + right * rng.normal(0.8, 1, n)
    scores = scores_of(np.stack([base, end], axis=1), np.zeros((n, 2)), tokens, tokens)
    found = {name: roc_auc_score(wrong, RULES[name].suspicion(scores)) for name in ("fuse", "irm", "base-ln")}
    assert found["fuse"] > max(found["irm"], found["base-ln"]) + 0.05


def test_terms_of_length_change_sign_under_a_swap_and_are_of_unit_size():
    terms = margins.length_terms(np.array([5, 2, 4]), np.array([1, 4, 4]))
    np.testing.assert_allclose(np.sign(terms), [[1, 1, 1], [-1, -1, -1], [0, 0, 0]])
    np.testing.assert_allclose((terms**2).mean(0), 1)
    np.testing.assert_allclose(terms[:, 1] / terms[0, 1], [1, -0.5, 0])
    np.testing.assert_allclose(margins.length_terms(np.array([1, 4, 4]), np.array([5, 2, 4])), -terms)
    assert not margins.length_terms(np.array([3, 3]), np.array([3, 3])).any()


def test_fuse_is_not_misled_by_flips_that_favour_the_longer_answer():
    rng = np.random.default_rng(7)
    n = 4000
    longer = rng.choice([-1, 1], n)
    wrong = (longer < 0) & (rng.random(n) < 0.5)
    right = np.where(wrong, -1, 1)
    tokens = np.full(n, 20)
    chosen_tokens = tokens + 5 * longer * right
    end = right * (rng.normal(1, 1, n) + 0.5 * longer)  # the proxy has learned some of the length
    base = -right * longer * 3.0 + rng.normal(0, 1, n)  # sums fall with length
    logps = np.stack([base, base + end], axis=1)
    scores = scores_of(logps, np.zeros((n, 2)), chosen_tokens, tokens)
    found = {name: roc_auc_score(wrong, RULES[name].suspicion(scores)) for name in ("fuse", "fuse+length")}
    assert found["fuse"] > found["fuse+length"] + 0.05


def test_fuse_does_not_follow_a_proxy_whose_margin_is_mere_length():
    rng = np.random.default_rng(8)
    n = 2000
    tokens = rng.integers(5, 60, (2, n))
    length = margins.length_terms(*tokens) @ [1.0, 2.0, 3.0]
    base = rng.normal(1, 1, n)
    scores = scores_of(np.stack([base, base + length], axis=1), np.zeros((n, 2)), *tokens)
    scores = replace(scores, of_probe=True)
    assert abs(np.corrcoef(RULES["fuse"].suspicion(scores), length)[0, 1]) < 0.3  # base per token has some
    assert abs(np.corrcoef(RULES["irm"].suspicion(scores), length)[0, 1]) > 0.99


def test_the_loss_averages_over_proxies_of_other_seeds():
    other = replace(HAND, chosen_logp=HAND.chosen_logp + np.array([[0, 8], [0, 0]]))
    alone = [RULES["loss"].suspicion(s) for s in (HAND, other)]
    np.testing.assert_allclose(RULES["loss"].suspicion(replace(HAND, others=(other,))), np.mean(alone, axis=0))


def test_confident_learning_flags_what_cleanlab_flags():
    cleanlab = pytest.importorskip("cleanlab.filter")
    rng = np.random.default_rng(1)
    n = 600
    wrong = rng.random(n) < 0.2
    end = np.where(wrong, -1, 1) * rng.normal(2, 2, n)
    tokens = np.full(n, 10)
    scores = scores_of(np.stack([np.zeros(n), end], axis=1), np.zeros((n, 2)), tokens, tokens)
    s = RULES["cl"].suspicion(scores)
    x = scaled_irm(scores)
    p = 1 / (1 + np.exp(-x * fit_logistic(x[:, None])[0]))
    # both orientations of every pair, so that both classes are there: class 1 = the first answer is better
    labels = np.repeat([1, 0], n)
    first = np.concatenate([p, 1 - p])
    issues = cleanlab.find_label_issues(labels, np.stack([1 - first, first], axis=1), filter_by="confident_learning")
    np.testing.assert_array_equal(issues[:n], s >= 0)


@given(many)
def test_rmo_is_positive_exactly_where_the_papers_rule_fires(scores):
    base, end = margins.logp(scores, 0), margins.logp(scores)
    np.testing.assert_array_equal(RULES["rmo"].suspicion(scores) > 0, (base < 0) & (end < base))
    # at most one of a pair and its swap is suspect
    assert not ((RULES["rmo"].suspicion(scores) > 0) & (RULES["rmo"].suspicion(margins.swapped(scores)) > 0)).any()


@given(many)
def test_a_pair_without_scores_has_no_suspicion(scores):
    scores.chosen_logp[0], scores.rejected_logp[0] = np.nan, np.nan
    for rule in RULES.values():
        assert np.isnan(rule.suspicion(scores)[0])


def test_every_rule_says_what_it_is_and_where_it_is_from():
    for name, rule in RULES.items():
        assert rule.name == name and rule.description and rule.source
    assert [rule.name for rule in RULES.values() if not rule.needs_proxy] == [
        "base-ln",
        "score",
        "length",
        "random",
        "none",
    ]


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(UserError, match=r"--rule irmm.*did you mean 'irm'"):
        get_rule("irmm")


@pytest.mark.parametrize("name", ["irm", "irm-ln"])
def test_a_rule_refuses_a_proxy_that_is_the_base(name):
    same = scores_of([[-10, -10], [-6, -6]], [[-8, -8], [-9, -9]], [2, 3], [4, 1])
    with pytest.raises(UserError, match=rf"--rule {name}: all 2 pairs get the same suspicion.*'oof-1' the same model"):
        suspicion(RULES[name], same)
    assert np.isnan(suspicion(RULES["none"], same)).all()


def test_a_rule_that_needs_a_proxy_names_the_command_on_a_run_without_one(make_run):
    run = open_run(make_run({"base": [1.0, 2.0]}))
    trajectory = run.trajectory()
    assert trajectory == Trajectory(run.checkpoints[:1], None)
    with pytest.raises(UserError, match=rf"rmo-curate proxy {run.folder}"):
        check_proxy(RULES["irm"], run, trajectory)
    check_proxy(RULES["none"], run, trajectory)
