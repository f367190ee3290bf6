"""What a model from a stranger may not do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from rmo_curate.cli import app as curate
from rmo_train.cli import app as train
from rmo_train.console.errors import UserError
from rmo_train.console.settings import build
from rmo_train.console.trust import Trust, TrustSettings, granted, granting
from rmo_train.generation.decoding_vllm import VllmDecoder
from rmo_train.model.adapters import check_adapter
from rmo_train.model.foreign import adapter_weights, weight_files
from rmo_train.model.merging import merge_adapter
from rmo_train.model.models import identity, load_tokenizer, weights_hash
from rmo_train.model.policy import load_config, load_for_training, load_model, save_model
from rmo_train.training.settings import TrainCommand

PICKLES, CODE = Trust(allow_pickle=True), Trust(trust_remote_code=True)
IDS = torch.tensor([[1, 20, 30, 40, 2, 50]])


class Bomb:
    """What a malicious pickle is: it runs a command when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def pickled(tiny_model_folder, tmp_path) -> Path:
    """The tiny model with its weights in pytorch_model.bin alone."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "pickled")
    torch.save(load_model(str(folder), "float32").state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def adapter(tiny_model_folder, tmp_path) -> Path:
    """An adapter on the tiny model that changes what it computes."""
    model = load_for_training(str(tiny_model_folder), torch.float32, lora=2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.constant_(parameter, 0.1)
    save_model(model, load_tokenizer(str(tiny_model_folder)), tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def pickled_adapter(adapter) -> Path:
    from safetensors.torch import load_file

    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    return adapter


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


# ---------------------------------------------------------------------------------------------------- pickles


def test_weights_in_pickles_are_refused_with_both_ways_out(pickled):
    for read in (identity, weights_hash, lambda name: load_model(name, "float32")):
        with pytest.raises(UserError, match=r"pickle files \(pytorch_model.bin\).*save_pretrained.*--allow-pickle"):
            read(str(pickled))


def test_allowed_pickles_are_the_same_model(pickled, tiny_model_folder):
    with granting(PICKLES):
        model, own = load_model(str(pickled), "float32"), identity(str(pickled))
    assert torch.equal(logits(model), logits(load_model(str(tiny_model_folder), "float32")))
    assert own.allowed == ("--allow-pickle",)
    assert identity(str(tiny_model_folder)).allowed is None
    assert granted() == Trust()  # and no longer


def test_a_foreign_safetensors_file_beside_a_pickle_lets_nothing_in(pickled, tmp_path):
    """transformers reads pytorch_model.bin where there is no model.safetensors, whatever else lies there."""
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, pickled / "other.safetensors")
    torch.save(Bomb(tmp_path / "went-off"), pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot load"):
        load_model(str(pickled), "float32")
    assert not (tmp_path / "went-off").exists()


def test_code_in_an_allowed_pickle_is_not_run(pickled, tmp_path):
    torch.save(Bomb(tmp_path / "went-off"), pickled / "pytorch_model.bin")
    with granting(PICKLES), pytest.raises(UserError, match="objects other than weights"):
        load_model(str(pickled), "float32")
    assert not (tmp_path / "went-off").exists()


def test_an_adapter_in_a_pickle_is_refused_everywhere(pickled_adapter, tmp_path):
    name = str(pickled_adapter)
    asked = (
        check_adapter,
        identity,
        lambda n: load_model(n, "float32"),
        lambda n: merge_adapter(Path(n), tmp_path / "merged"),
    )
    for read in asked:
        with pytest.raises(UserError, match=r"adapter_model\.bin.*save_file.*--allow-pickle"):
            read(name)
    assert not (tmp_path / "merged").exists()


def test_an_allowed_adapter_in_a_pickle_is_checked_and_merged(pickled_adapter, tiny_model_folder):
    with granting(PICKLES):
        check_adapter(str(pickled_adapter))
        merged = load_model(str(pickled_adapter), "float32")
        assert identity(str(pickled_adapter)).allowed == ("--allow-pickle",)
    assert not torch.allclose(logits(merged), logits(load_model(str(tiny_model_folder), "float32")))


def test_a_foreign_safetensors_file_beside_an_adapters_pickle_lets_nothing_in(pickled_adapter):
    (pickled_adapter / "other.safetensors").touch()
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        load_model(str(pickled_adapter), "float32")


def test_vllm_is_given_no_pickles(pickled):
    with pytest.raises(UserError, match="--allow-pickle"):
        VllmDecoder(str(pickled), "float32", None, 10)  # type: ignore[arg-type]


def test_an_adapter_that_names_a_package_to_import_is_refused(adapter):
    edit(adapter / "adapter_config.json", megatron_config={"x": 1}, megatron_core="antigravity")
    with pytest.raises(UserError, match="megatron_config names a package"):
        adapter_weights(adapter)


# ---------------------------------------------------------------------------------------------------- code


MODELING = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({mark!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = {kind!r}

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def with_code(tiny_model_folder, tmp_path) -> Path:
    """The tiny model as one whose classes come with it."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "with-code")
    (folder / "modeling_own.py").write_text(MODELING.format(mark=str(tmp_path / "ran"), kind="own-kind"))
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    edit(folder / "config.json", model_type="own-kind", auto_map=own, architectures=["OwnModel"])
    return folder


