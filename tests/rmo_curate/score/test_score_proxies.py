"""The scoring job's proxies: what each is trained on, how many steps, and under which name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rmo_curate.filter.command import run_filter
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs.run import open_run
from rmo_curate.score import proxies
from rmo_curate.score.command import run_proxy
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_train.data.pairs import open_pairs
from rmo_train.model.models import weights_hash
from rmo_train.store import files, tables
from rmo_train.training import job as training_job
from tests.manifests import manifest_of, parts_of
from tests.rmo_curate.scored import (
    PROXY,
    Killed,
    checkpoint_names,
    marks,
    record,
    score,
    scores,
    write_jsonl,
)


def test_no_proxy_scores_a_prompt_that_it_was_trained_on(demo_data, tiny_model_folder, tmp_path, monkeypatch):
    trained, scored = {}, {}
    build_job, engine_score = training_job.build_job, TransformersEngine.score

    def spy_train(data, plan, model, folder, *args, **kwargs):
        trained[folder.name] = set(data.groups)
        return build_job(data, plan, model, folder, *args, **kwargs)

    def spy_score(self, data, rows, *args):
        if "/proxies/" in self.checkpoint:
            scored.setdefault(Path(self.checkpoint).parent.name, set()).update(data.groups[rows])
        return engine_score(self, data, rows, *args)

    monkeypatch.setattr("rmo_train.training.job.build_job", spy_train)
    monkeypatch.setattr(TransformersEngine, "score", spy_score)
    run = tmp_path / "run"
    score(demo_data, tiny_model_folder, run, proxy=PROXY.model_copy(update={"folds": 3}))
    everything = set(open_pairs(run).groups)
    assert set(trained) == set(scored) == {"fold-0", "fold-1", "fold-2"}
    for fold in trained:
        assert trained[fold] | scored[fold] == everything and not trained[fold] & scored[fold]
    split = {r["id"]: (r["group"], r["fold"]) for r in pq.read_table(run / "proxies/oof/split.parquet").to_pylist()}
    stage = run / "scores" / checkpoint_names(run)[-1]
    rows = tables.read_table(stage, parts_of(stage), tables.SCORE_SCHEMA).to_pylist()
    assert all(row["held_out"] is True and row["fold"] == split[row["id"]][1] for row in rows)
    assert {group for group, fold in split.values() if fold == 0} == scored["fold-0"]


def test_all_folds_train_the_same_number_of_steps(tiny_model_folder, tmp_path):
    records = [record(0, chosen=f"a {k}") for k in range(9)] + [record(1), record(2), record(3)]
    run = tmp_path / "run"
    proxy = PROXY.model_copy(update={"batch_size": 2, "steps": (2,)})
    score(write_jsonl(tmp_path / "d.jsonl", records), tiny_model_folder, run, proxy=proxy)
    logged = {
        f.name: [json.loads(line)["step"] for line in (f / "metrics.jsonl").read_text().splitlines()]
        for f in (run / "proxies" / "oof").glob("fold-*")
    }
    assert logged == {
        "fold-0": [1, 2, 3, 4, 5],
        "fold-1": [1, 2, 3, 4, 5],
    }  # 10 pairs, though one part has 2
    assert checkpoint_names(run) == ["base", "oof-2", "oof-5"]
    split = pq.read_table(run / "proxies/oof/split.parquet")["fold"].to_pylist()
    assert sorted([split.count(0), split.count(1)]) == [2, 10]


def test_the_in_sample_proxy_of_the_paper(demo_data, tiny_model_folder, tmp_path):
    run = tmp_path / "run"
    score(demo_data, tiny_model_folder, run, proxy=PROXY.model_copy(update={"folds": 1}))
    entry = manifest_of(run)["checkpoints"][-1]
    assert entry["name"] == "insample-4" and entry["held_out"] is False and entry["folds"] == 1
    table = pq.read_table(run / "scores" / "insample-4" / "part-00000.parquet")
    assert set(table["fold"].to_pylist()) == {-1} and set(table["held_out"].to_pylist()) == {False}
    said = run_filter(run, tmp_path / "shards", FilterSettings(preset="paper"))
    assert any("last checkpoint: insample-4, NOT held out" in line for line in said)
    manifest = manifest_of(tmp_path / "shards")
    assert manifest["end"] == "insample-4" and manifest["held_out"] is False


def test_a_second_family_has_its_own_name_and_never_mixes(run):
    first = marks(run / "scores" / "oof-2") | marks(run / "proxies" / "oof")
    run_proxy(run, PROXY.model_copy(update={"seed": 7}))
    run_proxy(run, PROXY.model_copy(update={"folds": 1}))
    assert marks(run / "scores" / "oof-2") | marks(run / "proxies" / "oof") == first
    base, oof, other, insample = checkpoint_names(run)
    assert (base, oof, insample) == ("base", "oof-2", "insample-4")
    assert re.fullmatch(r"oof-[0-9a-f]{8}-2", other)
    assert scores(run, other) != scores(run, oof)
    opened = open_run(run)
    assert opened.trajectory().names == ("base", "oof-2")
    assert opened.trajectory(other).names == ("base", other)
    assert opened.trajectory(insample).names == ("base", "insample-4")


def test_the_same_family_again_computes_nothing(run, nothing_computed):
    before = marks(run)
    run_proxy(run, PROXY)
    assert marks(run) == before


def test_more_pairs_a_step_than_a_proxy_may_see_takes_what_there_is(tiny_model_folder, tmp_path):
    run = tmp_path / "run"
    proxy = PROXY.model_copy(update={"batch_size": 16})
    score(
        write_jsonl(tmp_path / "d.jsonl", [record(i) for i in range(6)]),
        tiny_model_folder,
        run,
        proxy=proxy,
    )
    assert checkpoint_names(run) == ["base", "oof-1"]
    assert files.read_json(run / "proxies/oof/family.json")["key"]["batch_size"] == 3


def test_a_proxy_of_all_weights_is_another_family(run):
    run_proxy(run, PROXY.model_copy(update={"lora": None, "full": True}))
    added = checkpoint_names(run)[-1]
    assert re.fullmatch(r"oof-[0-9a-f]{8}-2", added)
    models = list((run / "proxies" / added.rpartition("-")[0]).glob("fold-*/step-2/model.safetensors"))
    assert len(models) == 2


def test_a_proxy_is_saved_in_an_order_that_no_process_chooses(run):
    adapter = run / "proxies" / "oof" / "fold-0" / "step-2"
    config = files.read_json(adapter / "adapter_config.json")
    assert config["target_modules"] == sorted(config["target_modules"]) and len(config["target_modules"]) > 7
    before = weights_hash(str(adapter))
    files.write_json(adapter / "adapter_config.json", config | {"target_modules": config["target_modules"][::-1]})
    assert weights_hash(str(adapter)) == before


def test_a_family_that_was_never_begun_gives_its_name_up(demo_data, tiny_model_folder, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def killed(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(proxies, "train_proxy", killed)
        with pytest.raises(Killed):
            score(demo_data, tiny_model_folder, run, proxy=PROXY)
    score(demo_data, tiny_model_folder, run, proxy=PROXY.model_copy(update={"seed": 7}))
    assert checkpoint_names(run) == ["base", "oof-2"]
    score(demo_data, tiny_model_folder, run, proxy=PROXY.model_copy(update={"folds": 1}))
    assert checkpoint_names(run) == ["base", "oof-2", "insample-4"]
