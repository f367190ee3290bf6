"""The scoring job end to end on the tiny model: what is written, what a kill loses, what a second call does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from rmo_curate import job, proxies
from rmo_curate.engines.transformers import TransformersEngine
from rmo_curate.filter_settings import FilterSettings
from rmo_curate.filtering import run_filter
from rmo_curate.job import run_proxy
from rmo_curate.run_folder import run_status
from rmo_curate.runs import open_run
from rmo_train import tables
from rmo_train.errors import UserError
from rmo_train.models import weights_hash
from rmo_train.pairs import open_pairs
from tests.rmo_curate.scored import (
    PROXY,
    Killed,
    contents,
    demo_records,
    marks,
    perturbed,
    record,
    score,
    write_jsonl,
)

PARTS = "part-*.parquet"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "pairs.jsonl", demo_records(16))


@pytest.fixture(scope="module")
def full_run(data, tiny_model_folder, tmp_path_factory) -> Path:
    """A finished run with two cross-fitted proxies. Read only."""
    run = tmp_path_factory.mktemp("runs") / "full"
    score(data, tiny_model_folder, run, proxy_folds=2)
    return run


@pytest.fixture
def run(full_run, tmp_path) -> Path:
    """A copy of the finished run that a test may change."""
    return shutil.copytree(full_run, tmp_path / "run")


@pytest.fixture
def nothing_computed(monkeypatch):
    """From here on, loading a model to score or to train fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(job, "TransformersEngine", refuse)
    monkeypatch.setattr("rmo_train.run.build_job", refuse)


def scores(run: Path, name: str) -> dict[str, tuple[float, float]]:
    table = tables.read_table(run / "scores" / name, tables.read_manifest(run / "scores" / name), tables.SCORE_SCHEMA)
    rows = table.to_pylist()
    return {r["id"]: (r["chosen_logp"], r["rejected_logp"]) for r in rows}


def names(run: Path) -> list[str]:
    return [c["name"] for c in tables.read_manifest(run)["checkpoints"]]


# ---------------------------------------------------------------------------------------------------- what is written


def test_every_record_is_a_pair_or_a_reject(tiny_model_folder, tmp_path):
    records = [*(record(i) for i in range(9)), "{broken", record(0), record(10, chosen=""), record(11, chosen=5)]
    data = write_jsonl(tmp_path / "d.jsonl", records)
    run = tmp_path / "run"
    lines = score(data, tiny_model_folder, run, part_size=2)
    manifest = tables.read_manifest(run)
    assert manifest["counts"] == {"records": 13, "pairs": 9, "rejects": 4, "too_long": 0, "scorable": 9}
    assert manifest["rejects"] == {"broken_line": 1, "duplicate": 1, "empty_response": 1, "not_text": 1}
    opened = open_run(run)
    rejects = opened.rejects().to_pylist()
    assert [(r["line"], r["reason"]) for r in rejects] == [
        (10, "broken_line"),
        (11, "duplicate"),
        (12, "empty_response"),
        (13, "not_text"),
    ]
    assert rejects[0]["raw"] == "{broken"
    assert opened.pairs(["id"]).num_rows == len(scores(run, "base")) == 9
    assert lines[0].startswith("13 records = 9 pairs + 4 rejects; 0 pairs too long; scored: base")


def test_a_pair_that_the_template_refuses_is_a_reject(tiny_model_folder, tmp_path):
    model = shutil.copytree(tiny_model_folder, tmp_path / "strict")
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (model / "chat_template.jinja").write_text(template)

    def turns(i, *prompt):
        return {
            "prompt": [{"role": r, "content": f"text {i}"} for r in prompt],
            "chosen": [{"role": "assistant", "content": f"good {i}"}],
            "rejected": [{"role": "assistant", "content": f"bad {i}"}],
        }

    records = [turns(0, "user"), turns(1, "system", "user"), turns(2, "user"), turns(3, "user")]
    data = write_jsonl(tmp_path / "d.jsonl", records)
    score(data, model, tmp_path / "run")
    assert tables.read_manifest(tmp_path / "run")["counts"]["rejects"] == 1
    (reject,) = open_run(tmp_path / "run").rejects().to_pylist()
    assert (reject["line"], reject["reason"]) == (2, "bad_messages") and "no system turn" in reject["detail"]
    with pytest.raises(UserError, match=r"1 of 4 records rejected \(1 bad_messages\), more than --max-rejects 0.2"):
        score(data, model, tmp_path / "other", max_rejects=0.2)
    only = write_jsonl(tmp_path / "only.jsonl", records[1:2])
    with pytest.raises(UserError, match="chat template renders none of the pairs"):
        score(only, model, tmp_path / "none")


