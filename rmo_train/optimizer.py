"""AdamW with float32 master weights, and the learning rate as a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch


def learning_rate_at(step: int, total: int, peak: float, shape: str, warmup: int) -> float:
    """Learning rate of optimizer step `step` (0-based) of `total`: linear warm-up, then cosine, linear or constant."""
    if step < warmup:
        return peak * (step + 1) / warmup
    left = (step - warmup) / max(1, total - warmup)
    if shape == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * left))
    return peak * (1 - left) if shape == "linear" else peak


class MasterAdamW:
    """AdamW on float32 copies of the trainable weights, so that a small step is not lost to bfloat16's 8 bits.

    A float32 weight is its own master. A bfloat16 weight's gradient is added into its master's float32 gradient as soon
    as the backward pass has it, so accumulation over packs loses nothing and no bfloat16 gradient is kept.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for p in self.parameters]
        self.hooks = []
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                self.hooks.append(parameter.register_post_accumulate_grad_hook(_add_into(master)))
        self.adam = torch.optim.AdamW(self.masters, lr=lr, weight_decay=weight_decay, betas=(0.9, 0.999), eps=1e-8)

    def clip(self, limit: float) -> float:
        """Scale the gradients to a total norm of at most `limit`; returns the norm before."""
        return float(torch.nn.utils.clip_grad_norm_(self.masters, limit))

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
        """Masters (also of float32 weights) and AdamW's moments: all that the next step depends on."""
        return {"masters": [m.detach() for m in self.masters], "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for master, saved in zip(self.masters, state["masters"], strict=True):
                master.copy_(saved)
        self.adam.load_state_dict(state["adam"])
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
