"""What cannot be trained is refused before step 0: exit code 2, no traceback, and the output folder as it was."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.data.pairs import open_pairs
from rmo_train.store.files import read_json, write_json
from rmo_train.training.command import run_training
from rmo_train.training.settings import TrainSettings
from tests.command_line import train
from tests.rmo_train.store.test_writing import no_file_over
from tests.tiny import write_tiny_model

QUICK = ("--per-device-train-batch-size", 2, "--gradient-accumulation-steps", 2, "--learning-rate", 1e-3)


@pytest.fixture
def run(shards, tiny_model_folder, tmp_path):
    """run(*more, shards=..., model=..., made=False): `rmo-train run`; nothing but what was there may be in --out."""

    def start(*more, data=shards, model=tiny_model_folder, made=False):
        out = tmp_path / "out"
        before = sorted(out.rglob("*")) if out.exists() else None
        done = train("run", data, "--model", model, "--out", out, *QUICK, *more)
        if not made:
            assert (sorted(out.rglob("*")) if out.exists() else None) == before, "something was written"
        return done

    return start


def test_a_wrong_path_and_a_folder_that_is_no_data(run, tmp_path):
    assert run(data=tmp_path / "nowhere").refused("nowhere: no such folder", "a run folder (scored pairs)")
    (tmp_path / "empty").mkdir()
    assert run(data=tmp_path / "empty").refused("not a finished run or shard folder", "score or filter the pairs first")


def test_shards_of_another_schema_version(run, make_shards, tmp_path):
    folder = make_shards(tmp_path / "shards")
    write_json(folder / "manifest.json", read_json(folder / "manifest.json") | {"schema_version": 99})
    assert run(data=folder).refused("schema version 99", "make the folder again")


def test_a_manifest_that_does_not_match(run, make_shards, tmp_path):
    folder = make_shards(tmp_path / "shards")
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"end": "oof-9"})
    assert run(data=folder).refused("'oof-9' is not among them", "make the shards again")
    write_json(folder / "manifest.json", manifest | {"checkpoints": ["base", "a", "oof-4"]})
    assert run(data=folder).refused("a pair has 2 chosen_logps")
    write_json(folder / "manifest.json", "no object")
    assert run(data=folder).refused("schema version None")


def test_a_damaged_or_missing_shard(run, make_shards, tmp_path):
    folder = make_shards(tmp_path / "shards")
    part = folder / "data" / "train-00000-of-00001.parquet"
    part.write_bytes(part.read_bytes()[:-10])
    assert run(data=folder).refused("differs from its record")
    part.unlink()
    assert run(data=folder).refused("missing, though")


def test_shards_without_pairs(run, make_shards, tmp_path):
    assert run(data=make_shards(tmp_path / "shards", 0)).refused("no usable pairs (0 rows)")


def test_a_reference_logp_that_is_no_number(run, make_shards, tmp_path):
    broken = np.full(24, -3.0)
    broken[5] = np.nan
    assert run(data=make_shards(tmp_path / "shards", ref_chosen_logps=broken)).refused(
        "pair-5 has ref_chosen_logps = nan", "score the data again"
    )


@pytest.mark.parametrize(("column", "value"), [("weight", np.inf), ("weight", -1.0), ("label_confidence", 1.5)])
def test_a_weight_or_confidence_out_of_range(column, value, make_shards, tmp_path):
    values = np.ones(24)
    values[7] = value
    with pytest.raises(UserError, match=f"pair-7 has {column} = {value}"):
        open_pairs(make_shards(tmp_path / "shards", **{column: values}))


def test_a_pair_longer_than_the_context(run, make_shards, tmp_path):
    short = write_tiny_model(tmp_path / "short", context=12)
    assert run("--ignore-identity", model=short).refused("tokens, more than the context of", "(12)", "--max-length")


def test_a_batch_larger_than_the_data(run):
    assert run("--per-device-train-batch-size", 40).refused("80 pairs is larger than the data (24 pairs)")


def test_an_unknown_loss(run):
    assert run("--loss", "dop").refused("did you mean 'dpo'")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--amplify-preset", "authors", "--amplify", 0.5), "leave out --amplify"),
        (("--amplify", "inf"), "--amplify"),
        (("--loss", "dpo", "--label-smoothing", 0.1), "does not use it"),
        (("--sft-weight", -1), "--sft-weight"),
        (("--report-to", "wandbb"), "--report-to"),
        (("--load-best-model-at-end",), "give --eval-steps and --save-steps"),
        (("--eval-steps", 2), "give --eval-data"),
        (("--lora", 0), "--lora"),
        (("--max-steps", 0), "--max-steps"),
        (("--fsdp",), "torchrun"),
    ],
)
def test_settings_that_cannot_be(flags, said, run):
    assert run(*flags).refused(said)


def test_another_model(run, tmp_path):
    assert run(model=write_tiny_model(tmp_path / "other", seed=9)).refused("weights:", "--ignore-identity")


def test_reference_columns_of_another_model(run, make_shards, tmp_path):
    folder = make_shards(tmp_path / "shards", ref_chosen_logps=np.full(24, -3.0))
    assert run(data=folder, made=True).refused("step 0:", "Likely causes", "Score the pairs again")


def test_eval_data_that_overlaps(run, shards):
    assert run("--eval-data", shards).refused("shares 24 ids and 24 prompts")


def test_an_adapter_on_the_wrong_base(run, shards, tiny_model_folder, tmp_path):
    adapter = tmp_path / "adapter"
    trained = train(
        "run", shards, "--model", tiny_model_folder, "--out", adapter, *QUICK, "--lora", 2, "--max-steps", 1
    )
    assert trained.code == 0, trained
    for other, said in (({"seed": 9}, "trained on weights"), ({"hidden": 64}, "trained on weights")):
        base = write_tiny_model(tmp_path / f"base-{said}-{other}", **other)
        config = read_json(adapter / "adapter_config.json")
        write_json(adapter / "adapter_config.json", config | {"base_model_name_or_path": str(base)})
        assert run("--ignore-identity", model=adapter).refused(said)


def test_a_full_disk_is_found_before_the_first_step(shards, tiny_model_folder, tmp_path):
    """The model has 60 kB, and no file may have more than 20."""
    out = tmp_path / "out"
    settings = TrainSettings(per_device_train_batch_size=4, gradient_accumulation_steps=1)
    with pytest.raises(ProcessingError, match=r"cannot save the model .*nothing was trained"), no_file_over(20_000):
        run_training(shards, str(tiny_model_folder), out, settings)
    assert not list(out.glob("*.safetensors")) and not (out / "metrics.jsonl").exists()


def test_a_disk_that_fills_up_at_a_checkpoint_leaves_the_one_before(shards, tiny_model_folder, tmp_path):
    """The optimizer's state is larger than the model, which is why the first save went through."""
    out = tmp_path / "out"
    settings = TrainSettings(per_device_train_batch_size=4, gradient_accumulation_steps=1, save_steps=2)
    model = (tiny_model_folder / "model.safetensors").stat().st_size
    with pytest.raises(ProcessingError, match=r"cannot write .*checkpoint-2"), no_file_over(2 * model):
        run_training(shards, str(tiny_model_folder), out, settings)
    assert not list(out.glob("*checkpoint-*"))
    run_training(shards, str(tiny_model_folder), out, settings)
    assert (out / "manifest.json").is_file()


def test_a_loss_that_is_not_finite_stops_before_the_update(shards, tiny_model_folder, tmp_path):
    exploding = TrainSettings(per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=1e30)
    with pytest.raises(ProcessingError, match="not finite; the weights were not updated"):
        run_training(shards, str(tiny_model_folder), tmp_path / "out", exploding)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_folder_that_is_no_training_run_is_left_alone(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert run().refused("not from a training run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(run, tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert run().code == 3
    finally:
        tmp_path.chmod(0o700)


def test_an_output_of_other_settings(run, tmp_path):
    assert run("--max-steps", 1, made=True).code == 0
    assert run("--max-steps", 2).refused("max_steps: the folder has 1, you asked for 2")
    metrics = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [1]