def test_pairs_over_the_length_are_flagged_and_not_scored(tiny_model_folder, tmp_path):
    data = write_jsonl(tmp_path / "d.jsonl", [record(0), record(1, chosen="word " * 200), record(2)])
    run = tmp_path / "run"
    score(data, tiny_model_folder, run, max_length=64)
    assert tables.read_manifest(run)["counts"] | {"records": 0} == {
        "records": 0,
        "pairs": 3,
        "rejects": 0,
        "too_long": 1,
        "scorable": 2,
    }
    assert open_run(run).pairs(["flags"])["flags"].to_pylist() == [[], ["too_long"], []]
    assert len(scores(run, "base")) == 2
    with pytest.raises(UserError, match="all 3 pairs are longer than 8 tokens"):
        score(data, tiny_model_folder, tmp_path / "short", max_length=8)


def test_scores_are_those_of_a_plain_padded_forward(tiny_model_folder, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    score(write_jsonl(tmp_path / "d.jsonl", demo_records(32)), tiny_model_folder, tmp_path / "run", part_size=8)
    pairs, found = open_pairs(tmp_path / "run"), scores(tmp_path / "run", "base")
    assert len(pairs) == len(found) == 32
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32).eval()
    for at in range(0, 32, 8):
        rows = [
            (np.concatenate([pairs.prompt[i], y]), len(pairs.prompt[i]))
            for i in range(at, at + 8)
            for y in (pairs.chosen[i], pairs.rejected[i])
        ]
        ids = torch.zeros(16, max(len(r) for r, _ in rows), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for k, (row, _) in enumerate(rows):
            ids[k, : len(row)], mask[k, : len(row)] = torch.from_numpy(row).long(), 1
        with torch.no_grad():
            logps = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        for k, (row, start) in enumerate(rows):
            expected = sum(float(logps[k, t - 1, row[t]]) for t in range(start, len(row)))
            assert found[pairs.ids[at + k // 2]][k % 2] == pytest.approx(expected, abs=1e-4)


def test_score_parts_end_where_a_prompt_ends(tiny_model_folder, tmp_path):
    sizes = [3, 1, 4, 1, 1, 6, 1]  # pairs of each prompt, dealt in turns so that groups are not contiguous in the data
    order = sorted((k, g) for g, n in enumerate(sizes) for k in range(n))
    records = [record(g, chosen=f"answer {k}") for k, g in order]
    run = tmp_path / "run"
    score(write_jsonl(tmp_path / "d.jsonl", records), tiny_model_folder, run, part_size=4)
    group_of = dict(zip(open_pairs(run).ids, open_pairs(run).groups, strict=True))
    parts = [pq.read_table(p)["id"].to_pylist() for p in sorted((run / "scores" / "base").glob(PARTS))]
    assert [len(p) for p in parts] == [4, 4, 8, 1]  # 3+1 | 4 | 1+1+6 | 1: at least 4 but for the last
    groups = [{group_of[i] for i in part} for part in parts]
    assert sum(len(g) for g in groups) == len(set.union(*groups)) == len(sizes)


# ---------------------------------------------------------------------------------------------------- proxies


def test_no_proxy_scores_a_prompt_that_it_was_trained_on(data, tiny_model_folder, tmp_path, monkeypatch):
    trained, scored = {}, {}
    build_job, engine_score = __import__("rmo_train.run").run.build_job, TransformersEngine.score

    def spy_train(data, plan, model, folder, *args, **kwargs):
        trained[folder.name] = set(data.groups)
        return build_job(data, plan, model, folder, *args, **kwargs)

    def spy_score(self, data, rows, *args):
        if "/proxies/" in self.checkpoint:
            scored.setdefault(Path(self.checkpoint).parent.name, set()).update(data.groups[rows])
        return engine_score(self, data, rows, *args)

    monkeypatch.setattr("rmo_train.run.build_job", spy_train)
    monkeypatch.setattr(TransformersEngine, "score", spy_score)
    run = tmp_path / "run"
    score(data, tiny_model_folder, run, proxy_folds=3)
    everything = set(open_pairs(run).groups)
    assert set(trained) == set(scored) == {"fold-0", "fold-1", "fold-2"}
    for fold in trained:
        assert trained[fold] | scored[fold] == everything and not trained[fold] & scored[fold]
    split = {r["id"]: (r["group"], r["fold"]) for r in pq.read_table(run / "proxies/oof/split.parquet").to_pylist()}
    stage = run / "scores" / names(run)[-1]
    rows = tables.read_table(stage, tables.read_manifest(stage), tables.SCORE_SCHEMA).to_pylist()
    assert all(row["held_out"] is True and row["fold"] == split[row["id"]][1] for row in rows)
    assert {group for group, fold in split.values() if fold == 0} == scored["fold-0"]


def test_all_folds_train_the_same_number_of_steps(tiny_model_folder, tmp_path):
    records = [record(0, chosen=f"a {k}") for k in range(9)] + [record(1), record(2), record(3)]
    run = tmp_path / "run"
    proxy = PROXY.model_copy(update={"batch_size": 2, "steps": (2,)})
    score(write_jsonl(tmp_path / "d.jsonl", records), tiny_model_folder, run, proxy_folds=2, proxy=proxy)
    logged = {
        f.name: [json.loads(line)["step"] for line in (f / "metrics.jsonl").read_text().splitlines()]
        for f in (run / "proxies" / "oof").glob("fold-*")
    }
    assert logged == {
        "fold-0": [1, 2, 3, 4, 5],
        "fold-1": [1, 2, 3, 4, 5],
    }  # 10 pairs, though one part has 2
    assert names(run) == ["base", "oof-2", "oof-5"]
    split = pq.read_table(run / "proxies/oof/split.parquet")["fold"].to_pylist()
    assert sorted([split.count(0), split.count(1)]) == [2, 10]


def test_the_in_sample_proxy_of_the_paper(data, tiny_model_folder, tmp_path):
    run = tmp_path / "run"
    score(data, tiny_model_folder, run, proxy_folds=1)
    entry = tables.read_manifest(run)["checkpoints"][-1]
    assert entry["name"] == "insample-4" and entry["held_out"] is False and entry["folds"] == 1
    table = pq.read_table(run / "scores" / "insample-4" / "part-00000.parquet")
    assert set(table["fold"].to_pylist()) == {-1} and set(table["held_out"].to_pylist()) == {False}
    said = run_filter(run, tmp_path / "shards", FilterSettings(preset="paper"))
    assert any("T = insample-4, NOT held out" in line for line in said)
    manifest = tables.read_manifest(tmp_path / "shards")
    assert manifest["end"] == "insample-4" and manifest["held_out"] is False


def test_a_second_family_has_its_own_name_and_never_mixes(run):
    first = marks(run / "scores" / "oof-2") | marks(run / "proxies" / "oof")
    run_proxy(run, PROXY.model_copy(update={"seed": 7}))
    run_proxy(run, PROXY.model_copy(update={"folds": 1}))
    assert marks(run / "scores" / "oof-2") | marks(run / "proxies" / "oof") == first
    base, oof, other, insample = names(run)
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
        proxy_folds=2,
        proxy=proxy,
    )
    assert names(run) == ["base", "oof-1"]
    assert tables.read_json(run / "proxies/oof/family.json")["key"]["batch_size"] == 3


def test_a_proxy_of_all_weights_is_another_family(run):
    run_proxy(run, PROXY.model_copy(update={"lora": None, "full": True}))
    added = names(run)[-1]
    assert re.fullmatch(r"oof-[0-9a-f]{8}-2", added)
    models = list((run / "proxies" / added.rpartition("-")[0]).glob("fold-*/step-2/model.safetensors"))
    assert len(models) == 2


def test_a_proxy_is_saved_in_an_order_that_no_process_chooses(run):
    adapter = run / "proxies" / "oof" / "fold-0" / "step-2"
    config = tables.read_json(adapter / "adapter_config.json")
    assert config["target_modules"] == sorted(config["target_modules"]) and len(config["target_modules"]) > 7
    before = weights_hash(str(adapter))
    tables.write_json(adapter / "adapter_config.json", config | {"target_modules": config["target_modules"][::-1]})
    assert weights_hash(str(adapter)) == before


# ---------------------------------------------------------------------------------------------------- doing it again


def test_a_second_call_computes_and_writes_nothing(data, tiny_model_folder, run, nothing_computed):
    before = marks(run)
    score(data, tiny_model_folder, run, proxy_folds=2)
    assert marks(run) == before


def test_the_same_model_and_data_under_other_names_are_the_same(
    data, tiny_model_folder, run, tmp_path, nothing_computed
):
    moved = shutil.copytree(tiny_model_folder, tmp_path / "moved")
    score(shutil.copy(data, tmp_path / "again.jsonl"), moved, run, proxy_folds=2)
    assert names(run) == ["base", "oof-2"]
    assert tables.read_manifest(run)["reference"]["name"] == str(moved)


WRITES = {  # kind of file -> how many of them are written before the kill
    "pairs": ("pairs/part", 3),
    "pairs manifest": ("pairs/manifest", 0),
    "run manifest": ("run/manifest", 0),
    "base, first part": ("base/part", 0),
    "base, third part": ("base/part", 2),
    "base manifest": ("base/manifest", 0),
    "split": ("oof/split", 0),
    "first proxy": ("fold-0/step-2/trained", 0),
    "second proxy": ("fold-1/step-2/trained", 0),
    "proxy scores of the second fold": ("oof-2/part", 3),
    "proxy scores, manifest": ("oof-2/manifest", 0),
}


KILLS = [(at, False) for at in WRITES]
KILLS += [(at, True) for at in ("pairs", "base, third part", "second proxy", "proxy scores of the second fold")]


@pytest.mark.parametrize(("at", "renamed"), KILLS, ids=[f"{'after' if r else 'before'} {at}" for at, r in KILLS])
def test_a_killed_run_goes_on_to_the_same_bytes(data, tiny_model_folder, full_run, tmp_path, monkeypatch, at, renamed):
    pattern, allowed = WRITES[at]
    run = tmp_path / "full"
    write, seen = tables.write_bytes, []

    def killed(path, content):
        if re.search(re.escape(pattern), path.as_posix().replace("/full/manifest", "/run/manifest")):
            seen.append(path)
            if len(seen) > allowed:
                if renamed:
                    write(path, content)
                else:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.with_name(f".{path.name}.tmp").write_bytes(content[: len(content) // 2])
                raise Killed
        write(path, content)

    with monkeypatch.context() as patch:
        for module in ("rmo_train.tables", "rmo_train.checkpoint"):
            patch.setattr(f"{module}.write_bytes", killed)
        with pytest.raises(Killed):
            score(data, tiny_model_folder, run, proxy_folds=2)
    journals = [tables.read_json(m)["parts"] for m in run.rglob("manifest.json") if m.parent != run]
    finished = {p["file"] for parts in journals for p in parts}
    survivors = {f: m for f, m in marks(run, PARTS).items() if _recorded(run / f)}
    assert finished or survivors or at in ("pairs manifest", "pairs")
    score(data, tiny_model_folder, run, proxy_folds=2)
    assert {f: m for f, m in marks(run, PARTS).items() if f in survivors} == survivors
    assert _without_leftovers(contents(run)) == contents(full_run)


def _recorded(part: Path) -> bool:
    """Whether a part was recorded as finished, in a manifest or a journal."""
    records = [part.parent / name for name in (tables.MANIFEST, tables.JOURNAL)]
    return any(part.name in r.read_text() for r in records if r.is_file())


def _without_leftovers(found: dict[str, bytes]) -> dict[str, bytes]:
    """Half-written temporary files of the kill stay behind under names that no reader takes for data."""
    return {name: content for name, content in found.items() if not Path(name).name.startswith(".")}


def test_training_killed_between_two_steps_that_are_kept(data, tiny_model_folder, tmp_path, monkeypatch):
    proxy = PROXY.model_copy(update={"steps": (1,)})
    score(data, tiny_model_folder, tmp_path / "whole", proxy_folds=2, proxy=proxy)
    save, saved = __import__("rmo_train.loop").loop.save_model, []

    def killed(model, tokenizer, out):
        saved.append(out)
        if len(saved) == 4:  # of fold 1, after the first step's model
            raise Killed
        save(model, tokenizer, out)

    with monkeypatch.context() as patch:
        patch.setattr("rmo_train.loop.save_model", killed)
        with pytest.raises(Killed):
            score(data, tiny_model_folder, tmp_path / "run", proxy_folds=2, proxy=proxy)
    fold = marks(tmp_path / "run/proxies/oof/fold-0")
    assert any("proxies/oof: not finished (2 of 4 models)" in line for line in run_status(tmp_path / "run"))
    score(data, tiny_model_folder, tmp_path / "run", proxy_folds=2, proxy=proxy)
    assert marks(tmp_path / "run/proxies/oof/fold-0") == fold
    whole = contents(tmp_path / "whole")
    assert contents(tmp_path / "run") == whole and "scores/oof-1/manifest.json" in whole


@pytest.mark.parametrize("stage", ["pairs", "rejects", "scores/base", "scores/oof-2"])
@pytest.mark.parametrize("damage", ["truncated", "zeros", "gone"])
def test_a_damaged_part_is_said_and_made_again(data, tiny_model_folder, run, full_run, capsys, stage, damage):
    part = sorted((run / stage).glob(PARTS))[-1]
    others = {f: m for f, m in marks(run, PARTS).items() if f != part.relative_to(run).as_posix()}
    good = part.read_bytes()
    if damage == "gone":
        part.unlink()
    else:
        part.write_bytes(good[: len(good) // 2] if damage == "truncated" else bytes(len(good)))
    score(data, tiny_model_folder, run, proxy_folds=2)
    assert f"{stage}: {part.name} was damaged" in capsys.readouterr().err
    assert contents(run) == contents(full_run)
    assert {f: m for f, m in marks(run, PARTS).items() if f in others} == others


def test_a_part_damaged_after_a_kill_is_said_and_made_again(
    data, tiny_model_folder, full_run, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    engine_score, calls = TransformersEngine.score, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 4:
            raise Killed
        return engine_score(*args)

    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "score", killed)
        with pytest.raises(Killed):
            score(data, tiny_model_folder, run, proxy_folds=2)
    assert not (run / "scores/base/manifest.json").exists()
    first = run / "scores/base/part-00000.parquet"
    first.write_bytes(bytes(first.stat().st_size))
    calls.clear()
    score(data, tiny_model_folder, run, proxy_folds=2)
    assert "scores/base: part-00000.parquet was damaged and is scored again" in capsys.readouterr().err
    assert contents(run) == contents(full_run)


# ---------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoints_are_scored_in_the_order_given(data, tiny_model_folder, tmp_path):
    later = perturbed(tiny_model_folder, tmp_path / "step 20", seed=2)
    early = perturbed(tiny_model_folder, tmp_path / "step.10", seed=1)
    run = tmp_path / "run"
    score(data, tiny_model_folder, run, proxy_folds=None, checkpoints=[f"{later}/", str(early)])
    base, first, second = names(run)  # a checkpoint is given, so no proxy is trained
    assert base == "base"
    assert re.fullmatch(r"step-20-[0-9a-f]{8}", first) and re.fullmatch(r"step\.10-[0-9a-f]{8}", second)
    assert all(e["kind"] == "user" and e["held_out"] is None for e in tables.read_manifest(run)["checkpoints"][1:])
    assert scores(run, first) != scores(run, second) != scores(run, "base")
    assert open_run(run).trajectory().names == (base, first, second)


def test_a_checkpoint_given_later_is_only_added(data, tiny_model_folder, run, tmp_path, monkeypatch):
    first = perturbed(tiny_model_folder, tmp_path / "zz", seed=1)
    second = perturbed(tiny_model_folder, tmp_path / "aa", seed=2)
    loaded = []

    class Engine(TransformersEngine):
        def __post_init__(self):
            loaded.append(Path(self.checkpoint).name)
            super().__post_init__()

    monkeypatch.setattr(job, "TransformersEngine", Engine)
    before = {f: m for f, m in marks(run).items() if f != "manifest.json"}
    score(data, tiny_model_folder, run, proxy_folds=None, checkpoints=[str(first)])
    score(data, tiny_model_folder, run, proxy_folds=None, checkpoints=[str(second)])
    assert loaded == ["zz", "aa"]
    assert {f: m for f, m in marks(run).items() if f in before} == before
    base, one, two, oof = names(run)
    assert (base, one[:3], two[:3], oof) == ("base", "zz-", "aa-", "oof-2")
    score(data, tiny_model_folder, run, proxy_folds=None, checkpoints=[str(second), str(first)])
    assert names(run) == [base, one, two, oof] and loaded == ["zz", "aa"]


def test_proxies_can_be_added_to_a_run_without(data, tiny_model_folder, full_run, tmp_path):
    run = tmp_path / "run"
    score(data, tiny_model_folder, run)
    run_proxy(run, PROXY)
    assert contents(run) == contents(full_run)


# ---------------------------------------------------------------------------------------------------- other settings


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_length": 512}, "max_length: the folder has 1024, you asked for 512"),
        ({"limit": 8}, "limit: the folder has None, you asked for 8"),
        ({"part_size": 8}, "part_size: the folder has 4, you asked for 8"),
        ({"dtype": "bfloat16"}, "dtype: the folder has 'float32', you asked for 'bfloat16'"),
    ],
)
def test_other_settings_are_refused_naming_the_field(data, tiny_model_folder, run, settings, field):
    before = marks(run)
    for dry_run in (True, False):
        with pytest.raises(UserError) as error:
            score(data, tiny_model_folder, run, proxy_folds=2, dry_run=dry_run, **settings)
        assert field in str(error.value) and "--overwrite" in str(error.value)
    assert marks(run) == before


def test_another_model_is_refused_naming_what_differs(data, tiny_model_folder, run, tmp_path):
    other = perturbed(tiny_model_folder, tmp_path / "other")
    before = marks(run)
    with pytest.raises(UserError) as error:
        score(data, other, run)
    assert "weights_sha256" in str(error.value) and f"of --model {other}" in str(error.value)
    assert "tokenizer" not in str(error.value) and marks(run) == before


def test_other_data_are_refused_naming_the_field(tiny_model_folder, run, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", demo_records(15))
    with pytest.raises(UserError, match="inputs: the folder has"):
        score(other, tiny_model_folder, run, proxy_folds=2)


def test_auto_dtype_is_what_the_run_was_begun_with(data, tiny_model_folder, run, monkeypatch, nothing_computed):
    monkeypatch.setattr("rmo_train.policy._cpu_has_bfloat16", lambda: True)
    score(data, tiny_model_folder, run, proxy_folds=2, dtype="auto")
    assert tables.read_manifest(run)["reference"]["dtype"] == "float32"


def test_overwrite_starts_afresh(tiny_model_folder, run, tmp_path):
    run_proxy(run, PROXY.model_copy(update={"seed": 7}))
    other = write_jsonl(tmp_path / "other.jsonl", demo_records(12))
    score(other, tiny_model_folder, run, proxy_folds=2, overwrite=True)
    score(other, tiny_model_folder, tmp_path / "fresh", proxy_folds=2)
    assert contents(run) == contents(tmp_path / "fresh")
    score(other, tiny_model_folder, run, overwrite=True)
    assert names(run) == ["base"] and not (run / "proxies").exists()


def test_overwrite_keeps_what_no_stage_wrote(data, tiny_model_folder, run):
    (run / "notes.txt").write_text("mine")
    score(data, tiny_model_folder, run, overwrite=True)
    assert (run / "notes.txt").read_text() == "mine"


def test_overwrite_never_removes_what_it_reads(data, tiny_model_folder, run):
    before = marks(run)
    model = run / "proxies" / "oof" / "fold-0" / "step-2"
    with pytest.raises(UserError, match=r"--overwrite would remove .*fold-0/step-2"):
        score(data, tiny_model_folder, run, checkpoints=[str(model)], overwrite=True)
    inside = shutil.copy(data, run / "pairs" / "data.jsonl")
    with pytest.raises(UserError, match=r"--overwrite would remove .*data.jsonl"):
        score(inside, tiny_model_folder, run, overwrite=True)
    Path(inside).unlink()
    assert marks(run) == before


@pytest.mark.parametrize("kind", ["shards", "training data", "text"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_alone(data, tiny_model_folder, run, tmp_path, kind, overwrite):
    out = tmp_path / "out"
    if kind == "shards":
        run_filter(run, out, FilterSettings(rule="none"))
    elif kind == "training data":
        (out / "pairs").mkdir(parents=True)
        shutil.copy(next((run / "pairs").glob(PARTS)), out / "pairs" / "train.parquet")
    else:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    before = marks(out)
    with pytest.raises(UserError, match=f"--out {out}: the folder has files that are no run"):
        score(data, tiny_model_folder, out, overwrite=overwrite)
    assert marks(out) == before


# ---------------------------------------------------------------------------------------------------- dry run, status


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(data, tiny_model_folder, tmp_path, nothing_computed):
    lines = score(data, tiny_model_folder, tmp_path / "run", proxy_folds=2, dry_run=True)
    assert not (tmp_path / "run").exists()
    said = "\n".join(lines)
    score_tokens = re.search(r"16 records, 16 pairs, about ([\d,]+) tokens a pass", said)
    assert score_tokens and "GiB), transformers engine, float32" in said
    assert "2 scoring passes" in said and "2 proxies to train, about 2 steps each" in said


def test_the_dry_run_of_a_proxy_names_its_family(full_run):
    before = marks(full_run)
    (line,) = run_proxy(full_run, PROXY.model_copy(update={"seed": 7, "steps": (1,)}), dry_run=True)
    assert re.match(r"would train 2 proxies of 2 steps of 4 pairs and score steps \[1, 2\] as oof-[0-9a-f]{8}", line)
    assert marks(full_run) == before


def test_the_tokens_of_a_dry_run_are_those_of_the_run(data, tiny_model_folder, full_run, tmp_path):
    lines = score(data, tiny_model_folder, tmp_path / "run", dry_run=True)
    pairs = open_pairs(full_run)
    tokens = int(sum(r.lengths.sum() for r in (pairs.prompt, pairs.chosen, pairs.rejected)))
    assert lines[0] == f"16 records, 16 pairs, about {tokens:,} tokens a pass"


def test_status_says_what_is_done_and_what_is_left(data, tiny_model_folder, full_run, tmp_path, monkeypatch):
    assert run_status(full_run) == [
        "pairs: done, 16 rows",
        "rejects: done, 0 rows",
        "proxies/oof: done",
        "scores/base: done, 16 pairs",
        "scores/oof-2: done, 16 pairs",
        "nothing is left",
    ]

    def killed(*args):
        raise Killed

    run = tmp_path / "run"
    monkeypatch.setattr(TransformersEngine, "score", killed)
    with pytest.raises(Killed):
        score(data, tiny_model_folder, run, proxy_folds=2)
    assert run_status(run)[2:] == [
        "proxies/oof: not finished (0 of 2 models)",
        "scores/base: not finished (0 parts)",
        "scores/oof-2: not finished (0 parts)",
        "to go on, run the same command again",
    ]


def test_a_family_that_was_never_begun_gives_its_name_up(data, tiny_model_folder, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def killed(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(proxies, "train_proxy", killed)
        with pytest.raises(Killed):
            score(data, tiny_model_folder, run, proxy_folds=2)
    score(data, tiny_model_folder, run, proxy_folds=2, proxy=PROXY.model_copy(update={"seed": 7}))
    assert names(run) == ["base", "oof-2"]
    score(data, tiny_model_folder, run, proxy_folds=1)
    assert names(run) == ["base", "oof-2", "insample-4"]
