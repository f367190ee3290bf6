"""The probe's run folder: what it leaves, what is not computed twice, kills, and states from the scoring pass."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from rmo_curate.evidence.columns import EvidenceColumns, columns_of
from rmo_curate.evidence.gather import with_posterior
from rmo_curate.evidence.rules import RULES
from rmo_curate.filter.command import run_filter
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs import margins
from rmo_curate.runs.manifests import StatesManifest
from rmo_curate.runs.run import open_run
from rmo_curate.score import job as score_job
from rmo_curate.score.command import run_proxy
from rmo_curate.score.engines import spec
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.families import planned_families
from rmo_curate.score.probe import categories_of, cross_fitted
from rmo_curate.score.run_folder import run_status
from rmo_curate.score.settings import ProxySettings
from rmo_curate.score.stages import planned
from rmo_curate.score.states import read_states
from rmo_train.data.pairs import open_pairs
from rmo_train.forward.layout import Workload
from rmo_train.store import files, tables
from rmo_train.store.manifests import require_manifest
from tests.command_line import curate
from tests.manifests import manifest_of, parts_of
from tests.rmo_curate.scored import (
    NO_PROXY,
    Killed,
    checkpoint_names,
    contents,
    demo_records,
    marks,
    score,
    scores,
    write_jsonl,
)

DEFAULT = {"proxy": ProxySettings()}  # `score` where nothing is asked for
KILLS = (
    "base/.part-00002",  # of part 2 neither scores nor states are there
    "states/.part-00002",  # of part 2 the scores are there
    "base/.manifest",
    "states/.manifest",
    "oof-probe/.part-00001",
    "oof-probe/.manifest",
    "run/.manifest",
)


# ---------------------------------------------------------------------------------------------------- the run folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("probed") / "pairs.jsonl", demo_records(24))


@pytest.fixture(scope="module")
def probed(data: Path, tiny_model_folder) -> Path:
    """24 demo pairs, scored as `score` does it where nothing else is asked for. Read only."""
    score(data, tiny_model_folder, data.parent / "run", **DEFAULT)
    return data.parent / "run"


@pytest.fixture
def run(probed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(probed, tmp_path / "run")


def test_score_fits_a_probe_unless_told_otherwise(probed):
    assert checkpoint_names(probed) == ["base", "oof-probe"]
    run = open_run(probed)
    end = run.trajectory().end
    assert end is not None and end.is_probe and end.cross_fitted and end.held_out and end.folds == 10
    split = {r["id"]: r for r in tables.pq.read_table(probed / "proxies/oof-probe/split.parquet").to_pylist()}
    folder = probed / "scores/oof-probe"
    rows = tables.read_table(folder, parts_of(folder), tables.SCORE_SCHEMA).to_pylist()
    assert {r["id"]: r["fold"] for r in rows} == {i: r["fold"] for i, r in split.items()}
    assert {r["fold"] for r in rows} == set(range(10)) and all(r["held_out"] for r in rows)
    fold_of_group: dict[str, int] = {}
    assert all(fold_of_group.setdefault(r["group"], r["fold"]) == r["fold"] for r in split.values())


SMALL = ProxySettings(kind="lora", batch_size=2, lora=2)


@pytest.mark.parametrize(
    ("proxy", "expected"),
    [
        (ProxySettings(kind="none"), ["base"]),
        (ProxySettings(), ["base", "oof-probe"]),
        (ProxySettings(kind="probe", folds=1), ["base", "insample-probe"]),
        (SMALL, ["base", "oof-6"]),
        (SMALL.model_copy(update={"folds": 1}), ["base", "insample-12"]),
    ],
)
def test_which_proxies_score_makes(data, tiny_model_folder, tmp_path, proxy, expected):
    score(data, tiny_model_folder, tmp_path / "run", proxy=proxy)
    assert checkpoint_names(tmp_path / "run") == expected
    end = open_run(tmp_path / "run").trajectory().end
    assert (end.name if end else "base") == expected[-1]


def test_trained_proxies_end_the_trajectory_unless_a_probe_was_first(data, tiny_model_folder, tmp_path):
    for first, then in ((SMALL, ProxySettings()), (ProxySettings(), SMALL)):
        run = tmp_path / f"{first.kind}-first"
        score(data, tiny_model_folder, run, proxy=first)
        name = open_run(run).trajectory().end.name
        run_proxy(run, then)
        assert len(checkpoint_names(run)) == 3 and open_run(run).trajectory().end.name == name


def test_settings_of_training_without_trained_proxies_are_refused():
    with pytest.raises(ValueError, match="epochs applies only to trained proxies"):
        ProxySettings(epochs=2)


def test_margins_are_those_of_a_reward_on_the_states(probed):
    run = open_run(probed)
    found = run.scores(run.trajectory())
    manifest = require_manifest(probed / "states", StatesManifest, "score")
    states = read_states(probed, manifest, open_pairs(probed))
    assert manifest.width == states.shape[1] == 2 * 32  # two layers of the tiny model
    expected = cross_fitted(states, found.fold)
    np.testing.assert_allclose(margins.reward(found), expected.margin / 0.1, atol=1e-9)
    assert manifest_of(probed / "scores/oof-probe")["ridge"] == expected.ridge
    mean = (found.chosen_logp + found.rejected_logp) / 2
    np.testing.assert_allclose(mean[:, 1], mean[:, 0], rtol=1e-12)  # a tilt moves the answers of a pair apart
    assert found.of_probe


def test_states_are_read_with_the_rows_and_the_attention_that_were_asked_for(data, tiny_model_folder, tmp_path, probed):
    """With plain rows of one sequence the states are the same but for rounding; the layout is what was asked for."""
    engines = []
    with pytest.MonkeyPatch.context() as patch:
        made = spec.TransformersEngine
        patch.setattr(spec, "TransformersEngine", lambda *args: engines.append(made(*args)) or engines[-1])
        settings = {"attention": "rows", "tokens_per_batch": 512}
        score(data, tiny_model_folder, tmp_path / "run", **DEFAULT, **settings)
        assert [(e.layout.path, e.layout.budget) for e in engines] == [("rows", 512)]  # one for the base and the probe
        score(data, tiny_model_folder, tmp_path / "two", **settings)
        score(data, tiny_model_folder, tmp_path / "two", **DEFAULT, **settings)
        assert [(e.layout.path, e.layout.budget) for e in engines] == [("rows", 512)] * 3  # the base's, the probe's
    assert contents(tmp_path / "two") == contents(tmp_path / "run")
    found, expected = (np.array(list(scores(folder, "oof-probe").values())) for folder in (tmp_path / "run", probed))
    np.testing.assert_allclose(found, expected, atol=2e-2)


def test_every_rule_reads_a_probe(probed):
    outcome = curate("rules", probed)
    assert outcome.code == 0 and all(f"  {name} " in outcome.out for name in RULES if name not in ("none", "score"))


def test_the_filter_takes_the_posterior_for_a_probe_and_for_other_ends(probed, tmp_path, make_run):
    other = make_run({"base": [1.0, 2, 3, 4], "oof-16": [2.0, 1, 5, 9]})
    for folder, shards in ((probed, tmp_path / "of-probe"), (other, tmp_path / "of-other")):
        said = run_filter(folder, shards, FilterSettings(low_q=0.1, high_q=0.8))
        assert any("--rule posterior," in line for line in said)
        manifest = manifest_of(shards)
        assert manifest["key"]["rule"] == "posterior" and manifest["counts"]["pairs"] == len(manifest_rows(shards))


def manifest_rows(shards: Path) -> list[str]:
    manifest = manifest_of(shards)
    parts = [p["file"] for p in manifest["parts"] + manifest["dropped"]["parts"]]
    return [i for p in parts for i in tables.pq.read_table(shards / p, columns=["id"])["id"].to_pylist()]


def test_a_column_with_the_kind_of_prompt_is_known_to_the_probe(tmp_path, tiny_model_folder, capfd):
    rows = [row | {"sort": "verse" if i % 2 else "list"} for i, row in enumerate(demo_records(90))]
    data, run = write_jsonl(tmp_path / "pairs.jsonl", rows), tmp_path / "run"
    said = curate("score", data, "--model", tiny_model_folder, "--out", run, "--category-column", "kind")
    assert said.refused("--category-column kind: the data has no text column kind; its text columns are sort")
    assert not run.exists()
    named = ProxySettings(category_column="sort")
    score(data, tiny_model_folder, run, proxy=named)
    assert "2 values of column 'sort'" in capfd.readouterr().err
    (plan,) = planned_families(run).values()
    assert plan.key["category_column"] == "sort"
    before = marks(run)
    run_proxy(run, named)
    assert marks(run) == before
    pairs = open_pairs(run)
    found = categories_of(run, pairs, planned(run, pairs, named.resolved()))
    kinds = dict(zip(open_run(run).pairs(("id",))["id"].to_pylist(), open_run(run).texts("sort"), strict=True))
    assert [found.names[k - 1] for k in found.of] == [kinds[i] for i in pairs.ids] and found.names == ("list", "verse")
    known = columns_of(open_run(run), EvidenceColumns()).category  # later commands need not be told
    assert known is not None and set(known) == {"list", "verse"}
    run_proxy(run, ProxySettings(folds=5))  # finds no column by name
    again = open_run(run)
    assert again.probe is not None and again.probe.name != "oof-probe"  # the newest is evidence,
    assert columns_of(again, EvidenceColumns()).category is None  # with what it knows,
    assert again.trajectory().end.name == "oof-probe"  # and the trajectory ends where it did
    assert with_posterior(again, again.scores(again.trajectory())).posterior.sources.count("states") == 1


def test_a_second_call_computes_and_writes_nothing(data, run, tiny_model_folder, nothing_computed):
    before = marks(run)
    score(data, tiny_model_folder, run, **DEFAULT)
    run_proxy(run, ProxySettings())
    assert marks(run) == before


def test_another_split_shares_the_states_and_is_a_family_of_its_own(run, nothing_computed):
    before = marks(run / "states")
    run_proxy(run, ProxySettings(folds=3, seed=1))
    (name,) = set(checkpoint_names(run)) - {"base", "oof-probe"}
    assert re.fullmatch(r"oof-probe-[0-9a-f]{8}", name) and marks(run / "states") == before
    assert open_run(run).trajectory().end.name == "oof-probe"  # the first family
    assert len(set(np.array(list(scores(run, name).values()))[:, 0])) == 24
    run_proxy(run, ProxySettings(folds=1))
    end = open_run(run).trajectory("insample-probe").end
    assert end is not None and end.held_out is False and not end.cross_fitted


def stop_before(data: Path, model: Path, run: Path, at: str, **settings) -> None:
    """Score until just before the file with `at` in its temporary path is written."""
    write = files.write_bytes

    def killed(path, content):
        last = at != "run/.manifest" or (run / "scores/oof-probe/manifest.json").exists()
        if at in f"{path.parent.as_posix()}/.{path.name}" and last:
            raise Killed
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rmo_train.store.files.write_bytes", killed)
        with pytest.raises(Killed):
            score(data, model, run, **(DEFAULT | settings))


@pytest.mark.parametrize("at", KILLS)
def test_a_killed_probe_goes_on_to_the_same_bytes(data, probed, tiny_model_folder, tmp_path, at):
    run = tmp_path / "run"
    stop_before(data, tiny_model_folder, run, at)
    if at.startswith(("base", "states")):
        assert any(line.startswith("proxies/oof-probe: not finished") for line in run_status(run))
    kept = {stage: marks(run / stage, "part-*") for stage in ("states", "scores/base")}
    score(data, tiny_model_folder, run, **DEFAULT)
    assert all(marks(run / stage, "part-*").items() >= before.items() for stage, before in kept.items())
    assert contents(run) == contents(probed)
    assert "nothing is left" in run_status(run)


# ---------------------------------------------------------------------------------------------------- one pass


@pytest.fixture
def passes(monkeypatch) -> list[tuple[str, int]]:
    """(what was read, pairs) of every part that goes through the model."""
    done = []
    for name, what in (("score", "scores"), ("state_differences", "states"), ("score_with_states", "both")):
        real = getattr(TransformersEngine, name)

        def counted(engine, data, rows, *more, real=real, what=what):
            done.append((what, len(rows)))
            return real(engine, data, rows, *more)

        monkeypatch.setattr(TransformersEngine, name, counted)
    return done


def rows_of(run: Path) -> list[int]:
    return [len(tables.pq.read_table(p)) for p in sorted((run / "states").glob("part-*"))]


def test_score_reads_states_with_the_log_probs(data, probed, tiny_model_folder, tmp_path, passes, capsys):
    score(data, tiny_model_folder, tmp_path / "run", **DEFAULT)
    assert passes == [("both", n) for n in rows_of(probed)]
    assert "passes: 1 reference (with the hidden states for the probe)\n" in capsys.readouterr().err


def test_a_pass_of_their_own_gives_the_same_bytes(data, probed, tiny_model_folder, tmp_path, passes, capsys):
    run = tmp_path / "run"
    score(data, tiny_model_folder, run)
    outcome = curate("proxy", run, "--dry-run")
    assert "would read hidden states in one pass and fit 10" in outcome.out
    score(data, tiny_model_folder, run, **DEFAULT)
    assert passes == [("scores", n) for n in rows_of(probed)] + [("states", n) for n in rows_of(probed)]
    assert "passes: 1 reference + 1 for the hidden states for the probe\n" in capsys.readouterr().err
    assert contents(run) == contents(probed)


@pytest.mark.parametrize("folder", ["scores/base", "states"])
def test_what_one_of_the_two_folders_has_is_not_computed_again(
    data, probed, tiny_model_folder, tmp_path, passes, folder, capsys
):
    """A kill between the scores and the states of a part; then a part of one folder is damaged."""
    run, sizes = tmp_path / "run", rows_of(probed)
    stop_before(data, tiny_model_folder, run, "states/.part-00002")
    (run / folder / "part-00000.parquet").write_bytes(b"no parquet")
    passes.clear()
    score(data, tiny_model_folder, run, **DEFAULT)
    damaged = {"scores/base": "scores", "states": "states"}[folder]
    assert passes == [(damaged, sizes[0]), ("states", sizes[2]), *(("both", n) for n in sizes[3:])]
    assert f"{folder}: part-00000.parquet was damaged" in capsys.readouterr().err
    assert contents(run) == contents(probed)


def test_a_run_that_was_begun_without_a_probe_gets_the_missing_states(
    data, probed, tiny_model_folder, tmp_path, passes
):
    run, sizes = tmp_path / "run", rows_of(probed)
    stop_before(data, tiny_model_folder, run, "base/.part-00002", proxy=NO_PROXY)
    passes.clear()
    score(data, tiny_model_folder, run, **DEFAULT)
    assert passes == [("states", n) for n in sizes[:2]] + [("both", n) for n in sizes[2:]]
    assert contents(run) == contents(probed)


def test_states_are_finished_with_the_scores(data, probed, tiny_model_folder, tmp_path):
    run = tmp_path / "run"
    stop_before(data, tiny_model_folder, run, "oof-probe/..journal")
    assert manifest_of(run / "states") == manifest_of(probed / "states")


@pytest.mark.parametrize("removed", [False, True])
def test_scores_made_again_leave_states_alone(data, run, probed, tiny_model_folder, passes, capsys, removed):
    if removed:
        shutil.rmtree(run / "states")
    before = marks(run, "states/*")
    (run / "scores/base/part-00001.parquet").write_bytes(b"no parquet")
    score(data, tiny_model_folder, run, **DEFAULT)
    assert passes == [("scores", rows_of(probed)[1])] and "passes: 1 reference\n" in capsys.readouterr().err
    assert marks(run, "states/*") == before and contents(run / "scores") == contents(probed / "scores")


def test_under_vllm_states_take_a_pass_of_their_own_and_that_is_said(
    data, tiny_model_folder, tmp_path, passes, monkeypatch, capsys
):
    class Vllm:
        """Scores alone."""

        def __init__(self, model, dtype, longest, budget, log, gpus):
            self.engine = TransformersEngine(model, dtype, Workload.of(open_pairs(tmp_path / "run")))
            self.layout, self.work, self.noise_sd = self.engine.layout, self.engine.work, self.engine.noise_sd
            self.score = self.engine.score

    monkeypatch.setattr(spec, "VllmEngine", Vllm)
    monkeypatch.setattr(score_job, "settled_engine", lambda *asked: "vllm")
    lines = "\n".join(score(data, tiny_model_folder, tmp_path / "run", **DEFAULT, dry_run=True))
    assert "2 forward passes over the data" in lines and "from one more pass, through transformers" in lines
    score(data, tiny_model_folder, tmp_path / "run", **DEFAULT)
    assert [what for what, _ in passes] == ["scores"] * 6 + ["states"] * 6
    said = capsys.readouterr().err
    assert (
        "1 reference + 1 for the hidden states for the probe, through transformers, since vLLM does not return them"
        in said
    )
    assert checkpoint_names(tmp_path / "run") == ["base", "oof-probe"]


@pytest.mark.parametrize("stage", ["states", "scores/oof-probe"])
def test_a_damaged_part_is_made_again(data, run, probed, tiny_model_folder, stage, capsys):
    (run / stage / "part-00001.parquet").write_bytes(b"no parquet")
    if stage == "states":  # only needed where scores are missing
        shutil.rmtree(run / "scores/oof-probe")
    score(data, tiny_model_folder, run, **DEFAULT)
    assert "part-00001.parquet was damaged" in capsys.readouterr().err
    assert contents(run) == contents(probed)


def test_states_may_be_removed_once_the_probe_is_scored(data, run, tiny_model_folder, nothing_computed):
    shutil.rmtree(run / "states")
    score(data, tiny_model_folder, run, **DEFAULT)
    assert not (run / "states").exists()


def test_trained_proxies_and_a_probe_live_beside_each_other(run):
    assert curate("proxy", run, "--kind", "lora", "--batch-size", 8, "--lora", 2).code == 0
    assert (run / "proxies/oof-probe/manifest.json").is_file() and (run / "scores/oof-probe/manifest.json").is_file()
    assert checkpoint_names(run) == ["base", "oof-probe", "oof-2"]


def test_a_probe_needs_prompts_to_leave_out(tiny_model_folder, tmp_path):
    one = write_jsonl(tmp_path / "one.jsonl", [{"prompt": "hi", "chosen": f"a {i}", "rejected": "b"} for i in range(4)])
    outcome = curate("score", one, "--model", tiny_model_folder, "--out", tmp_path / "run", "--dtype", "float32")
    assert outcome.refused("--proxy probe: 2 folds need at least 2 distinct prompts, the data has 1", "--proxy none")
    assert not (tmp_path / "run").exists()
    assert curate("proxy", tmp_path / "run").refused("no such folder", "rmo-curate score")


def test_a_dry_run_says_what_the_probe_costs_and_writes_nothing(data, run, tiny_model_folder, tmp_path):
    outcome = curate("score", data, "--model", tiny_model_folder, "--out", tmp_path / "new", "--dry-run")
    assert "1 forward pass over the data" in outcome.out
    assert "a cross-fitted probe on the reference's hidden states; the states come from the same pass" in outcome.out
    assert not (tmp_path / "new").exists()
    before = marks(run)
    assert "would fit 10 linear probes as oof-probe" in curate("proxy", run, "--dry-run").out
    assert marks(run) == before
