"""Answers from a model through transformers: batched, padded on the left, independent of the batch size."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rmo_train.console.errors import ProcessingError
from rmo_train.console.progress import say
from rmo_train.console.quiet import quiet
from rmo_train.console.wording import counted

BATCH = {"cpu": 8, "cuda": 64}  # answers at a time, by default


@dataclass(frozen=True)
class Decoding:
    """How answers are sampled."""

    max_new_tokens: int
    temperature: float  # 0: always the likeliest token
    top_p: float
    ends: tuple[int, ...]  # tokens that end an answer


@dataclass(frozen=True)
class Request:
    """A prompt's token ids, and the seed of its answer, so that answers do not depend on each other."""

    ids: list[int]
    seed: int


class Draw:
    """Perturbs logits so that the greedy choice is a sample from them (the Gumbel-max trick); one generator per row.

    With one generator for the whole batch, an answer would depend on its neighbours.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, top_p: float, device: torch.device):
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """scores [rows, vocabulary] -> the same shape."""
        scores = nucleus(scores.float() / self.temperature, self.top_p)
        noise = torch.stack(
            [torch.empty_like(row).exponential_(generator=g) for row, g in zip(scores, self.generators, strict=True)]
        )
        return scores - noise.log()


def nucleus(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Logits [rows, vocabulary] without the tokens outside the smallest set of probability `top_p` (the top-p rule)."""
    if top_p >= 1:
        return logits
    ordered, tokens = logits.sort(dim=-1, descending=True)
    shares = ordered.softmax(dim=-1)
    outside = shares.cumsum(dim=-1) - shares >= top_p  # the tokens before it already reach `top_p`
    outside[..., 0] = False
    return logits.masked_fill(outside.scatter(-1, tokens, outside), -torch.inf)


def decode(
    model: Any,
    requests: Sequence[Request],
    decoding: Decoding,
    batch_size: int | None = None,
    advance: Callable[[float], None] = lambda answers: None,
) -> list[list[int]]:
    """Token ids of each request's answer, including its end token unless it was cut off.

    Requests are grouped by length; a batch that does not fit into the GPU's memory is halved.
    """
    device = next(model.parameters()).device
    size = batch_size or BATCH.get(device.type, BATCH["cuda"])
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i].ids))  # longest first: memory fails early
    answers: list[list[int]] = [[] for _ in requests]
    done = 0
    while done < len(order):
        rows = order[done : done + size]
        try:
            answered: list[list[int]] | None = _decode_batch(model, [requests[i] for i in rows], decoding, device)
        except torch.OutOfMemoryError as e:
            if size == 1:
                raise ProcessingError(
                    f"one answer does not fit into {device}'s memory ({e}); give a smaller --max-new-tokens, or a "
                    "smaller model"
                ) from e
            size = max(1, len(rows) // 2)
            answered = None
        if answered is None:  # outside the block above: its exception keeps the failed batch's tensors alive
            say(f"out of memory on {device}: continuing with {counted(size, 'answer')} at a time")
            gc.collect()
            torch.cuda.empty_cache()
            continue
        for i, answer in zip(rows, answered, strict=True):
            answers[i] = answer
        done += len(rows)
        advance(len(rows))
    return answers


@torch.no_grad()
def _decode_batch(model: Any, requests: Sequence[Request], decoding: Decoding, device: torch.device) -> list[list[int]]:
    from transformers import GenerationConfig

    width = max(len(r.ids) for r in requests)
    ids = torch.full((len(requests), width), decoding.ends[0], device=device)
    mask = torch.zeros_like(ids)
    for row, request in enumerate(requests):
        ids[row, width - len(request.ids) :] = torch.tensor(request.ids, device=device)
        mask[row, width - len(request.ids) :] = 1
    draw = Draw([r.seed for r in requests], decoding.temperature, decoding.top_p, device)
    # Otherwise the model's own generation settings (a repetition penalty, top-k) would apply to what is not set here.
    model.generation_config = GenerationConfig()
    settings = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        do_sample=False,
        use_cache=True,
        eos_token_id=list(decoding.ends),
        pad_token_id=decoding.ends[0],
    )
    with quiet():
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=settings,
            logits_processor=[draw] if decoding.temperature > 0 else None,
        )
    return [until_end(row[width:].tolist(), decoding.ends) for row in out]


def until_end(ids: list[int], ends: Sequence[int]) -> list[int]:
    """`ids` up to and including the first end token; the rest is padding to the batch's longest answer."""
    last = next((at for at, token in enumerate(ids) if token in ends), len(ids) - 1)
    return ids[: last + 1]
