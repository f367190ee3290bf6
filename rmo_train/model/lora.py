"""Faster LoRA layers: adapters saved and loaded by peft, with our own forward and backward.

peft adds `B(A(x)) * scaling` to a frozen layer's output, which takes three more tensors of the output's size forward,
and as many backward. Here the update is accumulated into the frozen product in place.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F


class LoraProduct(torch.autograd.Function):
    """x [..., d] -> x W^T + bias + scaling (x A^T) B^T, with W [o, d] frozen, A [r, d] and B [o, r] trained."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ a.t()
        out = F.linear(rows, weight, bias).addmm_(low, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, low, weight, a, b)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, low, weight, a, b = ctx.saved_tensors
        gradient = gradient.reshape(-1, gradient.shape[-1])
        back = gradient @ b
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = (gradient @ weight).addmm_(back, a, alpha=ctx.scaling).view(ctx.shape)
        to_a = (back.t() @ rows).mul_(ctx.scaling)
        to_b = (gradient.t() @ low).mul_(ctx.scaling)
        return to_x, None, None, to_a, to_b, None


def _forward(layer: Any, name: str, x: torch.Tensor) -> torch.Tensor:
    # Looked up at every call, since FSDP2 puts gathered weights into the layer while it is computed.
    base, a, b = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight
    return LoraProduct.apply(x, base.weight, base.bias, a, b, layer.scaling[name])


def fuse(model: torch.nn.Module) -> int:
    """Use the fused product in every plain LoRA layer of a model to be trained; returns their number."""
    from peft.tuners.lora import Linear

    fused = 0
    for module in model.modules():
        if type(module) is not Linear or type(module.base_layer) is not torch.nn.Linear or module.lora_variant:
            continue
        (name,) = module.active_adapters
        adapter: Any = module.lora_A[name]
        if isinstance(module.lora_dropout[name], torch.nn.Identity) and (
            adapter.weight.dtype == module.base_layer.weight.dtype
        ):
            module.forward = partial(_forward, module, name)  # type: ignore[method-assign]
            fused += 1
    return fused
