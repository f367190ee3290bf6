"""The scoring stage without a model: order, parts, resuming, and what its manifest says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmo_curate.score.engines.base import Work
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.scoring import Assignment, ScoreStage, in_group_order, part_bounds, score_stage
from rmo_train.console.errors import UserError
from rmo_train.data.pairs import PairData
from rmo_train.data.ragged import Ragged
from rmo_train.forward.layout import Layout, Workload
from rmo_train.store import tables
from rmo_train.store.manifests import Checkpoint
from tests.manifests import manifest_of
from tests.rmo_curate.scored import Killed

GROUPS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=40).map(lambda g: np.array(g, dtype=object))


def ragged(rows: list[list[int]]) -> Ragged:
    return Ragged.from_rows([np.array(r, dtype=np.int32) for r in rows])


def pair_data(rows: list[tuple[list[int], list[int], list[int]]]) -> PairData:
    """Pairs of (prompt, chosen, rejected) token ids; equal prompts are one group."""
    prompts, chosen, rejected = (list(column) for column in zip(*rows, strict=True))
    n = len(rows)
    return PairData(
        folder=Path("run"),
        manifest=None,
        ids=np.array([f"p{i}" for i in range(n)], dtype=object),
        groups=np.array([str(p) for p in prompts], dtype=object),
        prompt=ragged(prompts),
        chosen=ragged(chosen),
        rejected=ragged(rejected),
        weight=np.ones(n),
        label_confidence=np.ones(n),
    )


@dataclass
class FakeEngine:
    """Scores a pair by its number; counts what it is asked for."""

    checkpoint: str
    asked: list[tuple[str, list[int]]]
    die_after: int = 1000
    layout: Layout = field(default_factory=lambda: Layout("segments", 1024))

    def work(self, data, rows):
        return Work(2 * len(rows), 2 * len(rows) - 1, 10 * len(rows), 6 * len(rows))

    def score(self, data, rows, advance):
        if len(self.asked) == self.die_after:
            raise Killed
        self.asked.append((self.checkpoint, list(rows)))
        advance(len(rows))
        return np.stack([-1.0 * rows, -2.0 * rows], axis=1)

    def noise_sd(self, data):
        return {"m0": 0.1, "m1": 0.3}[self.checkpoint]


@dataclass(frozen=True)
class FakeSpec:
    model: str
    asked: list[tuple[str, list[int]]]
    die_after: int = 1000

    def load(self):
        return FakeEngine(self.model, self.asked, self.die_after)


PAIRS = pair_data([([g], [10 + i], [20 + i]) for i, g in enumerate([1, 1, 2, 3, 3, 4])])
PLAIN = ScoreStage("base", {"weights": "x"}, "base", 0, [Assignment("m0", np.arange(6))])
FOLDS = ScoreStage(
    "oof-4",
    {"weights": "y"},
    "proxy",
    2,
    [Assignment("m0", np.array([0, 1, 5]), 0), Assignment("m1", np.array([2, 3, 4]), 1)],
    held_out=True,
    family="oof",
    step=4,
    folds=2,
)


def run_stage(run: Path, stage: ScoreStage, *, die_after: int = 1000, part_size: int = 2):
    asked: list[tuple[str, list[int]]] = []
    manifest = score_stage(run, PAIRS, stage, lambda model: FakeSpec(model, asked, die_after), part_size)
    return manifest, asked


@given(GROUPS)
def test_rows_in_group_order_keep_first_appearance_and_their_own_order(groups):
    rows = in_group_order(groups)
    assert sorted(rows) == list(range(len(groups)))
    ordered = groups[rows]
    changes = int((ordered[1:] != ordered[:-1]).sum())
    assert changes == len(set(groups)) - 1  # every group is one block
    assert list(dict.fromkeys(ordered)) == list(dict.fromkeys(groups))
    for group in set(groups):
        assert list(rows[ordered == group]) == list(np.flatnonzero(groups == group))


@given(GROUPS, st.integers(1, 12))
def test_parts_cover_all_rows_end_at_group_boundaries_and_hold_the_least_size(groups, part_size):
    ordered = groups[in_group_order(groups)]
    bounds = part_bounds(ordered, part_size)
    assert [b for bound in bounds for b in bound][1:-1:2] == [b for bound in bounds for b in bound][2::2]
    assert bounds[0][0] == 0 and bounds[-1][1] == len(groups)
    for start, end in bounds[:-1]:
        assert end - start >= part_size and ordered[end - 1] != ordered[end]
        inner = [i for i in range(start + part_size, end) if ordered[i - 1] != ordered[i]]
        assert not inner, "a part goes on past a boundary where it was large enough"


def test_part_bounds_by_hand():
    assert part_bounds(np.array(list("aabccd")), 2) == [(0, 2), (2, 5), (5, 6)]
    assert part_bounds(np.array(list("aabccd")), 100) == [(0, 6)]
    assert part_bounds(np.array([]), 2) == []


def test_every_pair_is_scored_by_its_model(tmp_path):
    manifest, asked = run_stage(tmp_path, FOLDS)
    assert asked == [("m0", [0, 1]), ("m0", [5]), ("m1", [2, 3, 4])]
    rows = [r for p in sorted((tmp_path / "scores/oof-4").glob("*.parquet")) for r in pq.read_table(p).to_pylist()]
    assert [(r["id"], r["chosen_logp"], r["rejected_logp"], r["fold"]) for r in rows] == [
        ("p0", 0.0, 0.0, 0),
        ("p1", -1.0, -2.0, 0),
        ("p5", -5.0, -10.0, 0),
        ("p2", -2.0, -4.0, 1),
        ("p3", -3.0, -6.0, 1),
        ("p4", -4.0, -8.0, 1),
    ]
    assert {r["held_out"] for r in rows} == {True}
    assert manifest.counts == {"pairs": 6} and manifest.noise_sd == pytest.approx(0.2)  # mean of the folds'
    assert manifest.checkpoint == Checkpoint("oof-4", "proxy", "oof", 4, 2, True, manifest.noise_sd)
    assert manifest.order == 2
    assert manifest.work == {
        "sequences": 12,
        "distinct": 9,
        "tokens_asked": 60,
        "tokens_computed": 36,
        "saved": 0.4,
    }


@pytest.mark.parametrize("die_after", [0, 1, 2])
def test_a_killed_stage_goes_on_to_the_same_manifest(tmp_path, die_after):
    whole, _ = run_stage(tmp_path / "whole", FOLDS)
    with pytest.raises(Killed):
        run_stage(tmp_path / "run", FOLDS, die_after=die_after)
    assert manifest_of(tmp_path / "run/scores/oof-4") is None
    resumed, asked = run_stage(tmp_path / "run", FOLDS)
    assert resumed == whole and len(asked) == 3 - die_after


def test_a_finished_stage_loads_no_model(tmp_path, capsys):
    run_stage(tmp_path, PLAIN)
    _, asked = run_stage(tmp_path, PLAIN)
    assert asked == [] and "base: already scored" in capsys.readouterr().err


def test_a_stage_of_another_key_is_refused(tmp_path):
    run_stage(tmp_path, PLAIN)
    with pytest.raises(UserError, match="weights: the folder has 'x', you asked for 'z'"):
        run_stage(tmp_path, ScoreStage("base", {"weights": "z"}, "base", 0, PLAIN.assignments))


def test_a_plain_checkpoint_has_no_fold_and_nothing_is_known_of_what_it_saw(tmp_path):
    run_stage(tmp_path, PLAIN)
    table = pq.read_table(tmp_path / "scores/base/part-00000.parquet")
    assert table.schema == tables.SCORE_SCHEMA
    assert set(table["fold"].to_pylist()) == {-1} and set(table["held_out"].to_pylist()) == {None}


def test_work_counts_shared_prompts_and_responses_once(tiny_model_folder):
    data = pair_data(
        [
            ([1, 2, 3, 4], [5, 6, 7], [8, 9]),  # tree of the prompt (4), 5 6 (2), 8 (1), and of the next pair 10 11 (2)
            ([1, 2, 3, 4], [5, 6, 7], [10, 11, 12]),  # its chosen response is the one above
            ([20, 21], [22, 23], [24]),  # 2 + 1 + 0: a response's last token predicts nothing
        ]
    )
    engine = TransformersEngine(str(tiny_model_folder), "float32", Workload.of(data), attention="segments")
    asked = (8 + 3 + 2) + (8 + 3 + 3) + (4 + 2 + 1)
    assert engine.work(data, np.arange(3)) == Work(6, 5, asked, 9 + 3)
    assert engine.work(data, np.arange(3)).saved == pytest.approx(1 - 12 / 34)
    plain = TransformersEngine(str(tiny_model_folder), "float32", Workload.of(data))
    plain.layout = Layout("rows", 1)
    assert plain.work(data, np.arange(3)) == Work(6, 5, asked, (6 + 5 + 6) + (3 + 2))
    done: list[float] = []
    shared, alone = engine.score(data, np.arange(3), done.append), plain.score(data, np.arange(3))
    np.testing.assert_allclose(shared, alone, atol=1e-4)
    assert shared[0, 0] == shared[1, 0] and sum(done) == pytest.approx(3)
    assert engine.noise_sd(data) < 1e-4


def test_work_counts_a_prompt_again_in_every_row_that_repeats_it(tiny_model_folder):
    data = pair_data([([1] * 8, [2] * 6, [3] * 7)])  # a tree of 8 + 5 + 6 tokens, more than four rows of 4
    folder, work = str(tiny_model_folder), Workload.of(data)
    whole = TransformersEngine(folder, "float32", work, tokens_per_batch=19, attention="segments")
    split = TransformersEngine(folder, "float32", work, tokens_per_batch=4, attention="segments")
    assert whole.work(data, np.arange(1)) == Work(2, 2, 29, 19)
    assert split.work(data, np.arange(1)) == Work(2, 2, 29, 13 + 14)
    np.testing.assert_allclose(whole.score(data, np.arange(1)), split.score(data, np.arange(1)), atol=1e-4)


def test_work_adds_up():
    assert Work(1, 2, 3, 4) + Work(10, 20, 30, 40) == Work(11, 22, 33, 44)
    assert Work().saved == 0.0
