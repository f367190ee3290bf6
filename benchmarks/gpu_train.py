"""Training on a GPU: tokens a second as a share of the matrix-product rate, packed beside padded, and peak memory.

One optimizer step of DPO on random pairs with the lengths of gpu.py, in bfloat16 with float32 masters, LoRA or full;
models of random weights. The 8B shapes compute activations again in the backward pass. `benchmarks/gpu_day.py` runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import (
    PADDED,
    PADDED_TOKENS,
    SHAPES,
    Bench,
    Figures,
    beside_padded,
    make_trees,
    random_model,
    sequences_of,
)
from benchmarks.padded import batches_of_tokens, padded_batch
from rmo_train.data.pairs import PairData
from rmo_train.data.ragged import Ragged
from rmo_train.forward.attention import use_attention
from rmo_train.forward.layout import GPU_TOKENS_PER_BATCH, Layout
from rmo_train.forward.packing import Tree, plain_trees
from rmo_train.model.lora import fuse
from rmo_train.model.policy import add_lora
from rmo_train.objective.losses import loss_named
from rmo_train.training.job import Job
from rmo_train.training.loop import forward_backward, packed_batch
from rmo_train.training.optimizer import MasterAdamW
from rmo_train.training.plan import make_plan
from rmo_train.training.settings import TrainSettings
from rmo_train.training.throughput import training_flop

LEARNING_RATE = 1e-6
# Weights, and in float32 their masters, gradients and AdamW's two moments.
BYTES_A_WEIGHT = 2 + 4 * 4
ACTIVATIONS_GIB = 8  # at least; of a row of 16,384 tokens on the 8B shape


def pairs_of(trees: list[Tree]) -> PairData:
    """The trees as pairs whose references are 0."""
    n = len(trees)
    names = np.array([str(k) for k in range(n)], dtype=object)
    sides = (Ragged.from_rows([t.responses[side] for t in trees]) for side in (0, 1))
    columns = (np.ones(n), np.ones(n), np.zeros(n), np.zeros(n))
    return PairData(Path("random"), None, names, names, Ragged.from_rows([t.prompt for t in trees]), *sides, *columns)


def full_training_gib(shape: str) -> float:
    """GiB that training all weights of this shape needs at least."""
    weights = sum(p.numel() for p in random_model(shape, torch.device("meta")).parameters())
    return weights * BYTES_A_WEIGHT / 2**30 + ACTIVATIONS_GIB


def recomputes(shape: str) -> bool:
    """Whether activations of this shape are computed again in the backward pass."""
    return shape.startswith("llama-8b")


def trainable(shape: str, lora: int | None, device: torch.device, *, fused: bool) -> Any:
    """A random model in train mode; LoRA as the trainer has it (`fused`), or as peft has it."""
    model = random_model(shape, device)
    if recomputes(shape):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora is not None:
        model = add_lora(model, lora, 0).to(device)
        if fused:
            fuse(model)
    return model.train()


def packed_step(
    model: Any, data: PairData, settings: TrainSettings, path: str, optimizer: MasterAdamW
) -> tuple[Callable[[], None], int]:
    """One optimizer step of the trainer's own loop, and the tokens that it computes."""
    layout = Layout(path, GPU_TOKENS_PER_BATCH[path])
    use_attention(model, path)
    job = Job(model, None, data, settings, make_plan(data, settings), layout, Path(), {})
    rows, loss = np.arange(len(data)), loss_named(settings.loss)
    tokens = sum(p.size for packs, _ in packed_batch(job, rows) for p in packs)

    def step() -> None:
        for packs, members in packed_batch(job, rows):
            forward_backward(job, loss, rows, packs, members)
        optimizer.clip(settings.max_grad_norm)
        optimizer.step(LEARNING_RATE)

    return step, tokens


def padded_step(
    model: Any, trees: list[Tree], implementation: str, optimizer: MasterAdamW
) -> tuple[Callable[[], None], int]:
    """The same step as a careful script has it: both sequences of a pair padded, logits of every position."""
    model.set_attn_implementation(implementation)
    sequences = sequences_of(trees)
    longest = [max((sequences[2 * k], sequences[2 * k + 1]), key=lambda s: len(s[0])) for k in range(len(trees))]
    batches = list(batches_of_tokens(longest, PADDED_TOKENS // 2))  # of pairs
    device = next(model.parameters()).device

    def step() -> None:
        for batch in batches:
            rows = [sequences[2 * k + side] for side in (0, 1) for k in batch]
            ids, mask, wanted = (x.to(device) for x in padded_batch(rows))
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            logps = (logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2) * wanted[:, 1:]).sum(1)
            margins = 0.1 * (logps[: len(batch)] - logps[len(batch) :])
            (-torch.nn.functional.logsigmoid(margins).sum() / len(trees)).backward()
        optimizer.clip(1.0)
        optimizer.step(LEARNING_RATE)

    return step, sum(t.tokens for t in plain_trees(trees))


def train(
    shape: str,
    mix: str,
    tokens: int,
    names: Sequence[str],
    lora: int | None,
    bench: Bench,
    *,
    pairs: int | None = None,
) -> Iterator[tuple[str, Figures]]:
    """The attention paths and padded batches `names` on one model and one length mix of `tokens` tokens.

    `pairs`: only the first ones (default: all).
    """
    trees = make_trees(mix, tokens, SHAPES[shape]["vocab_size"])[:pairs]
    data = pairs_of(trees)
    responses = sum(len(r) for t in trees for r in t.responses)
    settings = TrainSettings(
        per_device_train_batch_size=len(trees), gradient_accumulation_steps=1, max_steps=1, amplify=0, diversify=False
    )

    def figures(name: str) -> Figures:
        bench.free()  # of the model before
        model = trainable(shape, lora, bench.device, fused=name not in PADDED)
        optimizer = MasterAdamW(model.parameters(), LEARNING_RATE, 0.0)
        if name in PADDED:
            step, size = padded_step(model, trees, PADDED[name], optimizer)
        else:
            step, size = packed_step(model, data, settings, name, optimizer)
        decoder, head = training_flop(model)
        weights = sum(p.nbytes for p in model.parameters()) / 2**30
        return bench.speed(step, len(trees), size, decoder * size + head * responses) | {"weights_gib": weights}

    yield from beside_padded(f"{shape} {mix} {'full' if lora is None else 'LoRA'}", names, figures)
