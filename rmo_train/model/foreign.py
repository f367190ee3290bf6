"""A model's folder as a stranger's: weights that can carry code, and code itself, are refused unless they are allowed.

What is allowed are the flags of `rmo_train.console.trust`. Nothing here loads a model or imports what loads one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from rmo_train.console.errors import UserError
from rmo_train.console.progress import say
from rmo_train.console.trust import granted
from rmo_train.store.files import read_json

PICKLES = "*model*.bin"
ADAPTER_SAFE, ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"  # of peft
CONFIGURATIONS = ("config.json", "tokenizer_config.json")

_told: set[Path] = set()  # folders of whose code a line was said


def weight_files(folder: Path) -> list[Path]:
    """The weights' files, sorted: safetensors, else PyTorch's pickles; a UserError where those are not allowed."""
    files = [f for f in sorted(folder.glob("*.safetensors")) if f.is_file()]
    if files:
        return files
    pickles = [f for f in sorted(folder.glob(PICKLES)) if f.is_file()]
    if pickles and not granted().allow_pickle:
        name = pickles[0].name
        raise UserError(
            f"{folder}: its weights are pickle files ({name}), which can contain code, and there are no *.safetensors; "
            f"convert them in a sandbox ({_conversion(folder, name)}), or pass --allow-pickle if you trust their author"
        )
    return pickles


def adapter_weights(folder: Path) -> Path:
    """The file that peft reads an adapter's weights from; a UserError where there is none, or one not allowed."""
    weight_files(folder)
    wanted = [folder / ADAPTER_SAFE, *([folder / ADAPTER_PICKLE] if granted().allow_pickle else [])]
    if (first := next((f for f in wanted if f.is_file()), None)) is None:
        raise UserError(f"{folder}: no {ADAPTER_SAFE}; was the adapter saved completely?")
    if _settings(folder / "adapter_config.json").get("megatron_config"):
        raise UserError(
            f"{folder / 'adapter_config.json'}: megatron_config names a package that would be imported. rmo "
            "loads adapters without it: set megatron_config to null"
        )
    return first


def _conversion(folder: Path, pickle: str) -> str:
    """The Python that writes a folder's weights as safetensors."""
    if pickle == ADAPTER_PICKLE:
        return (
            "`from safetensors.torch import save_file; import torch; "
            "save_file(torch.load('adapter_model.bin', weights_only=True), 'adapter_model.safetensors')`"
        )
    return f"`AutoModelForCausalLM.from_pretrained({str(folder)!r}).save_pretrained(NEW)`"


@contextmanager
def weights_alone(folder: Path) -> Iterator[None]:
    """Around what loads a folder's weights: a pickle that holds more than weights is a UserError, allowed or not.

    The loaders run no code of a pickle (torch's `weights_only`); the advice in their error, to do without, is left out.
    """
    try:
        yield
    except UnpicklingError as e:
        raise UserError(
            f"{folder}: a pickle there contains objects other than weights, which can be code; it is not loaded, and "
            "no flag allows it: ask whoever made it for safetensors"
        ) from e


# ---------------------------------------------------------------------------------------------------- code


def own_code(folder: Path) -> list[Path]:
    """The Python files of a model that are run when it is loaded: none unless --trust-remote-code is given."""
    return sorted(folder.rglob("*.py")) if granted().trust_remote_code and names_code(folder) else []


def names_code(folder: Path) -> bool:
    """Whether a model's configuration, or its tokenizer's, names classes that do not come with transformers."""
    return any("auto_map" in _settings(folder / name) for name in CONFIGURATIONS)


def needs_code(folder: Path) -> str:
    """What to add to an error of loading, where the reason may be that the model's own code is not run."""
    if granted().trust_remote_code or not names_code(folder):
        return ""
    return (
        "; it names Python code of its own (auto_map), which is not run. Read that code, and if you trust it, pass "
        "--trust-remote-code"
    )


def tell_of_code(folder: Path) -> None:
    """Say, once for a folder, that code of a model is run; a UserError where the model would run some unasked."""
    kernels = sorted(_kernels(_settings(folder / "config.json")))
    if kernels and not granted().trust_remote_code:
        raise UserError(
            f"{folder / 'config.json'}: would run code from the Hub ({kernels[0]!r}); remove that setting, or "
            "pass --trust-remote-code if you trust it"
        )
    if folder in _told or not (files := own_code(folder)):
        return
    _told.add(folder)
    names = ", ".join(str(f.relative_to(folder)) for f in files) or "what its auto_map names on the Hub"
    say(f"warning: {folder}: its own Python code is run, as --trust-remote-code allows: {names}")


def _kernels(settings: Any) -> set[str]:
    """What a configuration names as implementations of attention or experts that is fetched from the hub."""
    if isinstance(settings, list):
        return {k for item in settings for k in _kernels(item)}
    if not isinstance(settings, dict):
        return set()
    found = {k for value in settings.values() for k in _kernels(value)}
    for name, value in settings.items():
        if name.removesuffix("_internal").endswith("_implementation"):
            values = value.values() if isinstance(value, dict) else [value]
            found |= {v for v in values if isinstance(v, str) and "/" in v}
    return found


def _settings(path: Path) -> dict[str, Any]:
    """A configuration file's content; empty where there is none."""
    content = read_json(path) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
