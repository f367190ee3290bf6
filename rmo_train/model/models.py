"""Resolves model names to folders and tokenizers, and computes the hashes that identify a model.

A name is a local folder, a LoRA adapter's folder, the embedded `smollm2-135m`, or a model of the Hugging Face hub.
Nothing here loads weights; `policy.py` does.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmo_train.console.errors import UserError, first_line, nearest
from rmo_train.console.quiet import quiet
from rmo_train.console.trust import granted
from rmo_train.model.embedded import EMBEDDED, embedded_folder
from rmo_train.model.foreign import needs_code, own_code, tell_of_code, weight_files
from rmo_train.store.files import canonical_json, read_json, sha256_file, sha256_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
# Fields of an adapter's config that do not change the function it computes.
ADAPTER_PROVENANCE = (
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "auto_mapping",
    "task_type",
)


@dataclass(frozen=True)
class Identity:
    """Properties that must agree between the model that scored the data and the one trained on it."""

    name: str  # as the user gave it
    weights_sha256: str  # of the weight files; an adapter's includes its base's
    tokenizer_sha256: str
    template_sha256: str  # of the chat template
    allowed: tuple[str, ...] | None = None  # the flags of trust without which it would have been refused


# ---------------------------------------------------------------------------------------------------- folders


def resolve(name: str) -> Path:
    """The local folder of a model: given, embedded (converted at first use) or fetched from the hub."""
    if name in EMBEDDED:
        return embedded_folder(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _checked(path)
    if path.is_file():
        raise UserError(
            f"{path}: this is a file; expected a model folder (with config.json and weights), perhaps {path.parent}"
        )
    if _is_path(name, path):
        raise UserError(_missing(path))
    return _from_hub(name)


def _is_path(name: str, path: Path) -> bool:
    """Whether a name that is not a folder was meant as a path; a hub name is `name` or `owner/name`."""
    return name.startswith(("/", ".", "~")) or name.count("/") > 1 or (len(path.parts) > 1 and path.parent.is_dir())


def _missing(path: Path) -> str:
    """The message for a model folder that does not exist."""
    if not path.parent.is_dir():
        return f"{path}: no such model folder; {path.parent} does not exist either"
    there = sorted(p.name for p in path.parent.iterdir() if p.is_dir())
    holds = f"has {', '.join(there[:8])}" if there else "has no folders"
    return f"{path}: no such model folder; {path.parent} {holds}{nearest(path.name, there)}"


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file()


def base_of(adapter: Path) -> str:
    """The name of the model that an adapter's folder was trained on."""
    base = read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base:
        raise UserError(
            f"{adapter / ADAPTER_CONFIG}: base_model_name_or_path is empty; write the base model's name there"
        )
    return str(base)


def _checked(folder: Path) -> Path:
    """`folder`, if it contains a model or an adapter."""
    if is_adapter(folder) or (folder / "config.json").is_file():
        return folder
    inside = sorted(p.name for p in folder.iterdir() if (p / "config.json").is_file() or (p / ADAPTER_CONFIG).is_file())
    hint = f"it contains the models {', '.join(inside[:8])}: give one of them" if inside else "save a model there first"
    raise UserError(f"{folder}: not a model folder, since it has neither config.json nor {ADAPTER_CONFIG}; {hint}")


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    small = ["*.json", "*.jinja", "*.txt", "*.model", *(["*.py"] if granted().trust_remote_code else [])]
    try:  # top-level files only: sub-folders repeat the weights in other formats
        folder = Path(snapshot_download(name, allow_patterns=[*small, "*.safetensors"], ignore_patterns=["*/*"]))
        if granted().allow_pickle and not weight_files(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*small, "*.bin"], ignore_patterns=["*/*"]))
    except Exception as e:  # the client raises errors of its own and of its HTTP library, and OSError
        raise UserError(
            f"model {name!r}: no such local folder, and not to be had from the hub ({first_line(e)})"
            f"{nearest(name, EMBEDDED)}; "
            f"give a local folder, a Hub name, or the embedded {', '.join(EMBEDDED)}"
        ) from e
    return _checked(folder)


