"""The command line: recipes that work as they stand, and what a mistake brings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rmo_curate.runs import open_run
from rmo_train import tables
from tests.command_line import curate, train
from tests.rmo_curate.scored import demo_records, marks, perturbed, record, score, write_jsonl
from tests.tiny import make_tokenizer

MODEL_ONLY = ("config.json", "model.safetensors", "generation_config.json")


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch) -> Path:
    """Every test has its own, without a recipe."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def model(tiny_model_folder) -> Path:
    return tiny_model_folder


@pytest.fixture
def data(working_folder) -> Path:
    return write_jsonl(working_folder / "pairs.jsonl", [record(i) for i in range(8)])


@pytest.fixture(scope="module")
def scored(tiny_model_folder, tmp_path_factory) -> Path:
    """A run of 16 pairs scored by the base and two proxies. Read only."""
    folder = tmp_path_factory.mktemp("scored")
    data = write_jsonl(folder / "pairs.jsonl", demo_records(16))
    score(data, tiny_model_folder, folder / "run", proxy_folds=2)
    return folder / "run"


@pytest.fixture(scope="module")
def base_only(tiny_model_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    data = write_jsonl(folder / "pairs.jsonl", demo_records(8))
    score(data, tiny_model_folder, folder / "run")
    return folder / "run"


def rejects(run: Path) -> list[tuple[int, str]]:
    return [(r["line"], r["reason"]) for r in open_run(run).rejects().to_pylist()]


def score_line(data, model, *more):
    return curate("score", data, "--model", model, "--out", "run", "--proxy-folds", 0, "--dtype", "float32", *more)


# ---------------------------------------------------------------------------------------------------- start


@pytest.mark.parametrize("module", ["rmo_curate.cli", "rmo_train.cli"])
def test_a_command_line_starts_without_the_heavy_libraries(module):
    heavy = ("torch", "transformers", "polars", "matplotlib", "datasets", "peft", "vllm")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [curate, train])
def test_help_and_no_command(command):
    assert command("--help").code == 0 and "Usage" in command("--help").out
    assert command().code in (0, 2) and "Traceback" not in command().err


@pytest.mark.parametrize("name", ["score", "proxy", "filter", "audit", "status"])
def test_every_command_has_help_for_every_option(name):
    outcome = curate(name, "--help")
    assert outcome.code == 0 and "--help" in outcome.out


# ---------------------------------------------------------------------------------------------------- data


def test_a_wrong_path_names_the_nearest(data, model):
    outcome = score_line("pairs.json", model)
    assert outcome.refused("pairs.json: not a local file or folder", "did you mean 'pairs.jsonl'?")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no records; expected preference pairs"),
        ("\n\n", "no records; expected preference pairs"),
        ("{broken\n[1]\n", "none of 2 records is an object"),
        ('{"prompt": "a", "chosn": "b", "rejected": "c"}\n', "no column 'chosen'"),
        ('{"ask": "a", "chosen": "b", "rejected": "c"}\n', "there is no prompt"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}\n', "identical_responses: 1, the first at pairs.jsonl:1"),
    ],
    ids=["empty", "blank", "broken", "misspelt", "no prompt", "only rejects"],
)
def test_data_without_a_pair(working_folder, model, content, said):
    (working_folder / "pairs.jsonl").write_text(content)
    assert score_line("pairs.jsonl", model).refused("pairs.jsonl", said)
    assert not Path("run").exists()


def test_a_misspelt_column_names_the_nearest(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [{"prompt": "a", "chosn": "b", "rejected": "c"}])
    assert score_line("pairs.jsonl", model).refused("the columns are prompt, chosn, rejected; did you mean 'chosn'")


def test_records_that_are_no_pairs_are_kept_with_their_reasons(working_folder, model):
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    records = [
        *(record(i) for i in range(4)),
        '{"prompt": "cut',
        record(5, chosen=""),
        record(6, rejected="good answer 6"),
        record(7, rejected=["a", "list"]),
        record(8, chosen=None),
        {"chosen": chat, "rejected": [chat[0], {"role": "assistant", "content": "?"}]},
        {"prompt": [chat[0]], "chosen": [chat[1]], "rejected": [{"role": "assistant", "content": "?"}]},
    ]
    write_jsonl(working_folder / "pairs.jsonl", records)
    outcome = score_line("pairs.jsonl", model)
    assert outcome.code == 0 and outcome.out.startswith("11 records = 4 pairs + 7 rejects")
    assert outcome.err.count("warning: 7 of 11 records are no pairs") == 1
    assert rejects(Path("run")) == [
        (5, "broken_line"),
        (6, "empty_response"),
        (7, "identical_responses"),
        (8, "not_text"),
        (9, "missing_field"),
        (10, "missing_field"),
        (11, "other_form"),
    ]


