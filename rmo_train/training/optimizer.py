"""AdamW with float32 master weights, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from rmo_train.forward.distributed import ALONE, World, full, is_sharded, like


def learning_rate_at(step: int, total: int, peak: float, shape: str, warmup: int) -> float:
    """Learning rate of optimizer step `step` (0-based) of `total`: linear warm-up, then cosine, linear or constant."""
    if step < warmup:
        return peak * (step + 1) / warmup
    left = (step - warmup) / max(1, total - warmup)
    if shape == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * left))
    return peak * (1 - left) if shape == "linear" else peak


class MasterAdamW:
    """AdamW on float32 copies of the trainable weights, so that bfloat16's 8 bits do not round small steps away.

    A float32 weight is its own master. The gradient of a bfloat16 weight is added to its master's float32 gradient
    during the backward pass, so accumulation over packs loses no precision and no bfloat16 gradient is kept. With
    several processes, gradients are summed over all of them before clipping.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float, world: World | None = None
    ):
        self.world = world or ALONE
        self.parameters = [p for p in parameters if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        self.hooks = []
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                self.hooks.append(parameter.register_post_accumulate_grad_hook(_add_into(master)))
        # AdamW processes lists of tensors, which must be either all sharded or all whole.
        self.groups = [g for k in (False, True) if (g := [m for m in self.masters if is_sharded(m) == k])]
        self.adam = torch.optim.AdamW(
            [{"params": g} for g in self.groups],
            lr=lr,
            weight_decay=weight_decay,
            betas=(0.9, 0.999),
            eps=1e-8,
            fused=all(m.is_cuda and not is_sharded(m) for m in self.masters) or None,  # one kernel instead of ten
        )

    def gather_gradients(self) -> None:
        """Sum the gradients over all processes (FSDP2 has already done so for sharded weights)."""
        if self.world.size == 1:
            return
        whole = [m for m in self.masters if not is_sharded(m)]
        for master in whole:
            if master.grad is None:  # this process had no pairs of the batch
                master.grad = torch.zeros_like(master)
        self.world.add_up([m.grad for m in whole if m.grad is not None])

    def clip(self, limit: float) -> float:
        """Scale the gradients to a total norm of at most `limit`; returns the norm before."""
        gradients = [[m.grad for m in group if m.grad is not None] for group in self.groups]
        total = torch.stack([full(get_total_norm(g)).to(self.masters[0].device) for g in gradients if g]).norm()
        for group in self.groups:
            clip_grads_with_norm_(group, limit, total)
        return float(total)

    def step(self, lr: float) -> None:
        """One update at `lr`, written back to the model; gradients are cleared."""
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.write_back()
        self.adam.zero_grad(set_to_none=True)

    def write_back(self) -> None:
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        """Masters (also of float32 weights) and AdamW's moments, unsharded: the full state of the optimizer.

        Every process takes part.
        """
        return {
            "masters": [full(m.detach()) for m in self.masters],
            "moments": [{name: full(value) for name, value in self.adam.state[m].items()} for m in self.masters],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for master, saved, moments in zip(self.masters, state["masters"], state["moments"], strict=True):
                master.copy_(like(saved, master))
                self.adam.state[master] = {
                    name: like(value.to(master.device), master) if value.ndim else value
                    for name, value in moments.items()
                }
        self.write_back()

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()


def _add_into(master: torch.Tensor) -> Any:
    def hook(parameter: torch.Tensor) -> None:
        if parameter.grad is None:
            return
        if master.grad is None:
            master.grad = parameter.grad.float()
        else:
            master.grad.add_(parameter.grad)
        parameter.grad = None

    return hook
