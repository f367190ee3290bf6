"""The Python API of curation: what it makes is what the commands make, and mistakes are named as in Python."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import datasets
import pandas as pd
import polars as pl
import pytest

import rmo_curate
from rmo_curate.score.settings import ScoreSettings
from rmo_train.store.manifests import read_json
from tests.command_line import curate
from tests.rmo_curate.scored import contents, demo_records, marks, record, write_jsonl

FRAMES = {"polars": pl.DataFrame, "pandas": pd.DataFrame, "dataset": datasets.Dataset.from_list}
TINY = {"dtype": "float32", "part_size": 4}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def scored(model: Path, tmp_path: Path) -> rmo_curate.Run:
    """Twelve demo pairs, one of them no pair, scored with a probe."""
    rows = demo_records(12)
    rows[3] |= {"rejected": rows[3]["chosen"]}
    return rmo_curate.score(rows, model, tmp_path / "scored", **TINY)


def numbers(run: rmo_curate.Run) -> pl.DataFrame:
    return run.pairs().drop("reasons")


def test_the_api_and_the_commands_make_the_same_folders(data, model, tmp_path, capsys):
    own = rmo_curate.score(data.name, str(model), tmp_path / "own", **TINY, limit=6)
    shards = own.filter(tmp_path / "own-shards", low_q=0.2, high_q=0.5, rule="irm", seed=3)
    assert capsys.readouterr().out == ""
    flags = ("--dtype", "float32", "--part-size", 4, "--limit", 6)
    assert curate("score", data.name, "--model", model, "--out", tmp_path / "run", *flags).code == 0
    cuts = ("--low-q", 0.2, "--high-q", 0.5, "--rule", "irm", "--seed", 3)
    assert curate("filter", tmp_path / "run", "--out", tmp_path / "shards", *cuts).code == 0
    assert contents(tmp_path / "own") == contents(tmp_path / "run")
    assert contents(shards.path) == contents(tmp_path / "shards")


@pytest.mark.parametrize("kind", FRAMES)
def test_a_frame_has_the_ids_and_numbers_of_the_file(kind, model, tmp_path):
    rows = demo_records(6)
    file = rmo_curate.score(write_jsonl(tmp_path / "a.jsonl", rows), model, **TINY, proxy="none")
    run = rmo_curate.score(FRAMES[kind](rows), model, **TINY, proxy="none")
    base = [{k: v for k, v in contents(r.path / "scores/base").items() if k.startswith("part")} for r in (file, run)]
    assert base[0] == base[1]
    assert set(run.pairs(reasons=False)["source_file"]) == {"data in memory"}  # the only thing that differs
    assert numbers(run).drop("source_file").equals(numbers(file).drop("source_file"))


def test_without_out_the_same_content_finds_its_folder_again(model, cache, capsys, nothing_computed_after):
    rows = demo_records(5)
    run = rmo_curate.score(rows, model, **TINY)
    assert run.path.parent == cache / "runs" and f"runs: {run.path}" in capsys.readouterr().err
    nothing_computed_after()
    before = marks(run.path)
    for make in FRAMES.values():
        assert rmo_curate.score(make(rows), model, **TINY) == run
    assert marks(run.path) == before
    shards = run.filter(rule="none")
    assert shards.path.parent == cache / "shards" and run.filter(rule="none") == shards
    assert run.filter(rule="none", seed=1) != shards


def test_without_out_other_content_or_settings_have_another_folder(model, cache):
    rows = demo_records(4)
    runs = [
        rmo_curate.score(rows, model, **TINY, proxy="none"),
        rmo_curate.score(rows[:-1], model, **TINY, proxy="none"),
        rmo_curate.score(rows, model, **(TINY | {"part_size": 2}), proxy="none"),
        rmo_curate.score(rows, model, **TINY, proxy={"folds": 2}),
    ]
    assert len({run.path for run in runs}) == len(runs)


@pytest.fixture
def nothing_computed_after(request):
    return lambda: request.getfixturevalue("nothing_computed")


def test_the_pairs_of_a_run_are_a_frame(scored):
    frame = scored.pairs()
    first = demo_records(1)[0]
    assert scored.counts == {"records": 12, "pairs": 11, "rejects": 1, "too_long": 0, "scorable": 11}
    assert scored.checkpoints == ("base", "oof-probe")
    assert frame.row(0, named=True)["chosen"] == first["chosen"][0]["content"]
    assert {"id", "topic", "flags", "margin_base", "margin_oof-probe", "label_confidence"} <= set(frame.columns)
    assert "chosen_ids" not in frame.columns and "reasons" not in scored.pairs(reasons=False).columns
    assert frame["label_confidence"].is_between(0, 1).all()
    assert any("the chosen answer's style" in text for text in frame["reasons"][0])
    assert scored.rejects()["reason"].to_list() == ["identical_responses"]
    assert rmo_curate.open_run(scored.path) == scored


def test_margins_are_those_that_the_run_was_made_with(make_run):
    run = rmo_curate.open_run(make_run({"base": [1.25, -2.0, 0.5], "oof-16": [2.0, -3.5, 0.25]}, too_long=[2]))
    frame = run.pairs()
    assert frame["margin_base"].to_list() == [1.25, -2.0, None]
    assert frame["margin_oof-16"].to_list() == [2.0, -3.5, None]


def test_kept_and_dropped_pairs_are_all_pairs(scored):
    shards = scored.filter(low_q=0.5, hard=True)
    kept, dropped = shards.kept(), shards.dropped()
    assert (len(kept), len(dropped)) == (shards.counts["kept"], shards.counts["ambiguous"]) and len(dropped)
    assert sorted([*kept["id"], *dropped["id"]]) == sorted(scored.pairs()["id"])
    assert set(dropped["drop_reason"]) == {"ambiguous"}


def test_shards_go_to_another_trainer(scored, tmp_path):
    out = scored.filter(rule="none").export("trl", tmp_path / "trl")
    assert (out / "README.md").is_file()
    with pytest.raises(rmo_curate.UserError, match=r"'tlr'.*trl, llama-factory"):
        scored.filter(rule="none").export("tlr", tmp_path / "trl")


def test_a_proxy_is_added_to_a_run(model, tmp_path):
    run = rmo_curate.score(demo_records(6), model, tmp_path / "run", **TINY, proxy="none")
    assert run.checkpoints == ("base",)
    assert run.proxy(folds=2).checkpoints == ("base", "oof-probe")


def test_a_report_is_shown_in_a_notebook_whole_and_apart(scored, tmp_path):
    report = scored.report(tmp_path / "report", worst=3, filtering={"rule": "irm", "high_q": 0.5})
    shown = report._repr_html_()
    assert shown.startswith("<iframe ") and "allow-same-origin" not in shown and shown.count("<") == 2
    assert 'srcdoc="&lt;!doctype html&gt;' in shown
    assert report.numbers == read_json(tmp_path / "report" / "audit.json")
    assert report.numbers["filter"]["rule"] == "irm" and len(report.numbers["suspects"]) == 3


def test_data_are_audited_without_a_model_and_gates_are_told(tmp_path):
    rows = [record(i) for i in range(12)]
    found = rmo_curate.audit(rows, fail_on=("length_bias>0.5",))
    (tmp_path / "a.jsonl").write_bytes(write_jsonl(tmp_path / "b.jsonl", rows).read_bytes())
    of_file = rmo_curate.audit(tmp_path / "a.jsonl")
    assert found.numbers["counts"] == of_file.numbers["counts"]
    assert [one.gate.name for one in found.tripped] == ["length_bias"] and not of_file.tripped
    assert "rmo_curate.score(data" in found.numbers["headline"]["next_step"]["command"]


def test_a_runs_path_is_audited_as_the_run(scored):
    assert rmo_curate.audit(str(scored.path)).numbers["kind"] == "run"
    with pytest.raises(rmo_curate.UserError, match=r"^map is for data"):
        rmo_curate.audit(scored, map={"prompt": "question"})
    with pytest.raises(rmo_curate.UserError, match=r"^filtering: only a run"):
        rmo_curate.audit([record(0)], filtering={"low_q": 0.1})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run: run.filter(low_q=2), "^low_q: Input should be less than or equal to 1, got 2$"),
        (lambda run: run.filter(lowq=0.1), r"^filter\(\) has no setting 'lowq'; did you mean 'low_q'"),
        (lambda run: run.filter(high_q=0.9, noise_rate=0.1), "^high_q and noise_rate each set"),
        (lambda run: run.filter(rule="irm", end="oof-8"), "^end oof-8: .*has no checkpoint"),
        (lambda run: run.filter(run.path), "^out .*not made by `rmo-curate filter`"),
        (lambda run: run.report(filtering={"lowq": 1}), "^filtering has no setting 'lowq'"),
        (lambda run: run.pairs(category_column="kind"), "^category_column kind: "),
        (lambda run: rmo_curate.score([record(0)], "no/such/model"), "no such model folder"),
        (lambda run: rmo_curate.score([record(0)], "m", proxy={"fold": 2}), "^proxy has no setting 'fold'"),
        (lambda run: rmo_curate.score([record(0)], "m", proxy="prob"), "^kind: .*got 'prob'"),
        (lambda run: rmo_curate.open_run(run.path / "pairs"), "expected 'run', made by `rmo-curate score"),
    ],
)
def test_a_mistake_is_named_by_its_keyword(call, said, scored):
    with pytest.raises(rmo_curate.UserError, match=said):
        call(scored)


def test_help_lists_every_setting_with_its_default():
    listed = inspect.signature(rmo_curate.score).parameters
    assert {"data", "model", "out", *ScoreSettings.model_fields} <= set(listed) and "settings" not in listed
    assert listed["engine"].default == "auto"
    assert "- max_rejects: Fail if more than this share of the records is rejected" in str(rmo_curate.score.__doc__)


def test_names_are_loaded_when_they_are_asked_for():
    heavy = "typer pydantic numpy pyarrow polars torch transformers"
    code = (
        "import sys, rmo_curate, rmo_train; print([m for m in '" + heavy + "'.split() if m in sys.modules]);"
        "import rmo_curate.score.command, rmo_curate.audit.command;"  # rooms of the same names
        "from rmo_curate.audit import gates;"
        "print(*map(callable, (rmo_curate.score, rmo_curate.audit, rmo_curate.open_run, rmo_train.train)));"
        "print({*rmo_curate.__all__} <= {*dir(rmo_curate)}, hasattr(rmo_curate, 'scores'), hasattr(rmo_train, 'trian'))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == ["[]", "True True True True", "True False False"]


def test_every_package_says_that_it_is_typed():
    from importlib.resources import files

    assert all((files(name) / "py.typed").is_file() for name in ("rmo", "rmo_curate", "rmo_train"))
