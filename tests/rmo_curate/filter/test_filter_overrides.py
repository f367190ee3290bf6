"""What is above the cuts of `rmo-curate filter`: protected slices and a reviewer's decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rmo_curate.filter.decisions import Overrides, decide, decide_scored
from rmo_curate.filter.reviews import SCHEMA
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.filter.slices import SliceRemoval
from rmo_curate.filter.summary import summary
from rmo_curate.filter.wording import decision_lines
from rmo_curate.runs.run import Checkpoint, Trajectory, open_run
from tests.command_line import curate
from tests.manifests import manifest_of
from tests.rmo_curate.evidence.made import OOF, weighed
from tests.rmo_curate.evidence.test_swapped_copies import simulated
from tests.rmo_curate.filter.by_hand import CUT, FLAGS, decisions_file, kept_rows, reasons, text

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
        (file_of('{"id": "p1", "action": "swap"}'), "action 'swap' for 'p1'"),
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
