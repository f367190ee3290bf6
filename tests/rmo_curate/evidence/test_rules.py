import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmo_curate.evidence.rules import RULES, check_proxy, get_rule, suspicion
from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores, Trajectory, open_run
from rmo_train.console.errors import UserError
from tests.rmo_curate.evidence.made import posterior_of


def scores_of(chosen, rejected, chosen_tokens, rejected_tokens) -> Scores:
    n, m = np.shape(chosen)
    names = ("base", *(f"oof-{i}" for i in range(1, m)))
    logps = np.array([chosen, rejected], dtype=float)
    tokens = np.asarray(chosen_tokens), np.asarray(rejected_tokens)
    return Scores(
        names, logps[0], logps[1], *tokens, np.full(n, None),
        ids=pa.array([f"p{i}" for i in range(n)]), groups=np.arange(n), external=np.arange(n) - 1.5,
        posterior=posterior_of(2.5 * np.arange(n) - 1, 0.2, 2.0),
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
        ("posterior", [2 - np.log(4), -3 - np.log(4)]),  # 20% wrong: log-odds log 4 + 2 x, x = -1 and 1.5
        ("irm", [4, -6]),
        ("irm-ln", [1.5, -4]),
        ("rmo", [2, -6]),  # min(2, 4); min(-3, -6)
        ("rmo-ln", [1.5, -7]),  # min(3, 1.5); min(-7, -4)
        ("score", [1.5, 0.5]),
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
    for name in ("irm", "irm-ln", "length", "score"):
        s = RULES[name].suspicion(scores)
        np.testing.assert_allclose(RULES[name].suspicion_of_swapped(scores), -s, atol=1e-9, err_msg=name)


@given(many)
def test_a_swapped_pair_has_the_mirrored_evidence_and_the_same_prior(scores):
    rule, prior = RULES["posterior"], scores.posterior.noise.prior
    both = rule.suspicion_of_swapped(scores) + rule.suspicion(scores)
    np.testing.assert_allclose(both, np.full(len(both), -2 * prior), atol=1e-12)
    np.testing.assert_array_equal(rule.suspicion_of_swapped(scores), rule.suspicion(margins.swapped(scores)))


def test_terms_of_length_change_sign_under_a_swap_and_are_of_unit_size():
    terms = margins.length_terms(np.array([5, 2, 4]), np.array([1, 4, 4]))
    np.testing.assert_allclose(np.sign(terms), [[1, 1, 1], [-1, -1, -1], [0, 0, 0]])
    np.testing.assert_allclose((terms**2).mean(0), 1)
    np.testing.assert_allclose(terms[:, 1] / terms[0, 1], [1, -0.5, 0])
    np.testing.assert_allclose(margins.length_terms(np.array([1, 4, 4]), np.array([5, 2, 4])), -terms)
    assert not margins.length_terms(np.array([3, 3]), np.array([3, 3])).any()


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


def test_the_rules_are_these_and_some_need_no_proxy():
    assert list(RULES) == ["posterior", "irm", "irm-ln", "rmo", "rmo-ln", "score", "length", "random", "none"]
    assert all(rule.name == name for name, rule in RULES.items())
    alone = [name for name, rule in RULES.items() if not rule.needs_proxy]
    assert alone == ["posterior", "score", "length", "random", "none"]


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
