"""vLLM's memory, estimated before it starts.

vLLM's own profile run does not count the log-probs of prompts, which take most of the memory: for each token of a
step and each entry of the vocabulary, a float32 log-prob and a logit in the model's precision, about 6 bytes together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rmo_train.console.errors import UserError
from rmo_train.forward.memory import ITEM_BYTES

BYTES_PER_LOGIT = 6
LOGPROB_SHARE = 1 / 8  # of the device's memory, for the log-probs of one step
FEWEST_TOKENS = 64
MOST_TOKENS = {"cuda": 8192, "cpu": 2048}  # larger steps are no faster
KV_STEPS = 4  # keys and values of this many steps; a sequence is freed in the step that reads its last token


@dataclass(frozen=True)
class MemoryPlan:
    """Tokens of one step, and the bytes that follow from them on each GPU."""

    tokens: int  # max_num_batched_tokens
    vocabulary: int
    weights: int
    kv_cache: int
    device: int  # all of the device's memory
    gpus: int = 1  # that share weights, keys and values; log-probs are gathered on each

    @property
    def logprobs(self) -> int:
        return self.tokens * self.vocabulary * BYTES_PER_LOGIT

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.logprobs

    @property
    def line(self) -> str:
        return (
            f"vLLM memory: weights {_gib(self.weights)} + keys and values {_gib(self.kv_cache)} + log-probs "
            f"{self.tokens:,} tokens x {self.vocabulary:,} entries x {BYTES_PER_LOGIT} B = {_gib(self.logprobs)}; "
            f"{_gib(self.total)} of {_gib(self.device)} GiB"
            + (f" on each of {self.gpus} GPUs" if self.gpus > 1 else "")
        )


def step_tokens(vocabulary: int, device_bytes: int, most: int) -> int:
    """Tokens per step, so that log-probs take at most `LOGPROB_SHARE` of the device: a multiple of `FEWEST_TOKENS`."""
    fit = int(device_bytes * LOGPROB_SHARE) // (vocabulary * BYTES_PER_LOGIT)
    return max(FEWEST_TOKENS, min(fit, most) // FEWEST_TOKENS * FEWEST_TOKENS)


def plan_memory(
    config: Any, weights: int, dtype: str, longest: int, tokens: int, device_bytes: int, gpus: int = 1
) -> MemoryPlan:
    """The sum for a model's `config` and steps of `tokens` tokens; UserError where it cannot fit.

    weights: bytes of all weights in `dtype`; longest: tokens of the longest prompt + response; gpus: that share the
    weights and the heads of keys and values (one head is not split).
    """
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * math.ceil(heads / gpus) * size * ITEM_BYTES[dtype]
    kv_cache = KV_STEPS * (tokens + longest) * per_token
    plan = MemoryPlan(tokens, text.vocab_size, math.ceil(weights / gpus), kv_cache, device_bytes, gpus)
    if plan.total > device_bytes:
        raise UserError(
            f"{plan.line}: this does not fit; use a smaller --tokens-per-batch or --max-length, a smaller model, "
            "--dtype bfloat16, or more GPUs with --tensor-parallel-size"
        )
    return plan


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f}"
