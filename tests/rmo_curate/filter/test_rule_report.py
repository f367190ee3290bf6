"""`rmo-curate rules`: every rule of a run in 25 lines, and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from rmo_curate.evidence.posterior import Lack, Missing
from rmo_curate.evidence.wording import lengths_line
from rmo_curate.filter.rule_comparison import COMPARED, compare_rules
from rmo_curate.filter.rule_report import run_rules
from tests.command_line import curate
from tests.rmo_curate.evidence.made import weighed
from tests.rmo_curate.evidence.test_swapped_copies import simulated
from tests.rmo_curate.scored import score_demo


@pytest.fixture(scope="module")
def run(tiny_model_folder, tmp_path_factory):
    run = score_demo(tmp_path_factory.mktemp("rules"), tiny_model_folder, 48)
    assert curate("proxy", run, "--kind", "lora", "--batch-size", 8).code == 0
    return run


def test_every_rule_is_told_in_25_lines(run):
    done = curate("rules", run)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) <= 25
    assert lines[0] == (
        "48 scored pairs, last checkpoint oof-3; too few to tell how many of their labels are wrong, "
        "which needs at least 100 pairs and 20 prompts"
    )
    assert {line.split()[0] for line in lines if line.startswith("  ")} == set(COMPARED)


def test_rules_are_cut_where_as_many_pairs_go_as_labels_are_wrong(run):
    assert "at --high-q 0.95 " in curate("rules", run).out  # 48 pairs: too few to tell
    scores, _ = simulated(0.3)
    judged = replace(scores, posterior=weighed(scores, scores.groups))
    found = compare_rules(judged, "oof-9")
    assert found.high_q == pytest.approx(1 - found.noise_rate.value) and found.high_q < 0.8
    (flagged,) = {rule.flagged for rule in found.rules if rule.rule == "random"}
    assert flagged == round(found.noise_rate.value * found.pairs)


def test_rules_end_with_the_command_that_filters(run):
    following = curate("rules", run).out.splitlines()[-1]
    assert following == f"next: rmo-curate filter {run} --out {run}-shards"
    end = run_rules(run).comparison.end
    assert curate("rules", run, "--end", end).out.splitlines()[-1] == f"{following} --end {end}"
    assert "next" not in curate("rules", run, "--json").out


def test_the_json_has_what_the_lines_have(run):
    found = json.loads(curate("rules", run, "--json", "--high-q", 0.75).out)
    assert found["schema"] == 1 and found["pairs"] == 48 and found["high_q"] == 0.75
    by_rule = {row["rule"]: row for row in found["rules"]}
    assert by_rule["posterior"]["overlap"] == 1.0 and all(row["flagged"] <= 12 for row in found["rules"])
    assert found["sources"] == ["reference", "oof-3", "style", "answers"] and found["held_out"] is True
    assert found["noise_rate"] is None
    assert by_rule["random"]["flagged"] == 12 and by_rule["random"]["found"] is None
    assert 0 <= by_rule["irm"]["found"]["precision"]["value"] <= 1


def test_of_a_proxy_that_is_not_held_out_only_what_reads_it_is_told_without_estimates(make_run):
    folder = make_run({"base": [1.0, -2.0, 3.0, -1.0], "insample-4": [5.0, -6.0, 2.0, 4.0]})
    report = run_rules(folder)
    found = report.comparison
    told = {line.rule for line in found.rules if line.estimated is not None}
    assert told == {"posterior", "length"} and not found.held_out
    assert "insample-4" not in found.sources and found.missing[0] == Missing(Lack.NOT_HELD_OUT, checkpoint="insample-4")
    assert any(
        "insample-4 is not held out, so precision and recall are not estimated" in line for line in report.lines()
    )
    assert curate("rules", make_run({"base": [1.0, 2.0]}, name="alone")).refused("rmo-curate proxy", "--kind lora")


def test_estimates_of_simulated_scores_are_those_of_the_truth():
    scores, wrong = simulated(0.2)
    found = compare_rules(replace(scores, posterior=weighed(scores, scores.groups)), "oof-9", 0.9)
    by_rule = {line.rule: line for line in found.rules}
    assert found.noise_rate is not None and found.noise_rate.low <= wrong.mean() <= found.noise_rate.high
    for name in ("posterior", "irm"):
        line = by_rule[name]
        assert line.flagged == 900 and line.estimated is not None
        assert line.estimated.precision.value == pytest.approx(1.0, abs=0.05)
        assert line.estimated.recall.value == pytest.approx(900 / wrong.sum(), abs=0.05)
    assert "length does not decide here" in lengths_line(found.lengths)


def test_data_whose_longer_answers_win_are_told_so():
    scores, _ = simulated(0.2)
    longer = replace(
        scores,
        chosen_tokens=np.full(len(scores.chosen_tokens), 20),
        posterior=weighed(scores, scores.groups),
    )
    assert "the paper's rule follows length" in lengths_line(compare_rules(longer, "oof-9", 0.9).lengths)
