"""Settings of every command that cannot be: refused by name, with nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import curate, train
from tests.rmo_curate.scored import marks, record, write_jsonl

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--low-q", 1.5], ["--low-q (recipe: filter.low_q)", "less than or equal to 1, got 1.5"]),
        (["--low-q", -0.1], ["--low-q (recipe: filter.low_q)", "greater than or equal to 0"]),
        (["--high-q", "nan"], ["--high-q (recipe: filter.high_q)", "finite number"]),
        (["--low-q", "some"], ["'--low-q'", "valid number"]),
        (["--rule", "irn"], ["--rule irn: no such rule; expected one of posterior, irm", "did you mean 'irm"]),
        (["--margin", "rewards"], ["--margin", "'rewards'", "'reward'"]),
        (["--preset", "papers"], ["--preset", "'papers'", "'paper'"]),
        (
            ["--preset", "paper", "--rule", "rmo"],
            ["--preset paper sets --rule, --margin, --low-q", "--rule is also given"],
        ),
        (["--preset", "authors-code", "--low-q", 0.2, "--hard"], ["--low-q, --hard is also given"]),
        (["--end", "oof-3"], ["--end oof-3:", "the run has oof-2", "did you mean 'oof-2'"]),
        (["--low-quantile", 0.1], ["No such option: --low-quantile"]),
    ],
)
def test_filter_settings_that_cannot_be(full_run, arguments, said):
    assert curate("filter", full_run, "--out", "shards", *arguments).refused(*said)
    assert not Path("shards").exists()


@pytest.mark.parametrize("rule", ["irm", "rmo", "irm-ln"])
def test_a_rule_without_its_proxy_names_the_command(base_only, rule):
    outcome = curate("filter", base_only, "--out", "shards", "--rule", rule)
    assert outcome.refused(f"--rule {rule}", f"run `rmo-curate proxy {base_only}` first (a probe, at the cost of")
    assert not Path("shards").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--folds", 50], "50 folds need at least 50 distinct prompts, the data has"),
        (["--folds", 0], "--folds (recipe: proxy.folds): Input should be greater than or equal to 1"),
        (
            ["--kind", "lora", "--steps", "4,99", "--batch-size", 4],
            "--steps 4: a proxy trains 2 steps on this data",
        ),
        (["--kind", "none"], "--kind none adds no proxy"),
        (["--epochs", 2], "epochs applies only to trained proxies; set proxy.kind: lora, or give --kind lora"),
        (["--steps", "soon"], "--steps (recipe: proxy.steps)"),
        (["--lora", 4, "--full"], "--full trains all weights, --lora an adapter"),
        (["--rank", 4], "No such option: --rank"),
    ],
)
def test_proxy_settings_that_cannot_be(full_run, arguments, said):
    before = marks(full_run)
    assert curate("proxy", full_run, *arguments).refused(said)
    assert curate("proxy", full_run, *arguments, "--dry-run").refused(said)
    assert marks(full_run) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--proxy", "lora", "--folds", 9], ["--proxy lora: 9 folds", "the data has 8", "--folds 1 (in-sample)"]),
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
    assert outcome.refused("--proxy probe: 2 folds need at least 2 distinct prompts, the data has 1")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--loss", "dop"], ["dop", "did you mean 'dpo'"]),
        (["--losss", "dpo"], ["No such option: --losss"]),
        (["--beta", 0], ["--beta (recipe: train.beta)"]),
        (["--amplify-preset", "authors", "--amplify", 0.5], ["--amplify-preset already sets the amplification"]),
        (["--eval-data", "nowhere"], ["nowhere: no such folder"]),
    ],
)
def test_training_settings_that_cannot_be(full_run, model, arguments, said):
    assert curate("filter", full_run, "--out", "shards", "--rule", "none").code == 0
    assert train("run", "shards", "--model", model, "--out", "trained", *arguments).refused(*said)
    assert not Path("trained").exists()


def test_training_on_what_is_no_shard_folder(data, model):
    for folder in ("nowhere", "."):
        outcome = train("run", folder, "--model", model, "--out", "trained")
        assert outcome.refused(folder, "shard folder") and not Path("trained").exists()
