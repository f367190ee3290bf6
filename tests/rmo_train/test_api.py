"""The Python API of the trainer: what it makes is what the commands make."""

from __future__ import annotations

import pytest

import rmo_train
from tests.command_line import train

FAST = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}


def test_the_api_and_the_commands_train_and_measure_the_same(make_shards, tiny_model_folder, tmp_path, capsys):
    shards, held = make_shards(tmp_path / "shards", 8), make_shards(tmp_path / "held", 8, start=100)
    trained = rmo_train.train(shards, tiny_model_folder, tmp_path / "own", eval_data=held, **FAST)
    base = rmo_train.evaluate(held, tiny_model_folder)
    after = rmo_train.evaluate(str(held), str(trained.out), out=tmp_path / "own.json")
    difference = rmo_train.compare(base, tmp_path / "own.json")
    assert capsys.readouterr().out == ""

    sizes = ("--per-device-train-batch-size", 2, "--gradient-accumulation-steps", 1, "--max-steps", 2)
    named = ("--model", tiny_model_folder, "--out", tmp_path / "run", "--eval-data", held)
    assert train("run", shards, *named, *sizes).code == 0
    for file in ("model.safetensors", "eval_results.json", "trained_on.parquet", "run.json"):
        assert (tmp_path / "own" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    assert train("eval", held, "--model", tmp_path / "run", "--out", tmp_path / "run.json").code == 0
    assert (tmp_path / "own.json").read_bytes() == (tmp_path / "run.json").read_bytes()

    assert (trained.pairs, trained.steps, trained.metrics["step"], trained.best) == (8, 2, 2, None)
    assert trained.evaluation == after and base.reward_accuracy.value == 0.5
    assert difference == rmo_train.compare(base, after) and difference.pairs == 8
    assert rmo_train.train(shards, tiny_model_folder, tmp_path / "own", eval_data=held, **FAST) == trained


def test_an_evaluation_is_shown_without_its_pairs(make_shards, tiny_model_folder, tmp_path):
    shown = repr(rmo_train.evaluate(make_shards(tmp_path / "held", 4), tiny_model_folder))
    assert "reward_accuracy=Interval(value=0.5" in shown and "pairs={" not in shown


def test_a_mistake_is_named_by_its_keyword(make_shards, tiny_model_folder, tmp_path):
    shards, out = make_shards(tmp_path / "shards", 16), tmp_path / "out"
    for given, said in (
        ({"learning_rat": 1e-5}, r"^train\(\) has no setting 'learning_rat'; did you mean 'learning_rate'"),
        ({"learning_rate": -1}, "^learning_rate: Input should be greater than 0, got -1"),
        (
            {"amplify_preset": "authors", "amplify": 0.25},
            "amplify_preset already sets the amplification; leave out amp",
        ),
        ({"eval_steps": 1}, "^eval_steps needs held-out pairs: give eval_data"),
        ({"report_to": "tensorbord"}, "^report_to: Input should be 'none', 'tensorboard'"),
    ):
        with pytest.raises(rmo_train.UserError, match=said):
            rmo_train.train(shards, tiny_model_folder, out, **given)
    with pytest.raises(rmo_train.UserError, match="no such folder"):
        rmo_train.evaluate(tmp_path / "nothing", tiny_model_folder)
    with pytest.raises(rmo_train.UserError, match="no such file"):
        rmo_train.compare(tmp_path / "a.json", tmp_path / "b.json")
    assert not out.exists()


def test_only_flags_become_keywords_and_commands_stay_commands():
    from rmo_train.console.keywords import in_keywords

    with pytest.raises(rmo_train.UserError) as refused, in_keywords():
        raise rmo_train.UserError("--high-q 2: 0 to 1 -- run `rmo-curate filter RUN --low-q 0.1`, or --rule none")
    assert str(refused.value) == "high_q 2: 0 to 1 -- run `rmo-curate filter RUN --low-q 0.1`, or rule none"
