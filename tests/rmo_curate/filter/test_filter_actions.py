"""What `rmo-curate filter` does with pairs that it doubts, beside dropping them: flip, weigh, soften, or choose."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmo_curate.evidence.gather import JudgedLabels, with_posterior
from rmo_curate.evidence.label_noise import LabelNoise
from rmo_curate.filter.decisions import decide_scored, softness_of
from rmo_curate.filter.settings import FilterSettings, flags_of
from rmo_curate.runs.run import Checkpoint, Trajectory, open_run
from rmo_train.data.pairs import open_pairs
from tests.command_line import curate
from tests.manifests import manifest_of
from tests.rmo_curate.evidence.made import OOF, weighed
from tests.rmo_curate.evidence.test_swapped_copies import simulated
from tests.rmo_curate.filter.by_hand import FLAGS, decisions_file, kept_rows, text

ALIKE = [{"chosen": f"answer {2 * i}", "rejected": f"answer {2 * i + 1}"} for i in range(1000, 1900)]  # in style


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
    assert manifest_of(tmp_path / "out")["softness"] == (action == "soft-label")


def test_a_pair_keeps_its_confidence_and_a_flipped_one_has_that_of_its_new_label():
    scores, wrong = simulated(0.3)
    no = np.zeros(len(wrong), dtype=bool)
    scores = replace(scores, posterior=weighed(scores, scores.groups))
    trajectory = Trajectory((Checkpoint("base", "base", None, None, None, None, 0.01), OOF), OOF)
    right = scores.posterior.right
    for action in ("drop", "flip"):
        settings = FilterSettings(low_q=0, action=action, noise_rate="auto")
        found = decide_scored(scores.ids, no, no, scores, trajectory, settings)
        assert found.flipped.any() == (action == "flip") and not found.softness
        np.testing.assert_array_equal(found.label_confidence, np.where(found.flipped, 1 - right, right))


def test_a_reviewers_word_is_certain(folder, tmp_path):
    review = decisions_file(tmp_path / "review.json", p2="flip", p3="keep")
    done = curate("filter", folder, "--out", tmp_path / "out", "--action", "soft-label", "--decisions", review)
    assert done.code == 0, done.err
    certain = {i for i, row in kept_rows(tmp_path / "out").items() if row["label_confidence"] == 1.0}
    assert certain == {"p2", "p3"}


def test_a_dry_run_refuses_the_folder_that_the_command_would_refuse(folder, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    for more in ((), ("--dry-run",), ("--dry-run", "--overwrite")):
        assert curate("filter", folder, "--out", mine, *more).refused("was not made by `rmo-curate filter`")
    out = ("--out", tmp_path / "out")
    assert curate("filter", folder, *out, "--action", "drop").code == 0
    assert "already done" in curate("filter", folder, *out, "--action", "drop", "--dry-run").out
    for more in ((), ("--dry-run",)):
        refused = curate("filter", folder, *out, *more)
        assert (
            refused.refused("action: the folder has 'drop', you asked for 'auto'") and "noise_rate" not in refused.err
        )
    assert "is not written" in curate("filter", folder, *out, "--dry-run", "--overwrite").out


def test_without_evidence_no_label_is_doubted(folder, tmp_path):
    assert curate("filter", folder, "--out", tmp_path / "out", "--rule", "irm", "--high-q", 0.95).code == 0
    assert {row["label_confidence"] for row in kept_rows(tmp_path / "out").values()} == {1.0}


def test_labels_are_softened_as_far_as_it_pays_and_it_is_said(make_run, tmp_path):
    rng = np.random.default_rng(0)
    proxy = rng.normal(3, 2, 900) * np.where(rng.random(900) < 0.3, -1, 1)  # 30% of the labels are wrong
    folder = make_run({"base": [0.0] * 900, "oof-16": proxy.tolist()}, rows=ALIKE, part_size=900)
    done = curate("filter", folder, "--out", tmp_path / "out")
    assert done.code == 0 and "900 pairs = 900 kept" in done.out
    (said,) = re.findall(r"None is dropped: `rmo-train` softens every label (?:(\d+)% of the way )?to", done.out)
    (told,) = (line for line in done.out.splitlines() if line.startswith("worth: "))
    assert re.findall("([a-z-]+) [0-9.]+ times", told) == ["auto", "soft-label", "weight", "drop"][not said :]
    manifest, card = manifest_of(tmp_path / "out"), (tmp_path / "out" / "README.md").read_text()
    assert manifest["action"] == manifest["settings"]["action"] == "auto"
    assert f"{manifest['softness']:.0%}" == f"{said or 100}%" and manifest["softness"] > 0.5
    assert "--action" not in card and "unless `--no-soft-labels` is given" in card
    given = {i: row["label_confidence"] for i, row in kept_rows(tmp_path / "out").items()}
    pairs = open_pairs(tmp_path / "out")
    trained = dict(zip(pairs.ids, pairs.labelled(None).label_confidence, strict=True))
    assert all(trained[i] == pytest.approx(1 - manifest["softness"] * (1 - p)) for i, p in given.items())
    assert curate("filter", folder, "--out", tmp_path / "out", "--action", "auto").out.count("already done") == 1
    refused = curate("filter", folder, "--out", tmp_path / "o", "--action", "auto", "--high-q", 0.9)
    assert refused.refused("--action auto drops no noisy pairs, so --high-q has no effect")


def test_other_cuts_and_other_steps_are_told_beside_the_actions(make_run, tmp_path):
    rng = np.random.default_rng(0)
    proxy = rng.normal(3, 2, 900) * np.where(rng.random(900) < 0.3, -1, 1)
    folder = make_run({"base": [0.0] * 900, "oof-16": proxy.tolist()}, rows=ALIKE, part_size=900)

    def told(*flags: object) -> str:
        done = curate("filter", folder, "--out", tmp_path / "out", "--dry-run", *flags)
        assert done.code == 0, done.err
        (line,) = (line for line in done.out.splitlines() if line.startswith("worth: "))
        return line

    for flags in ((), ("--action", "drop"), ("--action", "weight")):
        assert "these decisions" not in told(*flags) and "other steps" not in told(*flags)
    assert "these decisions make that" in told("--high-q", 0.9) and "these decisions" in told("--action", "flip")
    certain = int(np.argmax(proxy))
    review = decisions_file(tmp_path / "review.json", **{f"p{certain}": "flip"})  # it stays, so no action drops it
    for flags in (("--action", "drop"), ("--high-q", 0.9)):
        assert told(*flags, "--decisions", review) == told(*flags)
    both = told("--low-q", 0.1, "--high-q", 0.95)
    given, left = map(int, re.findall(r"(\d+) (?:clean pairs|without the pairs that other steps drop)", both))
    assert 0.8 * given < left < given


def test_the_sentence_on_noisy_pairs_says_what_the_rule_knows(make_run, tmp_path):
    rng = np.random.default_rng(0)
    proxy, base = rng.normal(3, 2, 900) * np.where(rng.random(900) < 0.3, -1, 1), rng.normal(0, 0.5, 900)
    folder = make_run({"base": base.tolist(), "oof-16": (base + proxy).tolist()}, rows=ALIKE, part_size=900)

    def told(*flags: object) -> str:
        done = curate("filter", folder, "--out", tmp_path / "out", "--dry-run", *flags)
        assert done.code == 0, done.err
        return next(line for line in done.out.splitlines() if line.startswith("noisy: "))

    assert " scored pairs have a label that is more likely wrong than right" in told("--action", "drop")
    assert " scored pairs have a suspicion above 0" in told("--rule", "random")
    paper = told("--preset", "paper")
    assert paper.startswith(
        "noisy: --rule rmo: every pair with suspicion > 0; the least suspicious one's suspicion is "
    )
    assert paper.endswith(" nats")
    assert told("--rule", "rmo-ln", "--high-q", 0.95).endswith(" nats per token")


@pytest.mark.parametrize("action", ["auto", "soft-label", "weight"])
def test_a_preset_drops_noisy_pairs_so_an_action_that_drops_none_is_refused(folder, tmp_path, action):
    done = curate("filter", folder, "--out", tmp_path / "out", "--preset", "paper", "--action", action)
    assert done.refused(f"--preset paper drops noisy pairs, and --action {action} drops none")


def test_labels_that_nothing_speaks_against_stay_as_they_are():
    scores, _ = simulated(0.0)
    sure = replace(weighed(scores, scores.groups), noise=LabelNoise(0.001, 1.0))
    labels = JudgedLabels.of_scores(replace(scores, posterior=sure))
    assert softness_of(labels) == 0


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"noise_rate": "auto", "low_q": 0.0},
        {"precision": 0.8},
        {"action": "auto"},
        {"action": "drop"},
        {"action": "drop", "high_q": 0.9},
        {"rule": "irm"},
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
