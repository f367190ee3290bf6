"""`hf:` names are read through `datasets`; a name that leads nowhere is the user's error."""

import json
import os
import subprocess
import sys

import pytest

from rmo_curate.read.sources import open_source
from rmo_train.console.errors import UserError


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder laid out as a data set of the hub is, and the cache of `datasets` in a folder of the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))

    def publish(name, **splits):
        folder = tmp_path / name / "data"
        folder.mkdir(parents=True)
        for split, rows in splits.items():
            text = "".join(json.dumps(r) + "\n" for r in rows)
            (folder / f"{split}-00000-of-00001.jsonl").write_text(text)
        return f"hf:{tmp_path / name}"

    return publish


def row(n):
    return {"prompt": f"question {n}", "chosen": f"good {n}", "rejected": f"bad {n}"}


def prompts(source):
    return [p.prompt[0]["content"] for p in source.records()]


def test_the_split_that_is_meant_is_read_and_named(hub):
    name = hub("ultra", train_prefs=[row(0), row(1)], test_prefs=[row(2)])
    source = open_source([name])
    assert prompts(source) == ["question 0", "question 1"]
    assert source.inputs[0].name == f"{name}:train_prefs"
    assert source.notes[0].startswith(f"{name}: ")
    assert prompts(open_source([f"{name}:test_prefs"])) == ["question 2"]
    assert [r.source for r in open_source([f"{name}:test_prefs"]).records()] == [f"{name}:test_prefs"]


def test_a_data_set_of_one_split_needs_no_name_of_it(hub):
    assert prompts(open_source([hub("one", dev=[row(0)])])) == ["question 0"]


def test_a_split_that_is_not_there_or_not_clear_names_those_that_are(hub):
    name = hub("two", good=[row(0)], best=[row(1)])
    with pytest.raises(UserError, match=r"several splits; give .*:(good|best) or .*:(good|best)"):
        open_source([name])
    with pytest.raises(UserError, match=r"no split 'goood'; the splits are .*; did you mean 'good'"):
        open_source([f"{name}:goood"])
    with pytest.raises(UserError, match="no data set name"):
        open_source(["hf:"])


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    code = (
        "from rmo_curate.read.sources import open_source\nfrom rmo_train.console.errors import UserError\n"
        "try: open_source(['hf:nobody/nothing'])\nexcept UserError as e: print(e)"
    )
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    shown = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("hf:nobody/nothing: cannot be loaded (")
    assert "download its files another way and give their folder" in shown.stdout


def test_a_data_set_that_a_script_makes_is_refused_and_the_script_not_run(tmp_path, monkeypatch):
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE", True, raising=False)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "owner" / "name" / "name.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    with pytest.raises(UserError, match=r"its own Python script, which rmo does not run.*refs/convert/parquet"):
        open_source(["hf:owner/name"])
    assert not (tmp_path / "ran").exists()
    assert datasets.config.HF_DATASETS_TRUST_REMOTE_CODE is False
