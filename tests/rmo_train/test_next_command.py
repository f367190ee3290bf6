"""What a command proposes next can be copied, and works."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from rmo_train.store.manifests import TrainManifest, read_manifest
from tests.command_line import Outcome, train

QUICK = ("--per-device-train-batch-size", 4, "--gradient-accumulation-steps", 1, "--max-steps", 1)


def following(outcome: Outcome) -> list[str] | None:
    """The words of the command that is proposed, as a shell reads them."""
    assert outcome.code == 0, outcome
    last = outcome.out.rstrip().splitlines()[-1]
    if not last.startswith("next: rmo-train "):
        return None
    return shlex.split(last)[2:]


def commands(*first: object) -> list[str]:
    """The names of the commands that follow one another, each of them run."""
    done, words = [], list(first)
    while words is not None:
        done.append(words[0])
        words = following(train(*words))
    return done


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Its name has to be quoted."""
    (tmp_path / "my models").mkdir()
    return tmp_path / "my models"


@pytest.fixture
def held_out(make_shards, folder) -> Path:
    return make_shards(folder / "held out", 8, start=1000, end=False)


def test_training_with_held_out_pairs_leads_to_a_comparison_with_the_base(shards, held_out, tiny_model_folder, folder):
    first = ("run", shards, "--model", tiny_model_folder, "--out", folder / "out", "--eval-data", held_out, *QUICK)
    assert commands(*first) == ["run", "eval", "compare"]


def test_an_evaluation_leads_to_that_of_the_base_and_a_comparison(shards, held_out, tiny_model_folder, folder):
    out = folder / "out"
    done = train("run", shards, "--model", tiny_model_folder, "--out", out, *QUICK)
    assert following(done) is None and "to evaluate it: score held-out pairs with" in done.out
    assert commands("eval", held_out, "--model", out, "--out", folder / "eval.json") == ["eval", "eval", "compare"]
    compared = following(train("eval", held_out, "--model", out, "--out", folder / "eval.json"))
    assert compared == ["compare", str(folder / "eval-base.json"), str(folder / "eval.json")]  # the base is A
    assert following(train("eval", held_out, "--model", out)) is None


def test_a_recipes_held_out_run_is_proposed_when_it_is_there(shards, held_out, tiny_model_folder, folder):
    recipe = folder / "rmo.yaml"
    recipe.write_text(json.dumps({"eval": {"run": str(held_out)}}))
    first = ("run", shards, "--model", tiny_model_folder, "--out", folder / "out", "--recipe", recipe, *QUICK)
    assert commands(*first) == ["run", "eval", "eval", "compare"]
    recipe.write_text(json.dumps({"eval": {"run": str(folder / "nowhere")}}))
    assert following(train(*first)) is None


def test_nothing_is_proposed_that_would_fail(shards, make_shards, tiny_model_folder, folder):
    bare = make_shards(
        folder / "bare", 8, start=1000, end=False, ref_chosen_logps=[None] * 8, ref_rejected_logps=[None] * 8
    )
    run = ("run", shards, "--model", tiny_model_folder, "--out", folder / "out", "--eval-data", bare, *QUICK)
    assert following(train(*run)) is None  # `eval` would have no references
    manifest = read_manifest(folder / "out", TrainManifest)
    assert manifest is not None
    manifest.model_copy(update={"model": str(folder / "gone")}).write(folder / "out")
    (folder / "p.jsonl").write_text(json.dumps({"instruction": "Say yes."}) + "\n")
    answers = (
        "generate",
        folder / "p.jsonl",
        "--model",
        folder / "out",
        "--out",
        folder / "a.json",
        "--max-new-tokens",
        2,
    )
    assert following(train(*answers)) is None  # its base is gone


@pytest.mark.parametrize("form", ["alpaca-eval", "ifeval"])
def test_answers_lead_to_those_of_the_base_and_where_programs_can_tell_to_win_rates(
    form, shards, tiny_model_folder, folder
):
    if form == "ifeval":
        pytest.importorskip("if_verifiable")
    out, prompts = folder / "out", folder / "prompts.jsonl"
    assert train("run", shards, "--model", tiny_model_folder, "--out", out, *QUICK).code == 0
    constraint = {"key": 1, "prompt": "Say yes.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    prompts.write_text(json.dumps(constraint if form == "ifeval" else {"instruction": "Say yes."}) + "\n")
    first = ("generate", prompts, "--model", out, "--out", folder / "a.json", "--max-new-tokens", 2, "--seed", 7)
    assert following(train(*first))[-4:] == ["--max-new-tokens", "2", "--seed", "7"]
    assert commands(*first, "--overwrite") == ["generate", "generate", *(["winrate"] if form == "ifeval" else [])]