def test_more_rejects_than_allowed(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [*(record(i) for i in range(9)), "{broken"])
    outcome = score_line("pairs.jsonl", model, "--max-rejects", 0.05)
    assert outcome.refused("1 of 10 records rejected (1 broken_line), more than --max-rejects 0.05 allows")
    assert not Path("run").exists()
    assert score_line("pairs.jsonl", model, "--max-rejects", 0.1).code == 0


def test_a_pair_that_is_too_long_is_flagged_and_dropped_by_the_filter(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [*(record(i) for i in range(6)), record(6, chosen="word " * 99)])
    outcome = score_line("pairs.jsonl", model, "--max-length", 64)
    assert outcome.code == 0 and "7 records = 7 pairs + 0 rejects; 1 pairs too long" in outcome.out
    assert curate("filter", "run", "--out", "shards", "--rule", "none").code == 0
    counts = tables.read_manifest(Path("shards"))["counts"]
    assert (counts["pairs"], counts["kept"], counts["too_long"]) == (7, 6, 1)


def test_one_id_on_two_contents_names_both_lines(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [record(0, id="a"), record(1, id="b"), record(2, id="a")])
    outcome = score_line("pairs.jsonl", model)
    assert outcome.refused("the id 'a' stands for two different pairs: pairs.jsonl:1 and pairs.jsonl:3")
    assert not Path("run").exists()


# ---------------------------------------------------------------------------------------------------- models


def test_a_model_that_is_not_there(data, model):
    wrong = model.parent / (model.name + "y")
    assert score_line(data, wrong).refused(f"{wrong}: no such model folder", f"did you mean '{model.name}'?")
    assert not Path("run").exists()


def test_a_model_without_a_tokenizer(data, model, working_folder):
    bare = working_folder / "bare"
    bare.mkdir()
    for name in MODEL_ONLY:
        shutil.copy(model / name, bare)
    assert score_line(data, bare).refused(f"{bare}: no tokenizer", "save_pretrained(")
    assert not Path("run").exists()


def test_a_model_without_a_chat_template(data, model, working_folder):
    plain = shutil.copytree(model, working_folder / "plain")
    make_tokenizer(template=None).save_pretrained(plain)
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    assert score_line(data, plain).refused("no chat template", "give an instruction-tuned model")
    assert not Path("run").exists()


def test_a_model_without_weights(data, model, working_folder):
    empty = shutil.copytree(model, working_folder / "empty")
    (empty / "model.safetensors").unlink()
    assert score_line(data, empty).refused(f"{empty}: no weights", "was the model saved completely?")
    assert not Path("run").exists()


def test_a_checkpoint_with_another_tokenizer_or_template(data, model, working_folder):
    other = perturbed(model, working_folder / "other")
    make_tokenizer(vocabulary=300).save_pretrained(other)
    outcome = score_line(data, model, "--checkpoint", other)
    assert outcome.refused(f"--checkpoint {other}: its tokenizer is not that of --model {model}", "Save the checkpoint")
    spoken = perturbed(model, working_folder / "spoken")
    template = spoken / "chat_template.jinja"
    template.write_text(template.read_text() + "\n")
    outcome = score_line(data, model, "--checkpoint", spoken)
    assert outcome.refused(f"--checkpoint {spoken}: its chat template is not that of --model")
    assert not Path("run").exists()


def test_a_checkpoint_that_is_the_reference(data, model, working_folder):
    same = shutil.copytree(model, working_folder / "same")
    outcome = score_line(data, model, "--checkpoint", same)
    assert outcome.refused(f"--checkpoint {same}: the same weights as --model", "give a trained checkpoint")
    assert not Path("run").exists()


def test_a_length_beyond_the_context(data, model):
    assert score_line(data, model, "--max-length", 4096).refused("--max-length 4096: the context of", "is 2048 tokens")
    assert not Path("run").exists()


