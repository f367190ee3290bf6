"""What the audit estimates of a scored run, on simulated held-out scores whose truth is known."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rmo_curate.audit.command import write_audit
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.evidence.label_noise import BUNDLES, Resampled
from rmo_curate.evidence.swapped_copies import detection, detections_at
from rmo_curate.evidence.wording import RANDOM_FLIPS
from rmo_curate.filter.settings import FilterSettings
from tests.command_line import curate
from tests.rmo_curate.audit.test_audit import embedded_data

PROMPTS, PER_PROMPT = 3000, 3


def margins(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Held-out margins of pairs of which a fifth are flipped, and their prompts."""
    rng = np.random.default_rng(seed)
    n = PROMPTS * PER_PROMPT
    return np.where(rng.random(n) < 0.2, -1, 1) * rng.normal(1.6, 1, n), np.arange(n) // PER_PROMPT


def test_many_thresholds_at_once_are_each_by_itself():
    margin, prompts = margins()
    margin[5] = np.nan
    resampled = Resampled(margin, prompts, draws=20)
    thresholds = np.quantile(-margin[np.isfinite(margin)], [0.99, 0.9, 0.5])
    at_once = detections_at(thresholds, -margin, margin, resampled)
    with np.errstate(invalid="ignore"):
        single = [detection(-margin >= t, margin >= t, resampled) for t in thresholds]
    assert at_once == single


def test_bundles_of_prompts_give_the_interval_of_prompts(monkeypatch):
    margin, prompts = margins(seed=3)
    assert len(np.unique(prompts)) > BUNDLES
    bundled = Resampled(margin, prompts).rate
    monkeypatch.setattr("rmo_curate.evidence.label_noise.BUNDLES", 10**9)
    single = Resampled(margin, prompts).rate
    assert bundled.value == single.value
    assert bundled.high - bundled.low == pytest.approx(single.high - single.low, abs=0.012)  # of about 0.03, by draws


