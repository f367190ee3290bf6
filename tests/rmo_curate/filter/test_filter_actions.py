"""What `rmo-curate filter` does beside dropping: flip, weigh, protect, obey a reviewer, cut by rate or precision."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rmo_curate.evidence.gather import with_posterior
from rmo_curate.evidence.label_noise import LabelNoise
from rmo_curate.evidence.rules import RULES
from rmo_curate.filter.decisions import Overrides, decide, decide_scored, noisy_rule, resolved
from rmo_curate.filter.grounds import ground
from rmo_curate.filter.reviews import SCHEMA
from rmo_curate.filter.settings import FilterSettings, flags_of
from rmo_curate.filter.slices import SliceRemoval
from rmo_curate.filter.summary import summary
from rmo_curate.filter.wording import decision_lines
from rmo_curate.runs.run import Checkpoint, Scores, Trajectory, open_run
from rmo_train.console.errors import UserError
from rmo_train.store import tables
from tests.command_line import curate
from tests.manifests import manifest_of, parts_of
from tests.rmo_curate.evidence.made import OOF, posterior_of, weighed
from tests.rmo_curate.evidence.test_swapped_copies import simulated

# As in test_filter_command: with low_q 0.25, high_q 0.8 and a hard cut p2, p3 are noisy and p4, p5 ambiguous.
D_0 = [1.0, 2.0, -1.0, 3.0, -2.0, 0.0, 1.0, -4.0, 2.0, 1.0, 0.0]
D_T = [9.0, 8.0, -5.0, 1.0, -3.0, 0.5, 6.0, -1.0, 9.0, 5.0, 0.0]
CUT = {"rule": "irm", "low_q": 0.25, "high_q": 0.8, "hard": True}
FLAGS = ("--rule", "irm", "--low-q", 0.25, "--high-q", 0.8, "--hard")


@pytest.fixture
def folder(make_run) -> Path:
    extra = {
        "source": ["math", "chat"] * 5 + ["math"],
        "chosen_score": [float(i) for i in range(11)],
        "rejected_score": [5.0] * 11,
        "judge": [3, 2, -1, 0, 1, 2, 3, 4, 5, 6, 7],
    }
    rows = [{"chosen": f"yes {i}", "rejected": f"no {i}", "chosen_tokens": 3, "rejected_tokens": 2} for i in range(11)]
    return make_run({"base": D_0, "oof-16": D_T}, rows=rows, too_long=[10], extra=extra)


def decisions_file(path: Path, **actions: str) -> Path:
    rows = [{"id": i, "action": action} for i, action in actions.items()]
    path.write_text(json.dumps({"schema": SCHEMA, "decisions": rows}))
    return path


def reasons(decided) -> dict[str, str]:
    return {i: r for i, r in zip(decided.ids.to_pylist(), decided.reason, strict=True) if r is not None}


def kept_rows(out: Path) -> dict[str, dict]:
    manifest = manifest_of(out)
    assert manifest is not None
    rows = {row["id"]: row for part in tables.iter_parts(out, parts_of(out)) for row in part.to_pylist()}
    assert manifest["counts"]["pairs"] == len(rows) + sum(p["rows"] for p in manifest["dropped"]["parts"])
    return rows


def text(messages: list[dict]) -> str:
    return messages[-1]["content"]


# ---------------------------------------------------------------------------------------------------- actions


def test_a_flipped_pair_is_the_pair_the_other_way_round_in_every_column(folder, tmp_path):
    done = curate("filter", folder, "--out", tmp_path / "out", *FLAGS, "--action", "flip")
    assert done.code == 0 and "flipped (chosen and rejected exchanged): 2 of the kept pairs" in done.out
    rows = kept_rows(tmp_path / "out")
    plain = kept_rows_of_plain(folder, tmp_path)
    flipped, as_given = rows["p2"], rows["p0"]
    assert text(flipped["chosen"]) == "no 2" and text(flipped["rejected"]) == "yes 2"
    assert (flipped["chosen_tokens"], flipped["rejected_tokens"]) == (2, 3)
    assert (flipped["chosen_score"], flipped["rejected_score"]) == (5.0, 2.0)
    assert flipped["margins"] == [1.0, 5.0] and flipped["flags"] == ["flipped"]
    assert flipped["ref_chosen_logps"] - flipped["ref_rejected_logps"] == 1.0
    assert flipped["suspicion"] == 4.0  # of the pair as it was given
    assert as_given == plain["p0"]
    assert set(rows) == {"p0", "p1", "p2", "p3", "p6", "p7", "p8", "p9"}


def kept_rows_of_plain(folder: Path, tmp_path: Path) -> dict[str, dict]:
    assert curate("filter", folder, "--out", tmp_path / "plain", *FLAGS).code == 0
    return kept_rows(tmp_path / "plain")


@pytest.mark.parametrize(("action", "column"), [("weight", "weight"), ("soft-label", "label_confidence")])
def test_weights_and_soft_labels_are_the_probability_of_a_right_label(folder, tmp_path, action, column):
    done = curate("filter", folder, "--out", tmp_path / "out", "--low-q", 0, "--action", action)
    assert done.code == 0 and f"`{column}` is the probability that a pair's label is right" in done.out
    rows = kept_rows(tmp_path / "out")
    assert set(rows) == {f"p{i}" for i in range(10)}  # none but the one that is too long is dropped
    run = open_run(folder)
    posterior = with_posterior(run, run.scores(run.trajectory())).posterior
    assert posterior is not None and np.ptp(posterior.right) > 0
    np.testing.assert_allclose([rows[f"p{i}"][column] for i in range(10)], posterior.right[:10], rtol=1e-6)
    np.testing.assert_allclose([rows[f"p{i}"]["label_confidence"] for i in range(10)], posterior.right[:10], rtol=1e-6)
    assert ({row["weight"] for row in rows.values()} == {1.0}) == (action == "soft-label")
    assert manifest_of(tmp_path / "out")["soft_labels"] == (action == "soft-label")


def test_a_pair_keeps_its_confidence_and_a_flipped_one_has_that_of_its_new_label():
    scores, wrong = simulated(0.3)
    no = np.zeros(len(wrong), dtype=bool)
    scores = replace(scores, posterior=weighed(scores, scores.groups))
    trajectory = Trajectory((Checkpoint("base", "base", None, None, None, None, 0.01), OOF), OOF)
    right = scores.posterior.right
    for action in ("drop", "flip"):
        settings = FilterSettings(low_q=0, action=action, noise_rate="auto")
        found = decide_scored(scores.ids, no, no, scores, trajectory, settings)
        assert found.flipped.any() == (action == "flip") and not found.softens
        np.testing.assert_array_equal(found.label_confidence, np.where(found.flipped, 1 - right, right))


def test_a_reviewers_word_is_certain(folder, tmp_path):
    review = decisions_file(tmp_path / "review.json", p2="flip", p3="keep")
    done = curate("filter", folder, "--out", tmp_path / "out", "--action", "soft-label", "--decisions", review)
    assert done.code == 0, done.err
    certain = {i for i, row in kept_rows(tmp_path / "out").items() if row["label_confidence"] == 1.0}
    assert certain == {"p2", "p3"}


def test_without_evidence_no_label_is_doubted(folder, tmp_path):
    assert curate("filter", folder, "--out", tmp_path / "out", "--rule", "irm", "--high-q", 0.95).code == 0
    assert {row["label_confidence"] for row in kept_rows(tmp_path / "out").values()} == {1.0}


def test_auto_takes_what_makes_labels_worth_most_and_says_so(folder, tmp_path):
    done = curate("filter", folder, "--out", tmp_path / "out", "--action", "auto")
    assert done.code == 0 and "--action soft-label, so none is dropped" in done.out
    assert [line.split(":")[0] for line in done.out.splitlines() if " clean pairs" in line] == [
        "--action drop", "--action weight", "--action soft-label",
    ]  # fmt: skip
    manifest = manifest_of(tmp_path / "out")
    assert manifest["action"] == "soft-label" and manifest["settings"]["action"] == "auto"
    assert "--action auto" in (tmp_path / "out" / "README.md").read_text()
    assert "--high-q" not in (tmp_path / "out" / "README.md").read_text()
    assert curate("filter", folder, "--out", tmp_path / "out", "--action", "auto").out.count("already done") == 1
    refused = curate("filter", folder, "--out", tmp_path / "o", "--action", "auto", "--high-q", 0.9)
    assert refused.refused("--action auto chooses its own cut, so --high-q has no effect")


def test_auto_leaves_labels_alone_that_nothing_speaks_against():
    scores, _ = simulated(0.0)
    sure = replace(weighed(scores, scores.groups), noise=LabelNoise(0.001, 1.0))
    settings = resolved(FilterSettings(action="auto"), replace(scores, posterior=sure))
    assert (settings.action, settings.high_q) == ("drop", 1.0)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"noise_rate": "auto", "low_q": 0.0},
        {"precision": 0.8},
        {"action": "auto"},
        {"action": "weight"},
        {"preset": "paper"},
        {"protect": ("source=math", "source=chat"), "hard": True},
    ],
    ids=str,
)
def test_the_flags_that_say_settings_are_taken_and_mean_the_same(folder, tmp_path, asked):
    settings = FilterSettings(**asked)
    flags = shlex.split(" ".join(flags_of(settings.model_dump())))
    assert curate("filter", folder, "--out", tmp_path / "out", *flags).code == 0
    found = manifest_of(tmp_path / "out")["settings"]
    assert found == settings.model_dump(mode="json")


# ---------------------------------------------------------------------------------------------------- slices


def test_a_protected_slice_loses_nothing_for_its_margins_and_removal_is_told_by_slice(folder):
    run = open_run(folder)
    decided = decide(run, FilterSettings(**CUT, protect=("source=math",)))
    assert reasons(decided) == {"p3": "noisy", "p5": "ambiguous", "p10": "too_long"}
    found = summary(run, decided)
    assert found.protected == 6 and found.flipped == 0 and not found.reviewed
    assert found.removal[0].worst == (SliceRemoval("chat", 0.4, 5), SliceRemoval("math", 0.0, 5))  # of the scored pairs
    said = decision_lines(decided, found)
    assert "protected: 6 pairs (source=math)" in said
    assert "removed by source: chat 40% of 5, math 0% of 5" in said


def test_a_protected_pair_is_not_flipped_and_not_weighed(folder):
    flipped = decide(open_run(folder), FilterSettings(**CUT, action="flip", protect=("source=math",))).flipped
    assert np.flatnonzero(flipped).tolist() == [3]
    scores, wrong = simulated(0.3)
    n = len(wrong)
    scores = replace(scores, posterior=weighed(scores, scores.groups))
    trajectory = Trajectory((Checkpoint("base", "base", None, None, None, None, 0.01), OOF), OOF)
    overrides = Overrides(np.arange(n) % 2 == 0, np.zeros(n, dtype=np.int8))
    no = np.zeros(n, dtype=bool)
    settings = FilterSettings(low_q=0, action="weight", protect=("source=math",))
    weight = decide_scored(scores.ids, no, no, scores, trajectory, settings, overrides).weight
    assert set(weight[::2]) == {1.0}
    assert weight[1::2][wrong[1::2]].mean() < 0.2 < 0.9 < weight[1::2][~wrong[1::2]].mean()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("source", "expected COLUMN=VALUE"),
        (
            "sorce=math",
            "no column 'sorce' in the data; its own columns are source, chosen_score, rejected_score, judge",
        ),
        ("source=maths", "no pair has it; the values of 'source' are chat, math; did you mean 'math'"),
    ],
)
def test_a_slice_that_is_not_there_is_refused(folder, tmp_path, given, said):
    assert curate("filter", folder, "--out", tmp_path / "o", "--protect", given).refused(f"--protect {given}", said)
    assert not (tmp_path / "o").exists()


# ---------------------------------------------------------------------------------------------------- reviewers


def test_a_reviewer_is_obeyed_before_anything_else(folder, tmp_path):
    file = decisions_file(tmp_path / "d.json", p2="keep", p3="flip", p0="drop", p4="drop", p10="keep", p1="flip")
    done = curate("filter", folder, "--out", tmp_path / "out", *FLAGS, "--decisions", file)
    assert done.code == 0
    assert "reviewed: 2 keep, 2 drop, 2 flip" in done.out
    assert "dropped, though kept by a reviewer: 1 pair too long to be scored" in done.out
    rows = kept_rows(tmp_path / "out")
    assert set(rows) == {"p1", "p2", "p3", "p6", "p7", "p8", "p9"}
    assert text(rows["p3"]["chosen"]) == "no 3" and text(rows["p1"]["chosen"]) == "no 1"
    assert text(rows["p2"]["chosen"]) == "yes 2"
    manifest = manifest_of(tmp_path / "out")
    assert manifest["counts"]["decision"] == 2 and manifest["counts"]["too_long"] == 1 and manifest["flipped"] == 2


def test_another_decisions_file_makes_other_shards(folder, tmp_path):
    out = ("--out", tmp_path / "out", *FLAGS, "--decisions")
    assert curate("filter", folder, *out, decisions_file(tmp_path / "d.json", p0="drop")).code == 0
    again = curate("filter", folder, *out, tmp_path / "d.json")
    assert again.code == 0 and "already done" in again.out
    decisions_file(tmp_path / "d.json", p1="drop")
    assert curate("filter", folder, *out, tmp_path / "d.json").refused("decisions")


def file_of(*rows: str) -> str:
    return f'{{"schema": "{SCHEMA}", "decisions": [{", ".join(rows)}]}}'


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ('{"decisions": []}', 'not a decisions file; expected {"schema"'),
        (
            file_of('{"action": "keep"}'),
            "decision 1: {'action': 'keep'} has no id",
        ),
        (file_of('{"id": "p1", "action": "swap"}'), "action 'swap' of 'p1'"),
        (
            file_of('{"id": "p1", "action": "keep"}', '{"id": "p1", "action": "drop"}'),
            "decision 2: 'p1' has two decisions, keep and drop",
        ),
        (
            file_of('{"id": "p11", "action": "keep"}'),
            "1 of its 1 ids are not in the run, the first 'p11'",
        ),
    ],
)
def test_a_decisions_file_that_cannot_be_obeyed_is_refused(folder, tmp_path, content, said):
    (tmp_path / "d.json").write_text(content)
    assert curate("filter", folder, "--out", tmp_path / "o", "--decisions", tmp_path / "d.json").refused(said)
    assert curate("filter", folder, "--out", tmp_path / "o", "--decisions", tmp_path / "no").refused("no such file")
    assert not (tmp_path / "o").exists()


# ---------------------------------------------------------------------------------------------------- cuts


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
    assert done.code == 0 and "too few to estimate how many labels are wrong, so none is dropped" in done.out
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
    assert "the chosen answer is the longer one in 100%" in done.out and "warning: the chosen" not in done.out
    done = curate("filter", make_run(margins, name="like"), "--out", tmp_path / "c", "--preset", "paper")
    assert "length does not decide here" in done.out