# ---------------------------------------------------------------------------------------------------- places


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["score", "pairs.jsonl", "--out", "run"], "--model is missing: give it on the command line, or `score.model`"),
        (["score", "pairs.jsonl", "--model", "tiny"], "--out is missing"),
        (["score", "--model", "tiny", "--out", "run"], "DATA is missing: give it on the command line, or `data.train`"),
        (["filter", "--out", "shards"], "RUN is missing"),
        (["filter", "run"], "--out is missing"),
        (["status"], "RUN is missing"),
        (["score", "pairs.jsonl", "--out", "run", "--model"], "requires an argument"),
    ],
)
def test_what_is_missing_is_named(data, model, arguments, said):
    outcome = curate(*[str(model) if a == "tiny" else a for a in arguments])
    assert outcome.refused(said)
    assert not Path("run").exists() and not Path("shards").exists()


@pytest.mark.parametrize("command", ["status", "proxy", "filter", "audit"])
@pytest.mark.parametrize("kind", ["absent", "a folder of something else", "a file"])
def test_a_run_that_is_none(data, command, kind, working_folder):
    run = {"absent": "nowhere", "a folder of something else": working_folder, "a file": data}[kind]
    more = ["--out", "made"] if command in ("filter", "audit") else []
    outcome = curate(command, run, *more)
    assert outcome.refused(str(run), "rmo-curate score")
    assert not Path("made").exists()


@pytest.mark.parametrize("out", ["pairs.jsonl", "pairs.jsonl/run"])
def test_an_output_that_cannot_be_a_folder(data, model, out):
    outcome = curate("score", data, "--model", model, "--out", out, "--proxy-folds", 0)
    assert outcome.refused(f"--out {out}")
    assert data.read_text().count("\n") == 8


def test_an_output_folder_of_other_settings(data, model):
    assert score_line(data, model).code == 0
    before = marks(Path("run"))
    outcome = score_line(data, model, "--max-length", 512)
    assert outcome.refused("run", "max_length: the folder has 1024, you asked for 512", "--overwrite")
    assert marks(Path("run")) == before
    assert score_line(data, model, "--max-length", 512, "--overwrite").code == 0
    assert tables.read_manifest(Path("run"))["max_length"] == 512


def test_another_model_on_a_finished_run(data, model, working_folder):
    assert score_line(data, model).code == 0
    before = marks(Path("run"))
    assert score_line(data, perturbed(model, working_folder / "other")).refused("weights_sha256: the folder has")
    assert marks(Path("run")) == before


def test_an_output_folder_of_something_else(data, model, scored):
    assert curate("filter", scored, "--out", "shards", "--rule", "none").code == 0
    before = marks(Path("shards"))
    outcome = curate("score", data, "--model", model, "--out", "shards", "--overwrite")
    assert outcome.refused("--out shards: the folder has files that are no run", "choose another folder")
    assert marks(Path("shards")) == before


# ---------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--low-q", 1.5], ["--low-q (recipe: filter.low_q)", "less than or equal to 1, got 1.5"]),
        (["--low-q", -0.1], ["--low-q (recipe: filter.low_q)", "greater than or equal to 0"]),
        (["--high-q", "nan"], ["--high-q (recipe: filter.high_q)", "finite number"]),
        (["--low-q", "some"], ["'--low-q'", "valid number"]),
        (["--rule", "irn"], ["--rule irn: no such rule; the rules are irm", "did you mean 'irm"]),
        (["--margin", "rewards"], ["--margin", "'rewards'", "'reward'"]),
        (["--preset", "papers"], ["--preset", "'papers'", "'paper'"]),
        (["--preset", "paper", "--rule", "rmo"], ["--preset paper sets --rule, --margin, --low-q", "--rule is given"]),
        (["--preset", "authors-code", "--low-q", 0.2, "--hard"], ["--low-q, --hard is given as well"]),
        (["--proxy", "oof-3"], ["--proxy oof-3:", "the run has oof-2", "did you mean 'oof-2'"]),
        (["--low-quantile", 0.1], ["No such option: --low-quantile"]),
    ],
)
def test_filter_settings_that_cannot_be(scored, arguments, said):
    assert curate("filter", scored, "--out", "shards", *arguments).refused(*said)
    assert not Path("shards").exists()