# ---------------------------------------------------------------------------------------------------- tokenizer


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with a chat template; an adapter without its own takes its base's."""
    from transformers import AutoTokenizer

    folder = resolve(name)
    if not any((folder / f).is_file() for f in TOKENIZER_FILES):
        if is_adapter(folder):
            return load_tokenizer(base_of(folder))
        raise UserError(
            f"{folder}: no tokenizer (none of {', '.join(TOKENIZER_FILES)}); save the model's tokenizer there: "
            f"AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained({str(folder)!r})"
        )
    tell_of_code(folder)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=granted().trust_remote_code
            )
    except Exception as e:  # damaged files surface as errors of the Rust library, of json and of transformers
        raise UserError(
            f"{folder}: cannot load its tokenizer: {e}{needs_code(folder)}; if its files are damaged, save it there "
            f"again: AutoTokenizer.from_pretrained(ORIGINAL).save_pretrained({str(folder)!r})"
        ) from e
    if not tokenizer.chat_template:
        raise UserError(
            f"{folder}: its tokenizer has no chat template, so a conversation cannot be rendered (a base model?); "
            "give an instruction-tuned model, or put the template to train with into chat_template.jinja in that folder"
        )
    return tokenizer


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of what maps text to ids; saving and loading the tokenizer, or padding with it, does not change it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # a tokenizer in Python
        content: dict[str, Any] = {"vocab": tokenizer.get_vocab()}
    else:
        content = json.loads(backend.to_str())
        content.update(truncation=None, padding=None)  # set by the last call, not part of the tokenizer
    return sha256_text(canonical_json([content, tokenizer.eos_token]))


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the chat template (of all of them, if a tokenizer has several)."""
    template: Any = tokenizer.chat_template
    return sha256_text(template if isinstance(template, str) else canonical_json(template))


# ---------------------------------------------------------------------------------------------------- identity


# (path, bytes, mtime in ns) -> sha256, cached because several stages of one process use the same model.
_hashed: dict[tuple[str, int, int], str] = {}


def _file_hash(path: Path) -> str:
    state = path.stat()
    key = (str(path.resolve()), state.st_size, state.st_mtime_ns)
    if key not in _hashed:
        _hashed[key] = sha256_file(path)
    return _hashed[key]


def weights_hash(name: str) -> str:
    """sha256 over the names and contents of the weight files; an adapter adds its settings and its base's hash, a
    model whose own code is run the files of that."""
    folder = resolve(name)
    files = weight_files(folder)
    if not files:
        raise UserError(
            f"{folder}: no weights (*.safetensors); was the model saved completely? Pickle files (*.bin) on the hub "
            "are downloaded only with --allow-pickle"
        )
    digest = hashlib.sha256()
    for path in (*files, *own_code(folder)):
        digest.update(f"{path.name} {_file_hash(path)}\n".encode())
    if is_adapter(folder):
        config = read_json(folder / ADAPTER_CONFIG)
        settings = {
            k: sorted(v, key=str) if isinstance(v, list) else v  # peft writes sets in arbitrary order
            for k, v in config.items()
            if k not in ADAPTER_PROVENANCE
        }
        digest.update(f"{canonical_json(settings)}\nbase {weights_hash(base_of(folder))}\n".encode())
    return digest.hexdigest()


def weights_bytes(name: str) -> int:
    """Bytes of the weight files; an adapter's include its base's."""
    folder = resolve(name)
    size = sum(path.stat().st_size for path in weight_files(folder))
    return size + weights_bytes(base_of(folder)) if is_adapter(folder) else size


def identity(name: str) -> Identity:
    """The hashes of the model `name`."""
    tokenizer = load_tokenizer(name)
    return Identity(
        name, weights_hash(name), tokenizer_hash(tokenizer), template_hash(tokenizer), flags_needed(name) or None
    )


def flags_needed(name: str) -> tuple[str, ...]:
    """The flags of trust that the model `name`, or the base of an adapter, makes use of."""
    folder = resolve(name)
    pickled = any(f.suffix == ".bin" for f in weight_files(folder))
    flags = {"--allow-pickle": pickled, "--trust-remote-code": bool(own_code(folder))}
    of_base = flags_needed(base_of(folder)) if is_adapter(folder) else ()
    return tuple(flag for flag, used in flags.items() if used or flag in of_base)
