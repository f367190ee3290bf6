"""Recipes: every shipped one is valid, and a whole chain runs, resumes and adds up on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rmo.recipe import load_recipe
from rmo.run import measure, run_recipe
from rmo.summary import accuracy_rows, count_rows, print_table, summary
from rmo_train.console.errors import UserError
from rmo_train.evaluation.metrics import Interval
from rmo_train.evaluation.result import Evaluation
from rmo_train.store.files import read_json, write_json
from tests.manifests import manifest_of

PIPELINES = Path(__file__).parents[2] / "pipelines"
DEMO = Path(__file__).parents[2] / "data" / "demo"


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_is_valid(path: Path):
    recipe = load_recipe(path, data="train.jsonl", eval_data="heldout.jsonl")
    assert recipe.score.model == "smollm2-135m"
    assert recipe.eval is not None


def test_the_paper_recipe_is_the_published_method():
    recipe = load_recipe(PIPELINES / "paper.yaml", data="train.jsonl")
    assert (recipe.proxy.kind, recipe.proxy.folds) == ("lora", 1)
    assert (recipe.filter.rule, recipe.filter.margin, recipe.filter.high_q, recipe.filter.hard) == (
        "rmo",
        "logp",
        0,
        False,
    )
    assert (recipe.train.diversify_margin, recipe.train.amplify_preset) == ("logp", "authors")


def test_a_recipe_without_data_says_how_to_give_it():
    with pytest.raises(UserError, match="--data"):
        load_recipe(PIPELINES / "paper.yaml")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A recipe whose whole chain ran on 60 demo pairs and the tiny model."""
    folder = tmp_path_factory.mktemp("chain")
    sections = {
        "data": {"train": str(DEMO / "train.jsonl"), "heldout": str(DEMO / "heldout.jsonl")},
        "score": {"model": str(tiny_model_folder), "out": str(folder / "run"), "limit": 60, "dtype": "float32"},
        "proxy": {"kind": "lora", "batch_size": 8},
        "filter": {"out": str(folder / "shards")},
        "train": {"out": str(folder / "model"), "learning_rate": 1e-3, "lora": 4},
        "eval": {"run": str(folder / "heldout"), "out": str(folder / "eval"), "limit": 30},
        "audit": {"out": str(folder / "report")},
    }
    path = folder / "rmo.yaml"
    path.write_text(yaml.safe_dump(sections))
    run_recipe(load_recipe(path))
    return path


def test_the_chain_leaves_every_stage_and_the_counts_add_up(chain: Path):
    recipe = load_recipe(chain)
    shards = manifest_of(recipe.shards)["counts"]
    assert (
        shards["pairs"]
        == 60
        == shards["kept"] + sum(shards[r] for r in ("noisy", "ambiguous", "too_long", "duplicate"))
    )
    assert (recipe.audit.out / "report.html").is_file()
    assert [name for name, _, _ in recipe.evaluations()] == ["base", "plain DPO", "RMO DPO"]
    assert all(read_json(file)["n"] == 30 for _, _, file in recipe.evaluations())
    assert read_json(recipe.evaluations()[0][2])["reward_accuracy"]["value"] == 0.5


def test_the_plain_run_has_all_pairs_and_neither_part(chain: Path):
    recipe = load_recipe(chain)
    assert manifest_of(recipe.plain_shards)["counts"]["kept"] == 60
    key = manifest_of(recipe.plain_trained)["key"]
    assert (key["diversify"], key["amplify"]) == (False, 0.0)


def test_running_it_again_computes_nothing(chain: Path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise AssertionError("a finished stage loads no model")

    monkeypatch.setattr("rmo_train.model.policy.load_model", refuse)
    monkeypatch.setattr("rmo_train.model.policy.load_for_training", refuse)
    run_recipe(load_recipe(chain))
    said = capsys.readouterr().err
    assert said.count("already evaluated") == 3
    assert said.count("nothing to do") == 2


def test_the_closing_table_tells_counts_accuracies_and_the_report(chain: Path, capsys):
    recipe = load_recipe(chain)
    print_table(summary(recipe, [("a row", "of the demo")]))
    shown = capsys.readouterr().out
    for text in ("records in", "dropped as noisy", "dropped as ambiguous", "kept", "a row", "report.html", "RMO DPO"):
        assert text in shown
    assert dict(count_rows(recipe.run, recipe.shards))["records in"] == "60"


def test_the_closing_table_pairs_each_model_with_the_one_before(tmp_path: Path):
    def measured(name: str, right: int) -> tuple[str, str, Path]:
        """40 pairs of 40 prompts, the first `right` of them right."""
        pairs = {f"pair-{i}": (1.0 if i < right else -1.0, i, 0) for i in range(40)}
        value = Interval(right / 40, 0, 1)
        found = Evaluation(40, value, value, value, value, value, 0.0, pairs, "same", "same")
        write_json(tmp_path / f"{name}.json", found.as_json())
        return name, name, tmp_path / f"{name}.json"

    rows = dict(accuracy_rows([measured("a", 20), measured("b", 28), measured("c", 28), measured("d", 10)]))
    assert rows["held-out reward accuracy, a"].startswith("0.500 [")
    assert rows["  b against a, paired"].startswith("+0.200 [") and rows["  b against a, paired"].endswith("], higher")
    assert rows["  c against b, paired"] == "+0.000 [+0.000, +0.000], not distinguishable"
    assert rows["  d against c, paired"].endswith("], lower")


def test_an_evaluation_of_other_weights_is_measured_again(chain: Path, tiny_model_folder: Path):
    recipe = load_recipe(chain)
    file = recipe.evaluations()[0][2]
    assert "already evaluated" in measure(recipe.eval.run, str(tiny_model_folder), file)[0]
    assert "already evaluated" not in measure(recipe.eval.run, str(recipe.train.out), file)[0]
