"""The language-model head as log-probs of given tokens: no [tokens x vocabulary] tensor outlives a chunk.

Autograd through a log-softmax keeps or recomputes the logits and passes over them about ten times. Here each chunk of
logits is processed in place. With a frozen head (LoRA), the gradient with respect to the hidden states is computed in
the forward pass, so the product with the vocabulary is computed twice instead of three times.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

CHUNK = {"cpu": 128, "cuda": 2048}  # rows of logits at a time; on a CPU they should fit in the cache
MULTIPLE = 32  # of rows in the last chunk, see attention.ROW_MULTIPLE: of this shape a kernel takes 9 MiB


class LinearHeadLogps(torch.autograd.Function):
    """log p of `targets` [r] under softmax(hidden [r, d] @ weight [v, d].T), float32 [r]."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = (hidden @ weight.t()).float()
        logps = logits.gather(1, targets[:, None]).squeeze(1)
        shift = logits.amax(dim=1, keepdim=True)
        total = logits.sub_(shift).exp_().sum(dim=1, keepdim=True)
        logps = logps - shift.squeeze(1) - total.log().squeeze(1)
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(hidden, weight, targets)
        elif ctx.needs_input_grad[0]:
            expected = logits.div_(total).to(weight.dtype) @ weight
            ctx.save_for_backward(weight[targets] - expected)
        return logps

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        if not ctx.needs_input_grad[1]:
            (slope,) = ctx.saved_tensors
            return slope * gradient[:, None].to(slope.dtype), None, None
        hidden, weight, targets = ctx.saved_tensors
        scaled = torch.softmax((hidden @ weight.t()).float(), dim=1).mul_(-gradient[:, None])
        scaled.scatter_add_(1, targets[:, None], gradient[:, None])
        scaled = scaled.to(weight.dtype)
        to_hidden = scaled @ weight if ctx.needs_input_grad[0] else None
        return to_hidden, scaled.t() @ hidden, None


def _scaled(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Operations of some families after the head: Cohere's scale, Granite's division, Gemma's soft cap."""
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


def _any_head_logps(hidden: torch.Tensor, targets: torch.Tensor, head: Any, config: Any) -> torch.Tensor:
    logits = _scaled(head(hidden).float(), config)
    return logits.gather(1, targets[:, None]).squeeze(1) - torch.logsumexp(logits, dim=1)


def is_linear(head: Any, config: Any) -> bool:
    """Whether the head is a single matrix product: no bias, nothing after it, no adapter on it."""
    after = ("logit_scale", "logits_scaling", "final_logit_softcapping")
    return type(head) is torch.nn.Linear and head.bias is None and not any(getattr(config, a, None) for a in after)


def token_logps(hidden: torch.Tensor, targets: torch.Tensor, head: Any, config: Any) -> torch.Tensor:
    """log p of `targets` [r] from the hidden states [r, d] that predict them, float32 [r]; differentiable."""
    size = CHUNK.get(hidden.device.type, CHUNK["cuda"])
    count, filled = len(targets), -len(targets) % MULTIPLE
    hidden, targets = pad(hidden, (0, 0, 0, filled)), pad(targets, (0, filled))
    chunks = []
    for at in range(0, len(targets), size):
        states, wanted = hidden[at : at + size], targets[at : at + size]
        if is_linear(head, config):
            chunks.append(LinearHeadLogps.apply(states, head.weight, wanted))
        elif torch.is_grad_enabled():
            chunks.append(checkpoint(_any_head_logps, states, wanted, head, config, use_reentrant=False))
        else:
            chunks.append(_any_head_logps(states, wanted, head, config))
    return torch.cat(chunks)[:count]
