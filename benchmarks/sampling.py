"""Many short answers from a small model: a batch of thousands of rows, from which finished answers are removed.

`rmo_train.generation.decoding` gives every answer draws of its own, so that it does not depend on its neighbours; that
costs a generator a row and step. Here one generator draws for the whole batch: the answers depend on seed and batch
together.

A step of a small model is a thousand kernels that are shorter than their launches, so on a GPU it is captured as a CUDA
graph. Keys and values therefore have their full width from the start, and each key head is read once for all its query
heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

COMPACT_EVERY = 8  # steps between two looks at which rows are done
ALIGNED = 16  # attention kernels copy a mask whose rows are not multiples of this
GROUPED = "rmo_grouped"  # the name of `grouped_attention` in transformers


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
    from transformers import AttentionInterface

    AttentionInterface.register(GROUPED, grouped_attention)
    (model.get_base_model() if hasattr(model, "get_base_model") else model).set_attn_implementation(GROUPED)
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
    device = next(model.parameters()).device
    n, width = len(asks), max(len(a.ids) for a in asks)
    ids = torch.full((n, width), ends[0])
    seen = torch.zeros(n, width + new_tokens, dtype=torch.bool)
    for row, ask in enumerate(asks):  # padded on the left
        ids[row, width - len(ask.ids) :] = torch.tensor(ask.ids)
        seen[row, width - len(ask.ids) : width] = True
    batch = Batch(model, ids.to(device), seen.to(device))
    drawn = torch.tensor([a.drawn for a in asks], device=device)
    stops = torch.tensor(list(ends), device=device)
    found = torch.full((n, new_tokens), -1, device=device)  # -1: after the end
    alive = torch.arange(n, device=device)  # rows of `found` that the batch still holds
    done = torch.zeros(n, dtype=torch.bool, device=device)
    logits = batch.start()
    for step in range(new_tokens):
        token = _next(logits, drawn, generator)
        found[alive, step] = torch.where(done, -1, token)
        done = done | torch.isin(token, stops)
        if (step + 1) % COMPACT_EVERY == 0:
            kept = torch.nonzero(~done)[:, 0]
            if not len(kept):
                break
            if len(kept) <= batch.worth_keeping:
                batch.keep(kept)
                alive, drawn, token, done = (x[kept] for x in (alive, drawn, token, done))
        if step + 1 < new_tokens:
            logits = batch.step(token)
    return [[t for t in row if t >= 0] for row in found.tolist()]


def _next(logits: torch.Tensor, drawn: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The next token of every row [n] from its logits [n, vocabulary]: the likeliest, after noise where it is drawn.

    The largest of logits minus the log of exponential noise is a draw from their softmax (the Gumbel-max trick).
    """
    scores = logits.float()
    noise = torch.empty_like(scores).exponential_(generator=generator).clamp_(min=1e-30).log_()
    return (scores - noise * drawn[:, None]).argmax(-1)


class Batch:
    """Rows that are continued together, in tensors that stay where they are from step to step.

    ids: the prompts [n, width], padded on the left. seen: bool [n, width + new tokens], the columns that a row's next
    token attends to.
    """

    def __init__(self, model: Any, ids: torch.Tensor, seen: torch.Tensor):
        self.model, self.ids = model, ids
        self.seen = torch.nn.functional.pad(seen, (0, -seen.shape[1] % ALIGNED))
        self.width = ids.shape[1]
        self.cache = Cache(self.seen.shape[1])
        self.positions = seen.sum(1, keepdim=True) - 1  # of each row's last token
        self.token = ids[:, -1:].clone()
        self.graph: Any = None
        self.logits: torch.Tensor | None = None

    @property
    def worth_keeping(self) -> int:
        """The number of rows left for which a smaller batch pays: a graph is captured anew for it."""
        rows = len(self.token)
        return rows // 2 if self.token.is_cuda else rows - 1

    def start(self) -> torch.Tensor:
        """Logits of every row's first new token [n, vocabulary]."""
        seen = self.seen[:, : self.width]
        positions = (seen.cumsum(1) - 1).clamp(min=0)
        own = torch.eye(self.width, dtype=torch.bool, device=seen.device)  # padding sees itself: no row without a key
        causal = torch.ones_like(own).tril()
        return self._forward(self.ids, positions, (seen[:, None] & causal | own)[:, None])

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Logits after `token` [n]."""
        self.seen[:, self.width] = True
        self.token[:, 0] = token
        self.positions += 1
        self.cache.at.fill_(self.width)
        self.width += 1
        if not self.token.is_cuda:
            return self._next()
        if self.graph is None:
            self._capture()
        self.graph.replay()
        assert self.logits is not None
        return self.logits

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self.graph = self.logits = None
        self.cache.keep(rows)
        self.seen, self.positions, self.token = (x[rows] for x in (self.seen, self.positions, self.token))

    def _next(self) -> torch.Tensor:
        return self._forward(self.token, self.positions, self.seen[:, None, None])

    def _forward(self, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        out = self.model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=self.cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        logits: torch.Tensor = out.logits[:, -1]
        return logits

    def _capture(self) -> None:
        """Record a step; the calls before it allocate what the libraries allocate once. Each writes the same column."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(2):
                self._next()
        torch.cuda.current_stream().wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.logits = self._next()


class Cache:
    """Keys and values of every layer, [n, kv heads, total, d], written in place; what a model needs of a cache."""

    def __init__(self, total: int):
        self.total = total
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.at = torch.zeros(1, dtype=torch.long)  # the column of the next token

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *rest: Any, **extras: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's new keys and values; returns those to attend to."""
        if layer == len(self.keys):  # the prompts
            self.at = self.at.to(keys.device)
            for held, new in ((self.keys, keys), (self.values, values)):
                held.append(new.new_zeros(*new.shape[:2], self.total, new.shape[3]))
                held[layer][:, :, : new.shape[2]] = new
            return keys, values
        self.keys[layer].index_copy_(2, self.at, keys)
        self.values[layer].index_copy_(2, self.at, values)
        return self.keys[layer], self.values[layer]

    def keep(self, rows: torch.Tensor) -> None:
        for held in (self.keys, self.values):
            for layer in range(len(held)):
                held[layer] = held[layer][rows]


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    **extras: Any,
) -> tuple[torch.Tensor, None]:
    """Attention [n, heads, T, d] over keys and values [n, kv heads, S, d] -> [n, T, heads, d].

    The query heads of one key head are one sequence, so keys are not repeated; `attention_mask` is bool [n, 1, T, S].
    """
    n, heads, length, size = query.shape
    group = heads // key.shape[1]
    stacked = query.reshape(n, key.shape[1], group * length, size)
    mask = attention_mask.repeat(1, 1, group, 1)
    found = scaled_dot_product_attention(stacked, key, value, attn_mask=mask, scale=scaling)
    return found.reshape(n, heads, length, size).transpose(1, 2), None
