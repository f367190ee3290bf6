"""What the audit estimates of a scored run, on simulated held-out scores whose truth is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from rmo_curate.noise_rate import BUNDLES, Resampled

from rmo_curate.audit.collect import AuditSettings
from rmo_curate.audit.report import write_audit
from rmo_curate.canaries import find, find_at
from rmo_curate.rules import RULES
from tests.rmo_curate.test_canaries import simulated


def test_many_thresholds_at_once_are_each_by_itself():
    scores, _ = simulated(0.2)
    resampled = Resampled(scores, draws=20)
    rule = RULES["irm"]
    s, of_swapped = rule.suspicion(scores), rule.suspicion_of_swapped(scores)
    s[5] = np.nan
    thresholds = np.quantile(s[np.isfinite(s)], [0.99, 0.9, 0.5])
    at_once = find_at(thresholds, s, of_swapped, resampled)
    with np.errstate(invalid="ignore"):
        single = [find(s >= t, of_swapped >= t, resampled) for t in thresholds]
    assert at_once == single


def test_bundles_of_prompts_give_the_interval_of_prompts(monkeypatch):
    scores, _ = simulated(0.2, seed=3)
    assert len(np.unique(scores.groups)) > BUNDLES
    bundled = Resampled(scores).rate
    monkeypatch.setattr("rmo_curate.noise_rate.BUNDLES", 10**9)
    single = Resampled(scores).rate
    assert bundled.value == single.value
    assert bundled.high - bundled.low == pytest.approx(single.high - single.low, abs=0.012)  # of about 0.03, by draws


def test_prompts_stay_whole():
    scores, _ = simulated(0.2)
    resampled = Resampled(replace(scores, groups=np.arange(len(scores.chosen_tokens)) // 500))
    assert resampled.size == 18
    assert all(len(np.unique(resampled.group[i : i + 500])) == 1 for i in range(0, 9000, 500))


@pytest.fixture
def audited(make_run, tmp_path):
    """Eight hundred pairs of two hundred prompts, a fifth of them flipped; their margins are held out."""
    rng = np.random.default_rng(5)
    n = 800
    wrong = rng.random(n) < 0.2
    base = rng.normal(0, 5, n)
    moved = np.where(wrong, -1, 1) * rng.normal(6, 4, n)
    run = make_run(
        {"base": base.tolist(), "oof-9": (base + moved).tolist()},
        groups=[str(i // 4) for i in range(n)],
        part_size=800,
    )
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({}))
    return summary, json.loads(summary.json.read_text()), wrong


def test_rate_precision_and_recall_hold_the_truth(audited):
    summary, numbers, wrong = audited
    assert numbers["noise_rate_low"] <= wrong.mean() <= numbers["noise_rate_high"]
    cut = numbers["at_cut"]
    noisy = {s["id"] for s in numbers["suspects"] if s["decision"] == "noisy"}
    assert cut["flagged"] == len(noisy) == 40
    true_precision = np.mean([wrong[int(i[1:])] for i in noisy])
    assert cut["precision"]["low"] <= true_precision <= cut["precision"]["high"] + 0.05
    assert any("estimated noise rate" in line for line in summary.lines)
    steps = [s for s in numbers["curve"]["steps"] if s["precision"]]
    recalls = [s["recall"]["value"] for s in steps]
    assert np.diff(recalls).min() > -0.01 and recalls[-1] > 0.8 and len(steps) > 50
    for step in steps:
        for name in ("precision", "recall"):
            found = step[name]
            assert 0 <= found["low"] <= found["high"] <= 1
    assert numbers["self_check"]["measured"] == pytest.approx(numbers["self_check"]["predicted"], abs=0.05)
    assert numbers["not_estimated"] == ""


def test_few_dropped_pairs_have_no_precision(audited):
    assert all(s["precision"] is None for s in audited[1]["curve"]["steps"] if s["dropped"] < 10)


def test_scores_that_are_not_held_out_give_no_estimate_and_say_why(make_run, tmp_path):
    run = make_run({"base": [1.0, -2.0, 3.0] * 5, "insample-8": [2.0, -4.0, 1.0] * 5})
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({}))
    numbers = json.loads(summary.json.read_text())
    assert numbers["noise_rate"] is None and "held-out scores" in numbers["not_estimated"]
    assert "are not estimated" in summary.page.read_text()
