"""Checks that a LoRA adapter belongs to its base: by the hash of the base's weights, if our training recorded it, and
by the shapes of the adapted layers. A wrong base of the same shapes would load silently and compute nonsense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmo_train.console.errors import UserError
from rmo_train.console.wording import counted
from rmo_train.model.foreign import ADAPTER_SAFE, adapter_weights, weights_alone
from rmo_train.model.models import ADAPTER_CONFIG, base_of, is_adapter, resolve, weights_hash
from rmo_train.model.policy import without_weights
from rmo_train.store.files import read_json
from rmo_train.store.manifests import MANIFEST

PREFIX = "base_model.model."  # what peft puts before the names of the base's modules


def check_adapter(name: str) -> None:
    """UserError if the model `name` is an adapter whose base is missing or not the model that it was trained on."""
    folder = resolve(name)
    if is_adapter(folder):
        base = base_that_is_there(folder)
        check_base(folder, base)
        check_adapter(base)


def base_that_is_there(adapter: Path) -> str:
    """The name of the adapter's base, which must exist."""
    base = base_of(adapter)
    try:
        resolve(base)
    except UserError as e:
        raise UserError(
            f"{adapter}: its base model {base!r} was not found ({e}). If the model has moved, write its new path "
            f"to base_model_name_or_path in {adapter / ADAPTER_CONFIG}"
        ) from e
    return base


def check_base(adapter: Path, base: str) -> None:
    """UserError if `base` is not the model that the adapter was trained on."""
    recorded = _recorded_base(adapter)
    if recorded is not None and (weights := weights_hash(base)) != recorded:
        raise UserError(
            f"{adapter}: trained on weights {recorded:.12}, but {base!r} has {weights:.12}: a different or modified "
            f"model. Restore the original, or write its path to base_model_name_or_path in {adapter / ADAPTER_CONFIG}"
        )
    expected, shapes = adapted_shapes(adapter), linear_shapes(base)
    for module, shape in expected.items():
        if module not in shapes:
            raise UserError(
                f"{adapter}: adapts {module}, which {base!r} does not have; it was trained on another model"
            )
        if shapes[module] != shape:
            raise UserError(
                f"{adapter}: adapts {module} of {shape[0]} x {shape[1]} (out x in), in {base!r} it is "
                f"{shapes[module][0]} x {shapes[module][1]}; it was trained on another model"
            )
    depth, layers = _depth(expected), _depth(shapes)
    if _adapts_every_layer(adapter) and expected and depth != layers:
        raise UserError(
            f"{adapter}: adapts {counted(depth, 'layer')}, {base!r} has {layers}; it was trained on another model"
        )


def _recorded_base(adapter: Path) -> str | None:
    """The hash of the base's weights, if one of our runs or its checkpoints wrote the adapter."""
    for name in (MANIFEST, "trainer_state.json"):
        if (adapter / name).is_file():
            key = read_json(adapter / name).get("key") or {}
            if isinstance(key.get("model"), str):
                return key["model"]
    return None


def adapted_shapes(adapter: Path) -> dict[str, tuple[int, int]]:
    """(out, in) of each linear layer that a LoRA adapter changes, by the layer's name in the base."""
    inner: dict[str, int] = {}
    outer: dict[str, int] = {}
    for key, shape in _shapes(adapter_weights(adapter)).items():
        module, _, part = key.removeprefix(PREFIX).rpartition(".lora_")
        if part == "A.weight":
            inner[module] = shape[1]
        elif part == "B.weight":
            outer[module] = shape[0]
    return {module: (outer[module], inner[module]) for module in inner if module in outer}


def _shapes(weights: Path) -> dict[str, list[int]]:
    """The shape of each tensor of an adapter's weights, a safetensors file or an allowed pickle."""
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        if weights.name != ADAPTER_SAFE:
            with weights_alone(weights.parent):
                loaded = torch.load(weights, weights_only=True, map_location="meta")
            return {key: list(tensor.shape) for key, tensor in loaded.items()}
        with safe_open(weights, framework="numpy") as f:
            return {key: f.get_slice(key).get_shape() for key in f.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError, RuntimeError, EOFError) as e:
        raise UserError(f"cannot read {weights}: {e}") from e


def linear_shapes(base: str) -> dict[str, tuple[int, int]]:
    """(out, in) of each linear layer of a model, from its configuration: no weights are read."""
    import torch
    from transformers.pytorch_utils import Conv1D

    with torch.device("meta"):
        model = without_weights(base)
    shapes = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            shapes[name] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):  # GPT-2's, transposed
            shapes[name] = (module.weight.shape[1], module.weight.shape[0])
    assert shapes, base
    return shapes


def _depth(modules: Any) -> int:
    """Number of layers with a module among these: the distinct numbers in their names."""
    return len({part for module in modules for part in module.split(".") if part.isdigit()})


def _adapts_every_layer(adapter: Path) -> bool:
    """False if the adapter's settings select layers; fewer layers are then no sign of another base."""
    config = read_json(adapter / ADAPTER_CONFIG)
    picked = any(config.get(name) for name in ("layers_to_transform", "layers_pattern", "exclude_modules"))
    return not picked and isinstance(config.get("target_modules"), list)