def test_prompts_stay_whole():
    margin, _ = margins()
    resampled = Resampled(margin, np.arange(len(margin)) // 500)
    assert resampled.size == 18
    assert all(len(np.unique(resampled.group[i : i + 500])) == 1 for i in range(0, 9000, 500))


def plain_rows(n: int, per_prompt: int = 4) -> list[dict[str, str]]:
    """Pairs whose two answers are alike in all that style knows."""
    return [
        {"prompt": f"question {i // per_prompt}?", "chosen": f"answer a{i}", "rejected": f"answer b{i}"}
        for i in range(n)
    ]


def scored_run(make_run, n: int, proxy: str):
    """n pairs, four of a prompt, a fifth of them flipped; their margins under `proxy` say so."""
    rng = np.random.default_rng(5)
    wrong = rng.random(n) < 0.2
    base = rng.normal(0, 5, n)
    moved = np.where(wrong, -1, 1) * rng.normal(6, 4, n)
    run = make_run(
        {"base": base.tolist(), proxy: (base + moved).tolist()},
        groups=[str(i // 4) for i in range(n)],
        rows=plain_rows(n),
        part_size=n,
    )
    return run, wrong


@pytest.fixture
def audited(make_run, tmp_path):
    """Eight hundred pairs of two hundred prompts, a fifth of them flipped; their margins are held out."""
    run, wrong = scored_run(make_run, 800, "oof-9")
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({}))
    return summary, json.loads(summary.json.read_text()), wrong


def test_rate_precision_and_recall_hold_the_truth(audited):
    summary, numbers, wrong = audited
    assert numbers["noise_rate_low"] <= wrong.mean() <= numbers["noise_rate_high"]
    cut = numbers["at_cut"]
    noisy = {s["id"] for s in numbers["suspects"] if s["right"] < 0.5}
    assert cut["flagged"] == len(noisy) and 0.6 * wrong.sum() < len(noisy) < 1.2 * wrong.sum()
    true_precision = np.mean([wrong[int(i[1:])] for i in noisy])
    assert cut["precision"]["low"] <= true_precision <= cut["precision"]["high"] + 0.05
    assert numbers["headline"]["lead"] in summary.lines and numbers["headline"]["certainty"] in summary.lines
    steps = [s for s in numbers["curve"]["steps"] if s["precision"]]
    recalls = [s["recall"]["value"] for s in steps]
    assert np.diff(recalls).min() > -0.01 and recalls[-1] > 0.6 and len(steps) > 50
    for step in steps:
        for name in ("precision", "recall"):
            found = step[name]
            assert 0 <= found["low"] <= found["high"] <= 1
    assert numbers["self_check"]["measured"] == pytest.approx(numbers["self_check"]["predicted"], abs=0.05)
    assert numbers["not_estimated"] == ""


def test_of_few_pairs_the_interval_is_told_and_nothing_is_done_that_is_not_likely_to_pay(make_run, tmp_path):
    """A hundred and twenty pairs, few of them wrong: labels are doubted, and `filter` and the page say why all stay."""
    rng = np.random.default_rng(7)
    moved = np.where(rng.random(120) < 0.05, -1, 1) * rng.normal(3, 3, 120)
    run = make_run({"base": [0.0] * 120, "oof-9": moved.tolist()}, rows=plain_rows(120), part_size=120)
    done = curate("filter", run, "--out", tmp_path / "shards")
    assert done.code == 0 and "120 pairs = 120 kept" in done.out
    (said,) = (line for line in done.out.splitlines() if line.startswith("noisy: "))
    doubted = int(said.split("; ")[1].split()[0])
    assert doubted and "Labels stay as they are: soft labels are not expected to pay" in said
    assert "--action auto 1.00 times (labels stay as they are)" in done.out and "dropped pairs, each" not in done.out
    dropping = curate("filter", run, "--out", tmp_path / "dropping", "--action", "drop")
    assert (
        f"{doubted} of 120 scored pairs" in dropping.out
        and "None is dropped: that is not expected to pay" in dropping.out
    )
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({}))
    numbers = json.loads(summary.json.read_text())
    head = numbers["headline"]
    assert head["lead"].startswith(head["figure"]) and " to " in head["figure"]
    assert "A 95% interval" in head["certainty"]
    assert f"softening {doubted} doubted labels is not expected to pay" in summary.lines[-4]
    assert "The filter keeps all 120 scored pairs." in head["sentences"]
    assert numbers["curve"]["start"] == 0
    forced = curate("filter", run, "--out", tmp_path / "forced", "--noise-rate", 0.05)
    assert f"are in {tmp_path / 'forced' / 'dropped'}" in forced.out


def test_a_run_is_headed_by_its_estimated_share_of_wrong_labels(audited):
    _, numbers, _ = audited
    share = f"{100 * numbers['noise_rate']:.0f}%"
    assert numbers["headline"]["lead"] == f"{share} of the 800 scored pairs are estimated to be mislabelled."
    assert numbers["headline"]["certainty"].endswith("800 pairs are enough to tell.")
    said = " ".join(numbers["headline"]["sentences"])
    assert "of all labels flipped at random in the 800 scored pairs, " in said
    assert numbers["headline"]["length_text"].startswith("Of 800 pairs, the chosen answer is the longer one in ")
    assert numbers["self_check"]["pairs"] == 800


def test_suspects_of_a_run_come_by_their_probability(audited):
    summary, numbers, wrong = audited
    rights = [s["right"] for s in numbers["suspects"]]
    assert rights == sorted(rights) and max(rights) < 0.5 and len(rights) == numbers["likely_wrong"]
    assert np.mean([wrong[int(s["id"][1:])] for s in numbers["suspects"]]) == pytest.approx(
        1 - np.mean(rights), abs=0.1
    )
    worst = numbers["suspects"][0]
    assert worst["reasons"][0]["text"].startswith("the margins of oof-9 favour the rejected answer")
    page = summary.page.read_text()
    assert embedded_data(page)["probable"] and "P(label right)" in page
    assert f"look at {worst['id']} (kept): {worst['because']}" in summary.lines  # made without files


def test_what_flips_the_numbers_hold_for_stands_beside_them(audited):
    page = audited[0].page.read_text()
    said = RANDOM_FLIPS[1:].replace("'", "&#39;") + "."
    assert page.count(said) == 2  # under the noise rate, and under the slider's precision and recall
    assert any(RANDOM_FLIPS[1:] in line for line in audited[0].lines)


def test_few_dropped_pairs_have_no_precision(audited):
    assert all(s["precision"] is None for s in audited[1]["curve"]["steps"] if s["dropped"] < 10)


def test_scores_that_are_not_held_out_are_left_out_and_named(make_run, tmp_path):
    run, _ = scored_run(make_run, 80, "insample-8")
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({}))
    evidence = json.loads(summary.json.read_text())["evidence"]
    assert "insample-8" not in evidence["sources"]
    assert any(line.startswith("insample-8: not known to be held out") for line in evidence["missing"])
    assert "insample-8: not known to be held out" in summary.page.read_text()


def test_what_is_not_held_out_gives_no_precision(make_run, tmp_path):
    run, _ = scored_run(make_run, 120, "insample-8")
    settings = FilterSettings.model_validate({"rule": "irm", "high_q": 0.5})
    numbers = json.loads(
        write_audit(run, tmp_path / "audit", AuditSettings.model_validate({}), settings).json.read_text()
    )
    assert numbers["at_cut"] is None and "no better than chance" in numbers["not_estimated"]
    assert not any(step["precision"] for step in numbers["curve"]["steps"])


def test_few_scored_pairs_give_no_estimate_and_say_why(make_run, tmp_path):
    run, _ = scored_run(make_run, 16, "oof-9")
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({}))
    numbers = json.loads(summary.json.read_text())
    assert numbers["noise_rate"] is None and "there are 16 pairs" in numbers["not_estimated"]
    assert "There are 16 pairs" in summary.page.read_text() and numbers["curve"]["steps"][-1]["precision"] is None
    assert all(s["right"] is None and s["reasons"] for s in numbers["suspects"])
    assert "likely to be right" not in summary.page.read_text()


def test_a_run_of_the_base_alone_is_judged_by_what_there_is(make_run, tmp_path):
    rng = np.random.default_rng(0)
    run = make_run({"base": rng.normal(1.0, 3, 120).tolist()}, rows=plain_rows(120), part_size=120)
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({}))
    numbers = json.loads(summary.json.read_text())
    assert numbers["evidence"]["sources"] == ["reference", "style", "answers"] and numbers["noise_rate"] is not None
    assert "no held-out proxy" in numbers["evidence"]["missing"]
