"""Many short answers from a small model: a batch of hundreds of rows, from which finished answers are removed.

`rmo_train.generation.decoding` gives every answer draws of its own, so that it does not depend on its neighbours; that
costs a generator a row and step. Here one generator draws for the whole batch: the answers depend on seed and batch
together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

COMPACT_EVERY = 8  # steps between two looks at which rows are done


@dataclass(frozen=True)
class Ask:
    """A prompt's token ids, and whether its answer is drawn at T = 1 or the likeliest token is taken each time."""

    ids: Sequence[int]
    drawn: bool


def sample(
    model: Any, asks: Sequence[Ask], ends: Sequence[int], *, new_tokens: int, batch_size: int, seed: int
) -> list[list[int]]:
    """Token ids of each answer, its end token included if it ended within `new_tokens`.

    Asks go in batches of like length; the draws are a function of `seed` and the batch's place.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(asks)), key=lambda i: -len(asks[i].ids))
    answers: list[list[int]] = [[] for _ in asks]
    for at, start in enumerate(range(0, len(order), batch_size)):
        rows = order[start : start + batch_size]
        generator = torch.Generator(device).manual_seed(seed * 100_003 + at)
        for i, answer in zip(rows, _batch(model, [asks[i] for i in rows], ends, new_tokens, generator), strict=True):
            answers[i] = answer
    return answers


@torch.inference_mode()
def _batch(
    model: Any, asks: Sequence[Ask], ends: Sequence[int], new_tokens: int, generator: torch.Generator
) -> list[list[int]]:
    from transformers import DynamicCache

    device = next(model.parameters()).device
    n, width = len(asks), max(len(a.ids) for a in asks)
    ids = torch.full((n, width), ends[0])
    mask = torch.zeros(n, width + new_tokens, dtype=torch.long)
    for row, ask in enumerate(asks):  # padded on the left
        ids[row, width - len(ask.ids) :] = torch.tensor(ask.ids)
        mask[row, width - len(ask.ids) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    positions = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
    drawn = torch.tensor([a.drawn for a in asks], device=device)
    stops = torch.tensor(list(ends), device=device)
    found = torch.full((n, new_tokens), -1, device=device)  # -1: after the end
    alive = torch.arange(n, device=device)  # rows of `found` that the batch still holds
    done = torch.zeros(n, dtype=torch.bool, device=device)
    cache = DynamicCache(config=model.config)
    for step in range(new_tokens):
        out = model(
            input_ids=ids, attention_mask=mask[:, : width + step], position_ids=positions, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        token = _next(out.logits[:, -1], drawn, generator)
        found[alive, step] = torch.where(done, -1, token)
        done = done | torch.isin(token, stops)
        if (step + 1) % COMPACT_EVERY == 0:
            kept = torch.nonzero(~done)[:, 0]
            if not len(kept):
                break
            if len(kept) < len(done):
                cache.batch_select_indices(kept)
                alive, mask, drawn, token, positions = (x[kept] for x in (alive, mask, drawn, token, positions))
                done = done[kept]
        ids, positions = token[:, None], positions[:, -1:] + 1
    return [[t for t in row if t >= 0] for row in found.tolist()]


def _next(logits: torch.Tensor, drawn: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The next token of every row [n] from its logits [n, vocabulary]: the likeliest, after noise where it is drawn.

    The largest of logits minus the log of exponential noise is a draw from their softmax (the Gumbel-max trick).
    """
    scores = logits.float()
    noise = torch.empty_like(scores).exponential_(generator=generator).clamp_(min=1e-30).log_()
    return (scores - noise * drawn[:, None]).argmax(-1)
