"""The policy: a causal language model loaded to score or to train, in full or with LoRA, and saved again."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmo_train.console.errors import FULL, ProcessingError, UserError, cannot_write
from rmo_train.console.quiet import quiet
from rmo_train.console.trust import granted
from rmo_train.console.wording import counted
from rmo_train.model.foreign import adapter_weights, needs_code, tell_of_code, weight_files, weights_alone
from rmo_train.model.models import (
    ADAPTER_CONFIG,
    Identity,
    base_of,
    identity,
    is_adapter,
    load_tokenizer,
    resolve,
    weights_bytes,
)
from rmo_train.store.files import sync_folder

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "Identity",
    "add_lora",
    "context_length",
    "default_device",
    "identity",
    "load_config",
    "load_for_training",
    "load_model",
    "load_tokenizer",
    "move_into",
    "resolve",
    "resolve_dtype",
    "save_model",
    "without_weights",
]

log = logging.getLogger("rmo")

CPU_INFO = Path("/proc/cpuinfo")
BFLOAT16_FEATURES = {"avx512_bf16", "amx_bf16"}
LORA_SCALE = 2  # alpha / rank: the adapter's weight does not depend on its rank
CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")


# ---------------------------------------------------------------------------------------------------- device and dtype


def default_device() -> torch.device:
    """This process's GPU, if there is one, otherwise the CPU."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def resolve_dtype(name: str | torch.dtype, device: torch.device | str | None = None) -> torch.dtype:
    """The dtype of `auto`, `float32` or `bfloat16`; auto is bfloat16 if the device supports it natively."""
    import torch

    if isinstance(name, torch.dtype):
        return name
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name in known:
        return known[name]
    if name != "auto":
        raise UserError(f"--dtype {name}: expected auto, float32 or bfloat16")
    kind = torch.device(device).type if device is not None else default_device().type
    native = torch.cuda.is_bf16_supported(False) if kind == "cuda" else kind == "cpu" and cpu_has_bfloat16()
    return torch.bfloat16 if native else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether the CPU supports bfloat16 products (AVX-512 BF16, AMX); emulated ones are slower than float32."""
    try:
        flags = next((line for line in CPU_INFO.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:  # not Linux
        return False
    return not BFLOAT16_FEATURES.isdisjoint(flags.split())


# ---------------------------------------------------------------------------------------------------- loading


def load_config(name: str) -> PretrainedConfig:
    """The model's configuration (an adapter's: its base's)."""
    from transformers import AutoConfig

    folder = resolve(name)
    if is_adapter(folder):
        return load_config(base_of(folder))
    tell_of_code(folder)
    loader: Any = AutoConfig
    try:
        with quiet():
            return loader.from_pretrained(folder, local_files_only=True, trust_remote_code=granted().trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as e:
        raise UserError(
            f"{folder / 'config.json'}: not a model configuration that transformers knows: {e}{needs_code(folder)}"
        ) from e


def parameter_count(name: str) -> int:
    """Parameters of the model `name`, by the size of its weight files; an adapter's include its base's."""
    return weights_bytes(name) // getattr(getattr(load_config(name), "dtype", None), "itemsize", 2)


def without_weights(name: str) -> PreTrainedModel:
    """The model `name` (an adapter's: its base) as its configuration describes it, on the device in force."""
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    config = load_config(name)
    try:
        return loader.from_config(config, trust_remote_code=granted().trust_remote_code)
    except ValueError as e:
        folder = resolve(name)
        raise UserError(f"{folder}: no causal language model: {e}{needs_code(folder)}") from e


def context_length(config: PretrainedConfig) -> int:
    """The model's context in tokens; sys.maxsize if it has no limit."""
    for source in (config, config.get_text_config()):
        for field in CONTEXT_FIELDS:
            value = getattr(source, field, None)
            if isinstance(value, int) and value > 0:
                return value
    return sys.maxsize


def load_model(name: str, dtype: torch.dtype | str, *, device: torch.device | str | None = None) -> PreTrainedModel:
    """The model `name` in eval mode on `device`; an adapter is merged into its base in float32 and cast afterwards.

    `dtype` is torch's, or a name that `resolve_dtype` knows.
    """
    import torch

    target: Any = torch.device(device) if device is not None else default_device()
    dtype = resolve_dtype(dtype, target)
    folder = resolve(name)
    if is_adapter(folder):
        base = load_model(base_of(folder), torch.float32, device="cpu")
        model = _merge(base, folder)
    else:
        model = _load_whole(name, folder, dtype)
    movable: Any = model
    movable.to(device=target, dtype=dtype)
    model.config.use_cache = False
    model.name_or_path = model.config.name_or_path = name  # an adapter trained on it records this as its base
    return model.eval()


def _load_whole(name: str, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a folder with full weights, on the CPU."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    config = load_config(name)
    weight_files(folder)  # refuses pickles, in words
    loader: Any = AutoModelForCausalLM
    try:
        with quiet(), weights_alone(folder):
            model, report = loader.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                local_files_only=True,
                output_loading_info=True,
                use_safetensors=None if granted().allow_pickle else True,
                trust_remote_code=granted().trust_remote_code,
            )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as e:
        raise UserError(
            f"{folder}: transformers cannot load it as a causal language model: {e}{needs_code(folder)}"
        ) from e
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would silently initialise them at random
        raise UserError(
            f"{folder}: its weights lack {counted(len(missing), 'tensor')} of the architecture {type(model).__name__} "
            f"(first: {missing[0]}); the folder is incomplete or holds another kind of model"
        )
    return model


def _merge(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """`base` with the adapter of a folder folded into its weights."""
    from peft import PeftModel

    adapter_weights(adapter)
    try:
        with quiet(), weights_alone(adapter):
            merged = PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
            return merged.requires_grad_(True)  # peft froze the base; full training needs gradients
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as e:
        raise UserError(f"{adapter}: does not fit its base model {base.config.name_or_path!r}: {e}") from e


def load_for_training(
    name: str,
    dtype: torch.dtype | str,
    *,
    lora: int | None = None,
    gradient_checkpointing: bool = False,
    seed: int = 42,
    device: torch.device | str | None = None,
) -> torch.nn.Module:
    """The model `name` in train mode, every dropout off; with `lora` (a rank), only a new adapter is trainable.

    `dtype` is that of the weights, including a new adapter's (MasterAdamW keeps float32 masters of trained weights). An
    adapter given as `name` is merged first. Dropout is off, so the policy equals the reference at step 0.
    """
    import torch

    from rmo_train.model.lora import fuse

    if is_adapter(resolve(name)):
        log.info("%s is an adapter: merged into its base before training", name)
    target = torch.device(device) if device is not None else default_device()
    model: Any = load_model(name, resolve_dtype(dtype, target), device="cpu")
    if gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora is not None:
        model = add_lora(model, lora, seed)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    model = model.to(target).train()
    if lora is not None:
        fuse(model)
    return model


def add_lora(model: PreTrainedModel, rank: int, seed: int) -> torch.nn.Module:
    """`model` frozen, with an adapter on every linear layer but the head; its numbers depend on `seed` alone."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=rank,
        lora_alpha=LORA_SCALE * rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):  # on the CPU, before any move: the same on every device
        torch.manual_seed(seed)
        adapted: Any = get_peft_model(model, config, autocast_adapter_dtype=False)
    for made in adapted.peft_config.values():  # a set, which each process would save in a different order
        made.target_modules = sorted(made.target_modules)
    return adapted


# ---------------------------------------------------------------------------------------------------- saving


def save_model(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    *,
    state_dict: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write the model (or adapter) and its tokenizer into the folder `out`, which may hold other files.

    Everything is first written to a folder inside `out` and then renamed file by file, the configuration last, so an
    interrupted save never leaves a partial model that loads. `state_dict` replaces the model's own (gathered shards).
    """
    from safetensors import SafetensorError

    saving: Any = model
    temporary = out / ".saving"
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        with quiet():
            options = {"save_embedding_layers": False} if hasattr(saving, "peft_config") else {}
            saving.save_pretrained(temporary, state_dict=state_dict, **options)
            tokenizer.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)  # peft's empty model card; the trainer writes a real one
        move_into(temporary, out)
    except Exception as e:
        # On a full disk, safetensors raises SafetensorError and the tokenizer a bare Exception.
        if not isinstance(e, OSError | SafetensorError) and type(e) is not Exception:
            raise
        full = next((number for number in FULL if os.strerror(number) in str(e)), None)
        if full is not None:
            saved = [p for p in saving.parameters() if p.requires_grad or not hasattr(saving, "peft_config")]
            raise cannot_write(out, OSError(full, ""), sum(p.nbytes for p in saved)) from e
        raise ProcessingError(f"cannot save the model to {out}: {e}") from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def move_into(temporary: Path, out: Path) -> None:
    """Rename the files of `temporary` into `out`, the configuration last, and remove weights that they replace."""
    configs = ("config.json", ADAPTER_CONFIG)
    names = sorted((p.name for p in temporary.iterdir()), key=lambda n: (n in configs, n))
    for name in configs:  # without its configuration, the folder is not a model
        (out / name).unlink(missing_ok=True)
    for stale in [*out.glob("*model*.safetensors"), *out.glob("*.safetensors.index.json")]:
        if stale.name not in names:
            stale.unlink()
    readable = (temporary / "tokenizer_config.json").stat().st_mode  # as the umask allows
    for name in names:
        (temporary / name).chmod(readable)  # safetensors writes files that only the owner can read
        with (temporary / name).open("rb") as f:
            os.fsync(f.fileno())
        (temporary / name).replace(out / name)
    sync_folder(out)