@pytest.mark.parametrize("rule", ["irm", "rmo", "irm-ln"])
def test_a_rule_without_its_proxy_names_the_command(base_only, rule):
    outcome = curate("filter", base_only, "--out", "shards", "--rule", rule)
    assert outcome.refused(f"--rule {rule}", f"run `rmo-curate proxy {base_only}` first")
    assert not Path("shards").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--folds", 50], "50 folds need at least 50 distinct prompts, the data has"),
        (["--folds", 0], "--folds (recipe: proxy.folds): Input should be greater than or equal to 1"),
        (["--steps", "4,99", "--batch-size", 4], "--steps 4: a proxy trains 2 steps on this data; choose 1 to 2"),
        (["--steps", "soon"], "--steps (recipe: proxy.steps)"),
        (["--lora", 4, "--full"], "--full trains all weights and --lora an adapter"),
        (["--rank", 4], "No such option: --rank"),
    ],
)
def test_proxy_settings_that_cannot_be(scored, arguments, said):
    before = marks(scored)
    assert curate("proxy", scored, *arguments).refused(said)
    assert curate("proxy", scored, *arguments, "--dry-run").refused(said)
    assert marks(scored) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--proxy-folds", 9], ["--proxy-folds 9", "the data has 8", "--proxy-folds 1 (in-sample)"]),
        (["--engine", "vlm"], ["--engine", "'vlm'"]),
        (["--dtype", "float16"], ["--dtype", "'float16'"]),
        (["--limit", 0], ["--limit (recipe: score.limit)", "greater than or equal to 1"]),
        (["--max-lenght", 64], ["No such option: --max-lenght", "--max-length"]),
        (["--max-rejects", 2], ["--max-rejects (recipe: score.max_rejects)"]),
    ],
)
def test_score_settings_that_cannot_be(data, model, arguments, said):
    assert curate("score", data, "--model", model, "--out", "run", *arguments).refused(*said)
    assert not Path("run").exists()


def test_folds_are_of_prompts_not_of_pairs(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [record(0, chosen=f"answer {k}") for k in range(8)])
    outcome = curate("score", "pairs.jsonl", "--model", model, "--out", "run")
    assert outcome.refused("--proxy-folds 2: that many folds need as many distinct prompts, the data has 1")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--loss", "dop"], ["dop", "did you mean 'dpo'"]),
        (["--losss", "dpo"], ["No such option: --losss"]),
        (["--beta", 0], ["--beta (recipe: train.beta)"]),
        (["--amplify-preset", "authors", "--amplify", 0.5], ["--amplify-preset sets the amplification whole"]),
        (["--eval-data", "nowhere"], ["nowhere: no such folder"]),
    ],
)
def test_training_settings_that_cannot_be(scored, model, arguments, said):
    assert curate("filter", scored, "--out", "shards", "--low-q", 0).code == 0
    assert train("run", "shards", "--model", model, "--out", "trained", *arguments).refused(*said)
    assert not Path("trained").exists()


def test_training_on_what_is_no_shard_folder(data, model):
    for folder in ("nowhere", "."):
        outcome = train("run", folder, "--model", model, "--out", "trained")
        assert outcome.refused(folder, "rmo-curate") and not Path("trained").exists()


# ---------------------------------------------------------------------------------------------------- recipes


