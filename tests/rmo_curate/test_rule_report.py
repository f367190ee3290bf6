"""`rmo-curate rules`: every rule of a run in 25 lines, and as JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rmo_curate.noise_rate import Resampled

from rmo_curate.rule_report import COMPARED, report, run_rules
from tests.command_line import curate
from tests.rmo_curate.scored import score_demo
from tests.rmo_curate.test_canaries import simulated


@pytest.fixture(scope="module")
def run(tiny_model_folder, tmp_path_factory):
    run = score_demo(tmp_path_factory.mktemp("rules"), tiny_model_folder, 48)
    assert curate("proxy", run, "--folds", 2, "--batch-size", 8).code == 0
    return run


def test_every_rule_is_told_in_25_lines(run):
    done = curate("rules", run)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) <= 25 and "estimated noise rate" in lines[0]
    assert {line.split()[0] for line in lines if line.startswith("  ")} == set(COMPARED)


def test_the_json_has_what_the_lines_have(run):
    found = json.loads(curate("rules", run, "--json", "--high-q", 0.75).out)
    assert found["schema"] == 1 and found["pairs"] == 48 and found["high_q"] == 0.75
    by_rule = {row["rule"]: row for row in found["rules"]}
    assert by_rule["irm"]["overlap"] == 1.0 and by_rule["irm"]["flagged"] <= 12
    assert by_rule["random"]["flagged"] == 12 and by_rule["random"]["found"] is None
    assert 0 <= by_rule["irm"]["found"]["precision"]["value"] <= 1


def test_a_run_without_held_out_scores_is_told_without_estimates(make_run):
    folder = make_run({"base": [1.0, -2.0, 3.0, -1.0], "insample-4": [5.0, -6.0, 2.0, 4.0]})
    found = run_rules(folder)
    assert found.noise_rate is None and found.check is None and all(line.found is None for line in found.rules)
    assert any("no estimates: " in line and "rmo-curate probe" in line for line in found.lines())
    assert curate("rules", make_run({"base": [1.0, 2.0]}, name="alone")).refused("rmo-curate probe", "rmo-curate proxy")


def test_estimates_of_simulated_scores_are_those_of_the_truth():
    scores, wrong = simulated(0.2)
    found = report(scores, "oof-9", Resampled(scores, draws=40), 0.9)
    irm = found.rules[0]
    assert irm.flagged == 900
    assert irm.found is not None and irm.found.precision.value == pytest.approx(1.0, abs=0.05)
    assert irm.found.recall.value == pytest.approx(900 / wrong.sum(), abs=0.05)
    assert "of like length" in found.lengths.line()


def test_data_whose_longer_answers_win_are_told_so():
    scores, _ = simulated(0.2)
    longer = scores.__class__(**{**vars(scores), "chosen_tokens": np.full(len(scores.chosen_tokens), 20)})
    found = report(longer, "oof-9", None, 0.9, "none")
    assert "the paper's rule follows length" in found.lengths.line()
