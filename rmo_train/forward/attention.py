"""Attention over packed rows: each token sees its prompt and its own response, and nothing else is computed.

A pack describes its mask as *segments* (see `packing`). Three implementations read them: `segments` calls
scaled-dot-product attention once per segment, so no masked product is computed (the fastest on a CPU); `flex` gives
FlexAttention a block mask (GPU); `dense` gives the model's own attention a [T, T] mask, which works for any model that
accepts a 4-D mask. All three are passed through the model as its `attention_mask`, which transformers leaves unchanged
if it has four dimensions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from rmo_train.forward.packing import Pack

SEGMENTS = "rmo_segments"
IMPLEMENTATIONS = {"segments": SEGMENTS, "flex": "flex_attention", "dense": "sdpa", "rows": "sdpa"}
LONG = 512  # tokens; for longer segments, causal attention that skips masked blocks is faster than one long sequence
FLEX_BUCKET = 512  # rows are padded to multiples of this, since FlexAttention compiles once per shape
# On a CPU, oneDNN compiles a kernel of a few MiB for every new matrix shape, and caches 1,024 of them.
ROW_MULTIPLE = 16


def use_attention(model: Any, path: str) -> None:
    """Set the attention of `model` to `path`, a key of IMPLEMENTATIONS; ValueError if the model cannot use it."""
    from transformers import AttentionInterface

    AttentionInterface.register(SEGMENTS, segment_attention)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        inner.set_attn_implementation(IMPLEMENTATIONS[path])
    except ValueError:
        if IMPLEMENTATIONS[path] != "sdpa":
            raise
        inner.set_attn_implementation("eager")  # an architecture with its own attention code, or none


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **extras: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one packed row; query [1, heads, T, d], key and value [1, kv heads, T, d] -> [1, T, heads, d].

    `attention_mask` has the segments, int64 [1, 1, S, 4]; without one, whole rows are causal. Additions to the scores
    (Gemma 2's soft cap, GPT-OSS's sinks, relative positions) are refused; the choice of a layout tests for them.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if extras.get(name) is not None:
            raise ValueError(f"segment attention has no {name}")
    shared: dict[str, Any] = {"scale": scaling, "dropout_p": dropout}
    heads, kv_heads, size = query.shape[1], key.shape[1], query.shape[3]
    group = heads // kv_heads
    if attention_mask is None:
        whole = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=group > 1, **shared)
        return whole.transpose(1, 2), None
    outputs = []
    for context, context_end, start, end in attention_mask[0, 0].tolist():
        seen, own = context_end - context, end - start
        q, keys, values = query[:, :, start:end], key[:, :, start:end], value[:, :, start:end]
        if not seen and own > LONG:
            output = scaled_dot_product_attention(q, keys, values, is_causal=True, enable_gqa=group > 1, **shared)
        else:
            if seen:
                keys = torch.cat((key[:, :, context:context_end], keys), dim=2)
                values = torch.cat((value[:, :, context:context_end], values), dim=2)
            # Concatenate the query heads of one key head into one long sequence: fewer, larger products.
            stacked = q.reshape(1, kv_heads, group * own, size)
            mask = _segment_mask(seen, own, group, query.dtype, query.device)
            output = scaled_dot_product_attention(stacked, keys, values, attn_mask=mask, **shared)
            output = output.reshape(1, heads, own, size)
        outputs.append(output.transpose(1, 2))
    if end < query.shape[2]:  # padding
        outputs.append(query.new_zeros(1, query.shape[2] - end, heads, size))
    return torch.cat(outputs, dim=1), None


def _segment_mask(seen: int, own: int, group: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Additive mask [group * own, seen + own]: all of the prompt, and the response up to the token itself."""
    make = _kept_mask if own <= LONG and seen <= LONG else _mask
    return make(seen, own, group, dtype, device)


def _mask(seen: int, own: int, group: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # cached for later calls, which may need gradients
        allowed = torch.ones(own, seen + own, dtype=torch.bool, device=device).tril(seen)
        mask = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, torch.finfo(dtype).min)
        return mask.repeat(group, 1)


_kept_mask = lru_cache(maxsize=32)(_mask)  # every layer uses those of its pack


def attention_mask(pack: Pack, implementation: str, dtype: torch.dtype, device: torch.device) -> Any:
    """The `attention_mask` of `pack` for this attention implementation; None if causal attention is exact."""
    if pack.is_plain:
        return None
    if implementation == SEGMENTS:
        return torch.from_numpy(pack.segments)[None, None]  # stays on the CPU, where it is read
    if implementation == "flex_attention":
        return _block_mask(pack, device)
    filled = run_length(pack, implementation) - pack.tokens.shape[1]
    allowed = torch.from_numpy(np.pad(pack.mask(), (0, filled))).to(device)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]


def _block_mask(pack: Pack, device: torch.device) -> Any:
    """FlexAttention's block mask over the row padded to a bucket; padding attends only to itself."""
    from torch.nn.attention.flex_attention import create_block_mask

    width = run_length(pack, "flex_attention")
    bounds = torch.arange(width).repeat(3, 1)  # context, context end, start of each token's segment
    for context, context_end, start, end in pack.segments.tolist():
        bounds[:, start:end] = torch.tensor([[context], [context_end], [start]])
    context_of, context_end_of, start_of = bounds.to(device)

    def allowed(batch: Any, head: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        in_context = (k >= context_of[q]) & (k < context_end_of[q])
        return (k <= q) & ((k >= start_of[q]) | in_context)

    return create_block_mask(allowed, None, None, width, width, device=str(device))


def run_length(pack: Pack, implementation: str) -> int:
    """Padded row length of `pack`: a multiple, so that there are few distinct lengths."""
    multiple = FLEX_BUCKET if implementation == "flex_attention" and not pack.is_plain else ROW_MULTIPLE
    return -(-pack.tokens.shape[1] // multiple) * multiple
