"""What `filter` says that its cut catches, against the truth of simulated pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rmo_curate.evidence.gather import JudgedLabels
from rmo_curate.evidence.label_noise import Judgeable
from rmo_curate.evidence.swapped_copies import Detection
from rmo_curate.filter.budget import noisy_budget
from rmo_curate.filter.caught import caught, suspicion_of_swapped
from rmo_curate.filter.decisions import Decisions, decide_scored, noisy_rule
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.filter.summary import caught_at_cut
from rmo_curate.filter.wording import caught_lines, noisy_lines
from rmo_curate.runs.run import Checkpoint, Scores, Trajectory
from rmo_train.evaluation.metrics import Interval
from tests.rmo_curate.evidence.made import OOF, posterior_of, weighed
from tests.rmo_curate.evidence.test_swapped_copies import simulated

BASE = Checkpoint("base", "base", None, None, None, None, 0.01)
AUTO = FilterSettings.model_validate({"rule": "irm", "noise_rate": "auto", "low_q": 0})


def decided(scores: Scores, settings: FilterSettings = AUTO) -> Decisions:
    nothing = np.zeros(len(scores.chosen_tokens), dtype=bool)
    return decide_scored(scores.ids, nothing, nothing, scores, Trajectory((BASE, OOF), OOF), settings)


def judged_scores(rate: float) -> tuple[Scores, np.ndarray]:
    scores, wrong = simulated(rate)
    return replace(scores, posterior=weighed(scores, scores.groups)), wrong


def test_precision_and_recall_of_the_cut_hold_the_truth():
    scores, wrong = judged_scores(0.2)
    decisions = decided(scores)
    told = caught_at_cut(decisions)
    noisy = decisions.reason == "noisy"
    assert told is not None and told.flagged == noisy.sum() > 100
    assert told.precision.low <= wrong[noisy].mean() <= told.precision.high
    assert told.recall.low <= noisy[wrong].mean() <= told.recall.high


def test_nothing_is_told_without_a_rate_nor_without_held_out_scores():
    scores, _ = judged_scores(0.2)
    by_share = caught_at_cut(decided(scores, FilterSettings(rule="irm", high_q=0.9)))  # whatever cuts
    assert by_share is not None and by_share.flagged == len(scores.chosen_tokens) // 10
    assert caught_at_cut(decided(replace(scores, posterior=None), FilterSettings(rule="irm", high_q=0.9))) is None
    seen = decided(replace(scores, held_out=np.full(len(scores.chosen_tokens), False, dtype=object)))
    assert suspicion_of_swapped(seen) is None and caught_at_cut(seen) is None
    decisions = decided(scores)
    none_cut = replace(decisions, thresholds={**decisions.thresholds, "suspicion": None})
    assert caught(none_cut, decisions.suspicion, decisions.labels.resampled) is None


def test_of_few_prompts_none_is_dropped_by_an_estimate():
    scores, _ = judged_scores(0.2)
    n = len(scores.chosen_tokens)
    few = replace(scores, posterior=replace(scores.posterior, groups=np.arange(n) % 19))
    rule = noisy_rule(AUTO)
    for judged, too_few in ((few, Judgeable(n, 19)), (scores, None)):
        labels = JudgedLabels.of_scores(judged)
        assert noisy_budget(rule, judged, labels, rule.suspicion(judged), n, AUTO).too_few == too_few
    assert f"{n:,} pairs of 19 prompts are too few" in next(noisy_lines(decided(few)))


def test_a_share_that_drops_none_says_why():
    scores, _ = simulated(0.2)
    sure = replace(scores, posterior=posterior_of(np.full(len(scores.chosen_tokens), 2.0), 0.2, 1.0))
    said = next(noisy_lines(decided(sure, FilterSettings.model_validate({"noise_rate": "0.1", "low_q": 0}))))
    assert said.endswith("only where the label is more likely wrong than right, which holds for none")


def test_of_few_flagged_pairs_nothing_is_said():
    one = Interval(0.9, 0.8, 1.0)
    assert list(caught_lines(Detection(9, 0.1, one, one, one), AUTO)) == []
    (said,) = caught_lines(Detection(10, 0.1, Interval(0.5, 0.4, 0.6), one, one), AUTO)
    assert "of the 10 pairs called noisy, an estimated 90.0% [80.0%, 100.0%] are mislabelled" in said
