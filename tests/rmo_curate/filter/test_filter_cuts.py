"""How many pairs may go: a rate, a precision, a preset; and by whose scores."""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rmo_curate.evidence.rules import RULES
from rmo_curate.filter.decisions import decide, decide_scored, noisy_rule
from rmo_curate.filter.grounds import ground
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.filter.summary import summary
from rmo_curate.filter.wording import decision_lines
from rmo_curate.runs.run import Checkpoint, Scores, Trajectory, open_run
from rmo_train.console.errors import UserError
from tests.command_line import curate
from tests.manifests import manifest_of
from tests.rmo_curate.evidence.made import OOF, posterior_of
from tests.rmo_curate.evidence.test_swapped_copies import simulated
from tests.rmo_curate.filter.by_hand import D_0, D_T, reasons


def test_a_given_noise_rate_is_the_share_that_may_go(folder):
    run = open_run(folder)
    decided = decide(run, FilterSettings(rule="irm", low_q=0, noise_rate="0.1"))
    assert reasons(decided) == {"p2": "noisy", "p10": "too_long"}
    said = decision_lines(decided, summary(run, decided))
    assert any("--noise-rate 0.1" in line for line in said)
    assert not any("--high-q" in line for line in said)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--noise-rate", "0.2", "--high-q", 0.9), "--high-q and --noise-rate each set how many"),
        (("--noise-rate", "0.2", "--precision", 0.9), "--noise-rate and --precision each set how many"),
        (("--noise-rate", "much"), "expected auto, or a share of at least 0 and below 0.5"),
        (("--noise-rate", "0.6"), "expected auto, or a share of at least 0 and below 0.5"),
        (("--precision", "1.5"), "precision"),
        (("--preset", "paper", "--precision", 0.8), "--precision is also given"),
        (("--action", "weight", "--high-q", 0.9), "--action weight drops no noisy pairs"),
        (("--action", "auto", "--rule", "irm"), "--action auto weighs all evidence, so another --rule has no effect"),
        (("--action", "relabel"), "relabel"),
        (("--rule", "score"), "--rule score and --score-column NAME must be given together"),
        (("--rule", "irm", "--score-column", "judge"), "--rule score and --score-column NAME must be given together"),
        (("--score-column", "jude"), "no numeric column of that name, nor chosen_jude"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(folder, tmp_path, flags, said):
    assert curate("filter", folder, "--out", tmp_path / "o", *flags).refused(said)
    assert not (tmp_path / "o").exists()


def test_an_estimate_reads_no_margins_that_are_not_held_out(make_run):
    in_sample = open_run(make_run({"base": D_0, "insample-16": D_T}))
    alone = open_run(make_run({"base": D_0}, name="alone"))
    settings = FilterSettings(rule="posterior", low_q=0, precision=0.5)
    found, expected = (decide(run, settings) for run in (in_sample, alone))
    np.testing.assert_array_equal(found.suspicion, expected.suspicion)
    assert found.thresholds == expected.thresholds
    assert found.budget.pairs == expected.budget.pairs
    assert found.budget.noise_rate == expected.budget.noise_rate is not None
    assert any("--precision 0.5" in line for line in decision_lines(found, summary(in_sample, found)))


def test_of_few_pairs_none_is_dropped_by_an_estimate_unless_a_share_is_named(folder, tmp_path):
    done = curate("filter", folder, "--out", tmp_path / "out")
    assert done.code == 0 and "too few to estimate how many labels are wrong (that needs at least 100" in done.out
    assert manifest_of(tmp_path / "out")["counts"]["noisy"] == 0
    asked = curate("filter", folder, "--out", tmp_path / "asked", "--rule", "irm", "--noise-rate", "0.3")
    assert asked.code == 0 and manifest_of(tmp_path / "asked")["counts"]["noisy"] > 0


@pytest.mark.parametrize("cut", [{"high_q": 0}, {"noise_rate": "0.4"}], ids=str)
def test_a_pair_whose_evidence_supports_its_label_is_never_noisy(cut):
    scores, wrong = simulated(0.2)
    n = len(wrong)
    x = np.where(np.arange(n) % 10 == 0, -3.0, 1.0)  # log-odds log 4 - 3 < 0 of one pair in ten, else log 4 + 1
    scores = replace(scores, posterior=posterior_of(x, 0.2, 1.0))
    trajectory = Trajectory((Checkpoint("base", "base", None, None, None, None, 0.01), OOF), OOF)
    no = np.zeros(n, dtype=bool)
    decided = decide_scored(scores.ids, no, no, scores, trajectory, FilterSettings(low_q=0, **cut))
    assert decided.thresholds["noisy_budget"] > n // 10
    np.testing.assert_array_equal(decided.reason == "noisy", x < 0)
    assert (scores.posterior.right[decided.reason == "noisy"] < 0.5).all()


CUTS_OF_ALL = [{"high_q": 0.0}, {"high_q": 0.6}, {"noise_rate": "auto"}, {"noise_rate": "0.4"}, {"precision": 0.3}]


@hypothesis.settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(*[st.floats(-8, 8)] * 3), min_size=12, max_size=40),
    st.floats(0, 0.45),
    st.sampled_from([0.0, 0.3, 1.0, 5.0]),
    st.sampled_from(["posterior", "irm", "irm-ln", "rmo", "rmo-ln"]),
    st.sampled_from(CUTS_OF_ALL),
)
def test_no_pair_is_noisy_against_what_its_rule_weighs(pairs, rate, slope, rule, cut):
    base, end, x = np.array(pairs).T
    assume(np.ptp(end - base) > 1e-3 and np.ptp(np.minimum(-base, base - end)) > 1e-3)
    n, settings = len(x), FilterSettings(rule=rule, **cut)
    logp = np.stack([base, end], axis=1)
    scores = Scores(
        names=("base", "oof-9"),
        chosen_logp=logp,
        rejected_logp=np.zeros((n, 2)),
        chosen_tokens=np.full(n, 2),
        rejected_tokens=np.full(n, 2),
        held_out=np.full(n, True),
        ids=pa.array([f"p{i}" for i in range(n)]),
        posterior=posterior_of(x, max(rate, 0.01), slope) if settings.weighs_evidence else None,
    )
    no = np.zeros(n, dtype=bool)
    trajectory = Trajectory((Checkpoint("base", "base", None, None, None, None, 0.01), OOF), OOF)
    decided = decide_scored(scores.ids, no, no, scores, trajectory, settings)
    noisy = np.flatnonzero(decided.reason == "noisy")
    assert (decided.suspicion[noisy] > 0).all() and len(noisy) <= decided.budget.pairs
    if settings.weighs_evidence:
        assert (scores.posterior.right[noisy] < 0.5).all()
    for pair in range(n):
        because = ground(decided, pair)
        assert (because is not None) == (pair in noisy)
        if because:
            assert because.suspicion >= because.threshold > 0
            assert (because.right is not None) == settings.weighs_evidence
            odds = sum(part.log_odds for part in because.reasons)
            assert because.right is None or because.right == pytest.approx(1 / (1 + np.exp(-odds)))


