"""The scoring job on a folder begun with other settings: refused, or with --overwrite begun afresh."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rmo_curate.filter.command import run_filter
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.score.checks import check_inputs
from rmo_curate.score.command import run_proxy
from rmo_train.console.errors import UserError
from rmo_train.store.manifests import InputFile
from tests.manifests import manifest_of
from tests.rmo_curate.scored import (
    PARTS,
    PROXY,
    checkpoint_names,
    contents,
    demo_records,
    marks,
    perturbed,
    score,
    write_jsonl,
)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"max_length": 512}, "max_length: the folder has 2048, you asked for 512"),
        ({"limit": 8}, "limit: the folder has None, you asked for 8"),
        ({"part_size": 8}, "part_size: the folder has 4, you asked for 8"),
        ({"dtype": "bfloat16"}, "dtype: the folder has 'float32', you asked for 'bfloat16'"),
    ],
)
def test_other_settings_are_refused_naming_the_field(demo_data, tiny_model_folder, run, settings, field):
    before = marks(run)
    for dry_run in (True, False):
        with pytest.raises(UserError) as error:
            score(demo_data, tiny_model_folder, run, proxy=PROXY, dry_run=dry_run, **settings)
        assert field in str(error.value) and "--overwrite" in str(error.value)
    assert marks(run) == before


def test_another_model_is_refused_naming_what_differs(demo_data, tiny_model_folder, run, tmp_path):
    other = perturbed(tiny_model_folder, tmp_path / "other")
    before = marks(run)
    with pytest.raises(UserError) as error:
        score(demo_data, other, run)
    assert "weights_sha256" in str(error.value) and f"of --model {other}" in str(error.value)
    assert "tokenizer" not in str(error.value) and marks(run) == before


def test_other_data_are_refused_by_name(demo_data, tiny_model_folder, run, tmp_path):
    other = write_jsonl(tmp_path / "other.jsonl", demo_records(15))
    with pytest.raises(UserError) as error:
        score(other, tiny_model_folder, run, proxy=PROXY)
    assert f"made from other data: the folder has {demo_data}, you gave {other}. " in str(error.value)
    before, now = (InputFile(str(demo_data), 1, sha256) for sha256 in ("a", "b"))
    with pytest.raises(UserError, match="its content has changed since"):
        check_inputs([before], [now], run)
    check_inputs([before], [InputFile("moved.jsonl", 1, "a")], run)


def test_auto_dtype_is_what_the_run_was_begun_with(demo_data, tiny_model_folder, run, monkeypatch, nothing_computed):
    monkeypatch.setattr("rmo_train.model.policy.cpu_has_bfloat16", lambda: True)
    score(demo_data, tiny_model_folder, run, proxy=PROXY, dtype="auto")
    assert manifest_of(run)["reference"]["dtype"] == "float32"


def test_overwrite_starts_afresh(tiny_model_folder, run, tmp_path):
    run_proxy(run, PROXY.model_copy(update={"seed": 7}))
    other = write_jsonl(tmp_path / "other.jsonl", demo_records(12))
    score(other, tiny_model_folder, run, proxy=PROXY, overwrite=True)
    score(other, tiny_model_folder, tmp_path / "fresh", proxy=PROXY)
    assert contents(run) == contents(tmp_path / "fresh")
    score(other, tiny_model_folder, run, overwrite=True)
    assert checkpoint_names(run) == ["base"] and not (run / "proxies").exists()


def test_overwrite_keeps_what_no_stage_wrote(demo_data, tiny_model_folder, run):
    (run / "notes.txt").write_text("mine")
    score(demo_data, tiny_model_folder, run, overwrite=True)
    assert (run / "notes.txt").read_text() == "mine"


def test_overwrite_never_removes_what_it_reads(demo_data, tiny_model_folder, run):
    before = marks(run)
    model = run / "proxies" / "oof" / "fold-0" / "step-2"
    with pytest.raises(UserError, match=r"--overwrite would remove .*fold-0/step-2"):
        score(demo_data, tiny_model_folder, run, checkpoints=[str(model)], overwrite=True)
    inside = shutil.copy(demo_data, run / "pairs" / "data.jsonl")
    with pytest.raises(UserError, match=r"--overwrite would remove .*data.jsonl"):
        score(inside, tiny_model_folder, run, overwrite=True)
    Path(inside).unlink()
    assert marks(run) == before


@pytest.mark.parametrize("kind", ["shards", "training data", "text"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_alone(demo_data, tiny_model_folder, run, tmp_path, kind, overwrite):
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
    with pytest.raises(UserError, match=f"--out {out}: the folder holds files that do not belong to a run"):
        score(demo_data, tiny_model_folder, out, overwrite=overwrite)
    assert marks(out) == before