def test_a_model_that_needs_its_own_code_is_refused_and_the_code_not_run(with_code, tmp_path):
    for read in (load_config, lambda name: load_model(name, "float32")):
        with pytest.raises(UserError, match=r"auto_map.*which is not run.*--trust-remote-code"):
            read(str(with_code))
    assert not (tmp_path / "ran").exists()


def test_allowed_code_is_run_and_said_aloud_and_is_part_of_the_identity(with_code, tiny_model_folder, capsys):
    before = weights_hash(str(with_code))
    with granting(CODE):
        model, own = load_model(str(with_code), "float32"), identity(str(with_code))
    assert "its own Python code is run, as --trust-remote-code allows: modeling_own.py" in capsys.readouterr().err
    assert type(model).__name__ == "OwnModel"
    assert torch.equal(logits(model), logits(load_model(str(tiny_model_folder), "float32")))
    assert own.allowed == ("--trust-remote-code",)
    with (with_code / "modeling_own.py").open("a") as f:
        f.write("# changed\n")
    with granting(CODE):
        assert len({before, own.weights_sha256, weights_hash(str(with_code))}) == 3


def test_a_model_that_transformers_knows_is_read_without_the_code_it_brings(with_code, tmp_path):
    edit(with_code / "config.json", model_type="llama", architectures=["LlamaForCausalLM"])
    assert type(load_model(str(with_code), "float32")).__name__ == "LlamaForCausalLM"
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_that_needs_its_own_code_is_refused(with_code, tmp_path):
    edit(with_code / "config.json", model_type="llama", auto_map={})
    own = {"AutoTokenizer": ["modeling_own.OwnTokenizer", None]}
    edit(with_code / "tokenizer_config.json", tokenizer_class="OwnTokenizer", auto_map=own)
    for file in ("tokenizer.json",):
        (with_code / file).unlink()
    with pytest.raises(UserError, match="--trust-remote-code"):
        load_tokenizer(str(with_code))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_a_configuration_that_asks_for_kernels_of_the_hub_is_refused(tiny_model_folder, tmp_path, field):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "kernels")
    edit(folder / "config.json", **{field: {"": "evil/kernel"}})
    with pytest.raises(UserError, match=r"code from the Hub \('evil/kernel'\).*--trust-remote-code"):
        load_model(str(folder), "float32")


# ---------------------------------------------------------------------------------------------------- flags


def test_every_command_that_loads_a_model_has_both_flags():
    have = {c.name or c.callback.__name__ for app in (curate, train) for c in app.registered_commands
            if issubclass(getattr(c.callback, "settings", object), TrustSettings)}  # fmt: skip
    assert have == {"score", "proxy", "inspect", "run", "eval", "generate", "merge"}


def test_a_recipe_cannot_allow_anything():
    recipe = {"train": {"shards": "s", "model": "m", "out": "o", "trust_remote_code": True}}
    with pytest.raises(UserError, match="recipe section 'train' has no setting 'trust_remote_code'"):
        build(TrainCommand, "train", recipe, {})


def test_a_missing_weights_file_is_no_pickle(tmp_path):
    assert weight_files(tmp_path) == []