@pytest.mark.parametrize("preset", ["paper", "authors-code"])
def test_the_presets_stay_as_published(preset):
    rule = noisy_rule(FilterSettings(preset=preset))
    assert rule is RULES["rmo"] and not rule.spares_supported
    assert noisy_rule(FilterSettings(rule="irm", high_q=0.9)) is RULES["irm"]
    assert noisy_rule(FilterSettings(rule="irm")).spares_supported
    for control in ("random", "length"):
        assert noisy_rule(FilterSettings(rule=control)) is RULES[control]


# ---------------------------------------------------------------------------------------------------- other scores


def test_a_judges_margin_and_a_couple_of_scores_rank_pairs_without_a_proxy(folder):
    judged = decide(open_run(folder), FilterSettings(low_q=0, high_q=0.8, score_column="judge"))
    assert reasons(judged) == {"p2": "noisy", "p10": "too_long"}  # the only margin below 0
    scored = decide(open_run(folder), FilterSettings(low_q=0, high_q=0.8, score_column="score"))
    assert reasons(scored) == {"p0": "noisy", "p1": "noisy", "p10": "too_long"}  # 0 - 5, 1 - 5
    with pytest.raises(UserError, match="numeric columns are chosen_score, rejected_score, judge"):
        decide(open_run(folder), FilterSettings(score_column="reward"))


def test_the_papers_rule_is_warned_of_where_lengths_mislead_it(make_run, tmp_path):
    rows = [{"chosen_tokens": 9, "rejected_tokens": 4}] * 8
    margins = {"base": [-5.0] * 8, "oof-8": [-5.0 - i for i in range(8)]}
    run = make_run(margins, rows=rows)
    done = curate("filter", run, "--out", tmp_path / "a", "--preset", "paper")
    assert done.code == 0 and "warning: the chosen answer is the longer one in 100%" in done.out
    done = curate("filter", run, "--out", tmp_path / "b")
    assert "the chosen answer is the longer one" not in done.out  # the rule of all evidence is not misled
    done = curate("filter", make_run(margins, name="like"), "--out", tmp_path / "c", "--preset", "paper")
    assert "length does not decide here" in done.out