def write_recipe(model: Path, **changes) -> None:
    recipe = {
        "data": {"train": "pairs.jsonl"},
        "score": {"model": str(model), "out": "out/run", "dtype": "float32"},
        "proxy": {"batch_size": 4, "lora": 2},
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
    assert "out/run is not there yet: known after `rmo-curate score`" in outcome.out
    outcome = train("run", "--dry-run")
    assert outcome.code == 0 and "out/shards is not there yet: known after `rmo-curate filter`" in outcome.out
    outcome = curate("score")
    assert outcome.code == 0 and "16 records = 16 pairs + 0 rejects" in outcome.out and "oof-2" in outcome.out
    outcome = curate("filter", "--low-q", 0.1, "--high-q", 0.95)
    assert outcome.code == 0 and "T = oof-2 (2 folds), held out" in outcome.out
    counts = tables.read_manifest(Path("out/shards"))["counts"]
    assert counts["kept"] + counts["noisy"] + counts["ambiguous"] == 16
    outcome = train("run")
    assert outcome.code == 0 and "model in out/model" in outcome.out
    assert Path("out/model/adapter_config.json").is_file()
    assert curate("status").out.endswith("nothing is left\n")
    assert curate("audit").code == 0 and Path("out/report/report.html").is_file()
    before = marks(Path("out/run")) | marks(Path("out/shards")) | marks(Path("out/model"))
    assert curate("score").code == curate("filter", "--low-q", 0.1, "--high-q", 0.95).code == train("run").code == 0
    assert marks(Path("out/run")) | marks(Path("out/shards")) | marks(Path("out/model")) == before


def test_a_flag_is_stronger_than_the_recipe(data, model, working_folder):
    write_recipe(model, score={"proxy_folds": 0, "max_length": 64})
    assert curate("score", "--max-length", 128, "--out", "elsewhere").code == 0
    assert tables.read_manifest(Path("elsewhere"))["max_length"] == 128 and not Path("out").exists()


def test_a_recipe_by_name_with_a_checkpoint(data, model, working_folder):
    mine = perturbed(model, working_folder / "mine")
    write_recipe(model, score={"checkpoint": "mine"})
    Path("rmo.yaml").rename("other.yaml")
    assert curate("score", "--recipe", "other.yaml").code == 0
    assert [c["kind"] for c in tables.read_manifest(Path("out/run"))["checkpoints"]] == ["base", "user"]
    assert mine.is_dir()


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"scores": {"out": "run"}}, ["rmo.yaml: unknown section 'scores'", "did you mean 'score'"]),
        ({"score": {"max_lenght": 64}}, ["section 'score' has no setting 'max_lenght'", "did you mean 'max_length'"]),
        ({"proxy": {"fold": 2}}, ["section 'proxy' has no setting 'fold'", "did you mean 'folds'"]),
        ({"score": {"max_length": "long"}}, ["--max-length (recipe: score.max_length)", "got 'long'"]),
        ({"score": {"out": 5}}, ["score.out is 5; expected text"]),
        ({"score": {"model": ["a", "b"]}}, ["score.model is ['a', 'b']; expected text"]),
        ({"score": {"checkpoint": {"a": 1}}}, ["score.checkpoint is {'a': 1}; expected text or a list of texts"]),
        ({"data": {"train": 5}}, ["data.train is 5; expected text or a list of texts"]),
        ({"proxy": "yes"}, ["section 'proxy' must be a mapping"]),
        ({"proxy": {"steps": [1, 99]}}, ["--steps 99: a proxy trains 1 steps on this data; choose 1 to 1"]),
    ],
)
def test_a_recipe_with_a_mistake(data, model, recipe, said):
    write_recipe(model, **recipe)
    assert curate("score").refused(*said)
    assert not Path("out/run/scores").exists() and not Path("out/run/proxies").exists()


def test_a_recipe_that_is_not_there_or_no_yaml(data, model):
    assert curate("score", "--recipe", "none.yaml").refused("--recipe none.yaml: no such file")
    Path("rmo.yaml").write_text("score: [unclosed\n")
    assert curate("score").refused("rmo.yaml: not valid YAML")
    Path("rmo.yaml").write_text("- a list\n")
    assert curate("score").refused("rmo.yaml: expected a mapping of sections")


def test_filter_sections_are_checked_by_the_filter(scored):
    Path("rmo.yaml").write_text(yaml.safe_dump({"filter": {"low": 0.1, "out": "shards"}}))
    assert curate("filter", scored).refused("section 'filter' has no setting 'low'", "did you mean 'low_q'")
    assert not Path("shards").exists()


# ---------------------------------------------------------------------------------------------------- dry runs


def test_a_dry_run_writes_nothing(data, model, scored):
    outcome = score_line(data, model, "--dry-run")
    assert outcome.code == 0 and "8 records, 8 pairs" in outcome.out and not Path("run").exists()
    before = marks(scored)
    assert curate("proxy", scored, "--folds", 3, "--dry-run").code == 0
    outcome = curate("filter", scored, "--out", "shards", "--dry-run")
    assert outcome.code == 0 and "dry run: shards is not written" in outcome.out
    assert marks(scored) == before and not Path("shards").exists()


@pytest.mark.parametrize("command", [["filter", "nowhere", "--out", "shards"], ["proxy", "nowhere"]])
def test_a_path_on_the_command_line_must_exist_even_in_a_dry_run(command):
    assert curate(*command, "--dry-run").refused("nowhere")


def test_json_of_an_evaluation(scored, model):
    outcome = train("eval", scored, "--model", model, "--out", "eval.json")
    assert outcome.code == 0 and json.loads(Path("eval.json").read_text())["n"] == 16


def test_audit_of_a_run_without_a_proxy_shows_what_can_be_shown(base_only, working_folder):
    outcome = curate("audit", base_only, "--out", "report")
    assert outcome.code == 0, outcome.err
    assert "rmo-curate proxy" in (working_folder / "report" / "report.html").read_text(encoding="utf-8")
    assert json.loads((working_folder / "report" / "audit.json").read_text())["end"] is None
