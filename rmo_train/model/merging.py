"""`rmo-train merge`: converts an adapter's folder to a plain model folder, for programs that cannot load adapters.

The adapter is added to its base in float32 and the sum is cast once. A missing base is refused, and so is one that the
adapter was not trained on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from rmo_train.console.errors import UserError
from rmo_train.model.adapters import base_that_is_there, check_base
from rmo_train.model.models import ADAPTER_CONFIG, is_adapter
from rmo_train.report import merged_line
from rmo_train.store.files import write_bytes
from rmo_train.store.folder_lock import making
from rmo_train.store.manifests import MANIFEST
from rmo_train.store.replacing import replaced

TRAINED_ON = "trained_on.parquet"


def merge_adapter(adapter: Path, out: Path, dtype: str = "auto", *, overwrite: bool = False) -> list[str]:
    """Merge `adapter` into its base and write the model to the folder `out`; returns the lines to print.

    dtype: float32, bfloat16, or auto (as the base's weights are stored).
    """
    from rmo_train.model.policy import load_config, load_model, load_tokenizer, save_model

    if dtype not in ("auto", "float32", "bfloat16"):
        raise UserError(f"--dtype {dtype}: expected auto, float32 or bfloat16")
    _require_adapter(adapter)
    _require_replaceable(adapter, out, overwrite)
    base = base_that_is_there(adapter)
    check_base(adapter, base)
    config = load_config(base)
    stored = str(config.dtype or "float32").removeprefix("torch.") if dtype == "auto" else dtype
    model: Any = load_model(str(adapter), _torch_dtype(stored), device="cpu")
    model.config.use_cache = True  # off in training, but needed for generation
    out = out.resolve()
    with making(out, "rmo-train"), replaced(out) as partial:
        save_model(model, load_tokenizer(str(adapter)), partial)
        _keep_training_record(adapter, partial)
        write_bytes(partial / "README.md", _card(base, adapter, stored).encode())
    return [merged_line(adapter, base, stored, out)]


def _torch_dtype(name: str) -> Any:
    """The dtype of the stored weights, even if it is not one of our settings: float16 stays float16."""
    import torch

    return getattr(torch, name)


# ---------------------------------------------------------------------------------------------------- refusals


def _require_adapter(folder: Path) -> None:
    if is_adapter(folder):
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected an adapter's folder (with {ADAPTER_CONFIG})")
    if (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: already a full model, not an adapter (it has config.json); there is nothing to merge"
        )
    inside = sorted(p.name for p in folder.iterdir() if (p / ADAPTER_CONFIG).is_file())
    hint = f"; it contains the adapters {', '.join(inside[:8])}: give one of them" if inside else ""
    raise UserError(f"{folder}: not an adapter's folder, since it has no {ADAPTER_CONFIG}{hint}")


def _require_replaceable(adapter: Path, out: Path, overwrite: bool) -> None:
    """`out` must be new or empty; with --overwrite it may be a model, but not the adapter or a parent of it."""
    target, source = out.resolve(), adapter.resolve()
    if target == source or target in source.parents:
        raise UserError(f"--out {out}: contains the adapter itself; give another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"--out {out}: a file; expected the name of a folder")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"--out {out}: not empty; give another folder, or --overwrite to replace the model in it")
    if not (out / "config.json").is_file():
        raise UserError(
            f"--out {out}: not empty and not a model (no config.json), so it is not replaced; give another folder"
        )


# ---------------------------------------------------------------------------------------------------- what goes along


def _keep_training_record(adapter: Path, out: Path) -> None:
    """The record of the adapter's training pairs, so that `rmo-train eval` can warn of overlap."""
    if (adapter / TRAINED_ON).is_file() and (adapter / MANIFEST).is_file():
        for name in (TRAINED_ON, MANIFEST):
            shutil.copyfile(adapter / name, out / name)


def _card(base: str, adapter: Path, dtype: str) -> str:
    """The model card: where the weights are from, then the adapter's own card without its front matter."""
    own = adapter / "README.md"
    text = own.read_text(encoding="utf-8") if own.is_file() else ""
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    head = ["---", f"base_model: {base}", "library_name: transformers", "tags: [rmo, merge]", "---", ""]
    said = f"The LoRA adapter {adapter.resolve().name}, merged into {base} ({dtype})."
    return "\n".join([*head, said, text.rstrip()]).rstrip() + "\n"
