"""Memory of one packed row, estimated from a model's configuration before the model is loaded.

With d the width of hidden states, q and k those of queries and keys, f that of the feed-forward layer and b the bytes
of a number, one layer holds for each token

    c = b (6 d + 3 q + 4 k + 4 f) + 12 d      (hidden states, attention, feed-forward; norms are taken in float32)

and a row of T tokens takes

    scoring     1.5 c T + 16 T^2              (one layer at a time; some paths of attention hold masks of T x T)
    training    1.5 c T L + m T^2             (all L layers, for the backward pass; with gradient checkpointing 2 layers
                                               and what comes into each: b d T L more)

where m is 16, and on a CPU 16 + g b L / 2 more: attention by segments keeps a mask a layer for the g query heads of a
key head. The weights come on top, and in training gradients and the optimizer. Measured on a CPU with SmolLM2-135M in
float32 (once; no file backs it), scoring a row takes: 2,048 tokens as plain rows 0.16 GiB (0.22 estimated), 4,096
tokens 0.41 GiB as plain rows and 0.19 GiB by segments (0.57 estimated).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARGIN = 1.5  # for temporary tensors that are not counted
MASK_BYTES = 16  # per pair of tokens
ITEM_BYTES = {"float32": 4, "bfloat16": 2}
OPTIMIZER_BYTES = 12  # per trained weight: a float32 master and two moments
STEP = 64  # tokens; maximum lengths are multiples of this
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class RowMemory:
    """The estimate for one model in one precision."""

    layers: int
    hidden: int  # bytes per token of a hidden state
    layer: int  # bytes per token in one layer
    segment_masks: float  # bytes per pair of tokens in one layer, kept for a backward pass on a CPU

    @classmethod
    def of(cls, config: Any, dtype: str) -> RowMemory:
        """config: a `PretrainedConfig`; dtype: float32 or bfloat16."""
        text, item = config.get_text_config(), ITEM_BYTES[dtype]
        width, heads = text.hidden_size, getattr(text, "num_attention_heads", None) or 1
        kv_heads = getattr(text, "num_key_value_heads", None) or heads
        size = getattr(text, "head_dim", None) or width // heads
        numbers = 6 * width + 3 * heads * size + 4 * kv_heads * size + 4 * _feed_forward(text)
        return cls(text.num_hidden_layers, item * width, item * numbers + 12 * width, heads // kv_heads * item / 2)

    def scoring(self, tokens: int) -> int:
        """Bytes of a row of one prompt and one response."""
        return int(MARGIN * self.layer * tokens + MASK_BYTES * tokens**2)

    def training(self, tokens: int, *, checkpointing: bool, device: str) -> int:
        """Bytes of a row of one prompt and both responses, forward and backward."""
        held = 2 if checkpointing else self.layers
        masks = MASK_BYTES + (held * self.segment_masks if device == "cpu" else 0)
        kept = self.layers * self.hidden if checkpointing else 0
        return int((MARGIN * held * self.layer + kept) * tokens + masks * tokens**2)


def _feed_forward(text: Any) -> int:
    """Width of the feed-forward layer; in a mixture of experts, of the active experts."""
    dense = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    experts = getattr(text, "num_experts_per_tok", None) or 0
    return max(dense, experts * (getattr(text, "moe_intermediate_size", None) or dense))


def most_tokens(bytes_of: Callable[[int], int], room: int) -> int:
    """The longest row, in tokens, that takes at most `room` bytes: a multiple of STEP; 0 if none fits."""
    low, high = 0, 1
    while bytes_of(high * STEP) <= room:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bytes_of(middle * STEP) <= room else (low, middle)
    return low * STEP


def training_state(weights: int, dtype: str, *, lora: bool) -> int:
    """Bytes of weights, gradients and optimizer for `weights` parameters; those of an adapter are negligible."""
    return weights * (ITEM_BYTES[dtype] if lora else 2 * ITEM_BYTES[dtype] + OPTIMIZER_BYTES)


def device_memory() -> tuple[str, int]:
    """The device that models run on, "cuda" or "cpu", and its total memory in bytes, used or not.

    Free memory would change from run to run, and so would the pairs that are scored.
    """
    import torch

    if torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_properties(0).total_memory
    return "cpu", min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_container_limits()])


def _container_limits() -> list[int]:
    """The memory limit of the container; "max" is no limit."""
    texts = [path.read_text().strip() for path in map(Path, CGROUP_LIMITS) if path.is_file()]
    return [int(text) for text in texts if text.isdigit()]
