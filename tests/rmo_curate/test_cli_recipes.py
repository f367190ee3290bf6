"""Recipes: commands that work as they stand, flags that are stronger, and mistakes in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.command_line import curate, train
from tests.manifests import manifest_of
from tests.rmo_curate.scored import demo_records, marks, perturbed, write_jsonl

pytestmark = pytest.mark.usefixtures("working_folder")


def write_recipe(model: Path, **changes) -> None:
    recipe = {
        "data": {"train": "pairs.jsonl"},
        "score": {"model": str(model), "out": "out/run", "dtype": "float32"},
        "proxy": {"kind": "lora", "batch_size": 4, "lora": 2},
        "filter": {"out": "out/shards", "rule": "irm"},
        "train": {
            "out": "out/model",
            "lora": 2,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 1,
        },
        "audit": {"out": "out/report"},
    }
    for section, values in changes.items():
        recipe[section] = {**recipe.get(section, {}), **values} if isinstance(values, dict) else values
    Path("rmo.yaml").write_text(yaml.safe_dump(recipe))


def test_the_commands_work_as_they_stand_with_a_recipe(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", demo_records(16))
    write_recipe(model)
    for command in (["score"], ["filter", "--low-q", 0.1, "--high-q", 0.95]):  # what is not there yet is said
        outcome = curate(*command, "--dry-run")
        assert outcome.code == 0 and not Path("out").exists(), outcome
    assert "out/run does not exist yet; `rmo-curate score` makes it" in outcome.out
    outcome = train("run", "--dry-run")
    assert outcome.code == 0 and "out/shards does not exist yet" in outcome.out
    outcome = curate("score")
    assert outcome.code == 0 and "16 records = 16 pairs + 0 rejects" in outcome.out and "oof-2" in outcome.out
    outcome = curate("filter", "--low-q", 0.1, "--high-q", 0.95)
    assert outcome.code == 0 and "last checkpoint: oof-2 (2 folds), held out" in outcome.out
    counts = manifest_of(Path("out/shards"))["counts"]
    assert counts["kept"] + counts["noisy"] + counts["ambiguous"] == 16
    outcome = train("run")
    assert outcome.code == 0 and "the model is in out/model" in outcome.out
    assert Path("out/model/adapter_config.json").is_file()
    assert curate("status").out.endswith("nothing is left\n")
    assert curate("audit").code == 0 and Path("out/report/report.html").is_file()
    before = marks(Path("out/run")) | marks(Path("out/shards")) | marks(Path("out/model"))
    assert curate("score").code == curate("filter", "--low-q", 0.1, "--high-q", 0.95).code == train("run").code == 0
    assert marks(Path("out/run")) | marks(Path("out/shards")) | marks(Path("out/model")) == before


def test_a_flag_is_stronger_than_the_recipe(data, model, working_folder):
    write_recipe(model, score={"max_length": 64}, proxy={"kind": "none"})
    assert curate("score", "--max-length", 128, "--out", "elsewhere").code == 0
    assert manifest_of(Path("elsewhere"))["max_length"] == 128 and not Path("out").exists()


def test_a_recipe_by_name_with_a_checkpoint(data, model, working_folder):
    mine = perturbed(model, working_folder / "mine")
    write_recipe(model, score={"checkpoint": "mine"}, proxy={"kind": "none"})
    Path("rmo.yaml").rename("other.yaml")
    assert curate("score", "--recipe", "other.yaml").code == 0
    assert [c["kind"] for c in manifest_of(Path("out/run"))["checkpoints"]] == ["base", "user"]
    assert mine.is_dir()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"scores": {"out": "run"}}, ["rmo.yaml: unknown section 'scores'", "did you mean 'score'"]),
        ({"score": {"max_lenght": 64}}, ["section 'score' has no setting 'max_lenght'", "did you mean 'max_length'"]),
        ({"proxy": {"fold": 2}}, ["section 'proxy' has no setting 'fold'", "did you mean 'folds'"]),
        ({"score": {"max_length": "long"}}, ["--max-length (recipe: score.max_length)", "got 'long'"]),
        ({"score": {"out": 5}}, ["--out (recipe: score.out)", "got 5"]),
        ({"score": {"model": ["a", "b"]}}, ["--model (recipe: score.model)", "got ['a', 'b']"]),
        ({"score": {"checkpoint": {"a": 1}}}, ["--checkpoint (recipe: score.checkpoint)", "got {'a': 1}"]),
        ({"data": {"train": 5}}, ["DATA (recipe: data.train)", "got 5"]),
        ({"proxy": "yes"}, ["section 'proxy' must be a mapping"]),
        ({"proxy": {"steps": [1, 99]}}, ["--steps 99: a proxy trains 1 step on this data; choose 1 to 1"]),
    ],
)
def test_a_recipe_with_a_mistake(data, model, recipe, said):
    write_recipe(model, **recipe)
    assert curate("score").refused(*said)
    assert not Path("out/run/scores").exists() and not Path("out/run/proxies").exists()


def test_a_recipe_that_is_not_there_or_no_yaml(data, model):
    assert curate("score", "--recipe", "none.yaml").refused("recipe none.yaml: no such file")
    Path("rmo.yaml").write_text("score: [unclosed\n")
    assert curate("score").refused("rmo.yaml: not valid YAML")
    Path("rmo.yaml").write_text("- a list\n")
    assert curate("score").refused("rmo.yaml: expected a mapping of sections")


def test_filter_sections_are_checked_by_the_filter(full_run):
    Path("rmo.yaml").write_text(yaml.safe_dump({"filter": {"low": 0.1, "out": "shards"}}))
    assert curate("filter", full_run).refused("section 'filter' has no setting 'low'", "did you mean 'low_q'")
    assert not Path("shards").exists()
