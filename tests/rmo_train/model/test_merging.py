"""`rmo-train merge`: the merged model is the adapter's, and what does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rmo_train.data.pairs import open_pairs
from rmo_train.forward.layout import Layout
from rmo_train.forward.logps import pair_logps
from rmo_train.model.adapters import adapted_shapes, linear_shapes
from rmo_train.model.merging import merge_adapter
from rmo_train.model.policy import load_config, load_for_training, load_model, load_tokenizer, save_model
from rmo_train.training.command import run_eval, run_training
from rmo_train.training.settings import TrainSettings
from tests.command_line import train
from tests.tiny import write_tiny_model


def make_adapter(base: Path, out: Path) -> torch.nn.Module:
    """An adapter that moves the model visibly, saved into `out`; returns the unmerged model."""
    model = load_for_training(str(base), "float32", lora=4, device="cpu")
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    save_model(model, load_tokenizer(str(base)), out)
    return model.eval()


@pytest.fixture
def base(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model_folder, tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    make_adapter(base, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_log_probs_of_the_merged_model_are_the_adapters(tiny_model_folder, shards, tmp_path):
    unmerged = make_adapter(tiny_model_folder, tmp_path / "adapter")
    done = train("merge", tmp_path / "adapter", "--out", tmp_path / "merged")
    assert done.code == 0 and "the float32 model is in" in done.out, done
    merged = load_model(str(tmp_path / "merged"), "float32", device="cpu")
    data = open_pairs(shards)
    rows, layout = data.spread(24), Layout("rows", 256)
    theirs, ours = (torch.from_numpy(pair_logps(m, data, rows, layout)) for m in (unmerged, merged))
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-5)  # nats, summed over at most 11 tokens
    reference = torch.from_numpy(pair_logps(load_model(str(tiny_model_folder), "float32"), data, rows, layout))
    assert (ours - reference).abs().mean() > 0.5


def test_the_folder_is_a_plain_model(adapter, base, tmp_path):
    merge_adapter(adapter, tmp_path / "merged")
    names = {p.name for p in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert not [n for n in names if "adapter" in n]
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == load_file(base / "model.safetensors").keys()
    assert json.loads((tmp_path / "merged" / "config.json").read_text()).get("use_cache") is not False
    assert f"base_model: {base}" in (tmp_path / "merged" / "README.md").read_text()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
@pytest.mark.parametrize("asked", ["auto", "float32", "bfloat16"])
def test_dtype_auto_is_the_bases(stored, asked, tiny_model_folder, tmp_path):
    base = tmp_path / "base"
    save_model(load_model(str(tiny_model_folder), stored), load_tokenizer(str(tiny_model_folder)), base)
    make_adapter(base, tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged", asked)
    expected = getattr(torch, stored if asked == "auto" else asked)
    assert {t.dtype for t in load_file(tmp_path / "merged" / "model.safetensors").values()} == {expected}
    assert load_config(str(tmp_path / "merged")).dtype == expected


def test_evaluation_still_warns_of_the_training_data(shards, tiny_model_folder, tmp_path):
    settings = TrainSettings(lora=2, max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=1)
    run_training(shards, str(tiny_model_folder), tmp_path / "out", settings)
    merge_adapter(tmp_path / "out", tmp_path / "merged")
    assert run_eval(shards, str(tmp_path / "merged")).overlap_pairs == 24


def test_a_base_that_changed_since_the_training_is_refused(shards, base, tmp_path):
    settings = TrainSettings(lora=2, max_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=1)
    run_training(shards, str(base), tmp_path / "out", settings)
    write_tiny_model(base, seed=5)  # the same shapes
    refused = train("merge", tmp_path / "out", "--out", tmp_path / "merged")
    assert refused.refused("trained on weights", "a different or modified model")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"hidden": 64}, "(out x in), in"),
        ({"layers": 3}, "adapts 2 layers"),
        ({"layers": 1}, "which"),
    ],
)
def test_a_base_of_another_shape_is_refused(other, said, adapter, base, tmp_path):
    shutil.rmtree(base)
    write_tiny_model(base, **other)
    assert train("merge", adapter, "--out", tmp_path / "merged").refused(said, "trained on another model")
    assert not (tmp_path / "merged").exists()


def test_a_base_that_is_gone_is_named_with_the_place_to_mend(adapter, base, tmp_path):
    base.rename(tmp_path / "moved")
    refused = train("merge", adapter, "--out", tmp_path / "merged")
    assert refused.refused(f"its base model '{base}' was not found", "base_model_name_or_path")


def test_what_is_no_adapter_is_refused(base, adapter, tmp_path):
    out = tmp_path / "merged"
    assert train("merge", base, "--out", out).refused("already a full model")
    assert train("merge", tmp_path, "--out", out).refused("no adapter_config.json; it contains the adapters adapter")
    assert train("merge", tmp_path / "nowhere", "--out", out).refused("no such folder")
    assert train("merge", adapter, "--out", out, "--dtype", "int8").refused("--dtype", "'int8' is not one of")
    (adapter / "adapter_model.safetensors").write_text("cut")
    assert train("merge", adapter, "--out", out).refused("cannot read")
    (adapter / "adapter_model.safetensors").unlink()
    assert train("merge", adapter, "--out", out).refused("saved completely?")
    assert not out.exists()


def test_a_folder_with_files_is_kept_and_a_model_replaced_only_when_told(adapter, tmp_path):
    out = tmp_path / "merged"
    merge_adapter(adapter, out)
    (out / "notes.txt").write_text("mine")
    assert train("merge", adapter, "--out", out).refused("not empty", "--overwrite")
    assert (out / "notes.txt").exists()
    assert train("merge", adapter, "--out", out, "--overwrite").code == 0
    assert not (out / "notes.txt").exists() and (out / "model.safetensors").exists()
    strange = tmp_path / "thesis"
    strange.mkdir()
    (strange / "chapter.tex").write_text("x")
    assert train("merge", adapter, "--out", strange, "--overwrite").refused("not a model")
    for place in (adapter, tmp_path):
        assert train("merge", adapter, "--out", place, "--overwrite").refused("contains the adapter itself")
    assert (adapter / "adapter_config.json").exists()


def test_shapes_by_hand(adapter, base):
    """hidden 32, 4 heads and 2 key-value heads of 8, mlp of 64."""
    expected = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "mlp.up_proj": (64, 32),
                "mlp.down_proj": (32, 64)}  # fmt: skip
    for shapes in (adapted_shapes(adapter), linear_shapes(str(base))):
        assert {n: shapes[f"model.layers.1.{n}"] for n in expected} == expected
    assert linear_shapes(str(base)).keys() - adapted_shapes(adapter).keys() == {"lm_head"}


def test_an_adapter_of_some_layers_only_is_no_other_model(tiny_model_folder, adapter, tmp_path):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"layers_to_transform": [1]}))
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v for k, v in weights.items() if ".1." in k}, adapter / "adapter_model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    merge_adapter(adapter, tmp_path / "merged")
    ours, theirs = (load_file(f / "model.safetensors") for f in (tmp_path / "merged", tiny_model_folder))
    changed = {name.split(".")[2] for name in ours if not torch.equal(ours[name], theirs[name])}
    assert changed == {"1"}
