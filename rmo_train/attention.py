"""Attention over packed rows: each token sees its prompt and its own response, and nothing else is computed.

A pack says who sees whom as *segments* (see `rmo_train.packing`). Three implementations read them: `segments` calls
scaled-dot-product attention once a segment, so that nothing masked is multiplied (the fastest on a CPU); `flex` hands
FlexAttention a block mask (GPU); `dense` gives the model's own attention a [T, T] mask, which any model takes that
takes a 4-D mask. All three travel through the model as its `attention_mask`, which transformers passes on as it is when
it has four dimensions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from rmo_train.packing import Pack

SEGMENTS = "rmo_segments"
IMPLEMENTATIONS = {"segments": SEGMENTS, "flex": "flex_attention", "dense": "sdpa", "rows": "sdpa"}
FLEX_BUCKET = 512  # rows are padded to multiples: FlexAttention compiles once a shape


def use_attention(model: Any, path: str) -> None:
    """Make `model` attend by `path`, a key of IMPLEMENTATIONS; ValueError where the architecture cannot."""
    from transformers import AttentionInterface

    AttentionInterface.register(SEGMENTS, segment_attention)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        inner.set_attn_implementation(IMPLEMENTATIONS[path])
    except ValueError:
        if IMPLEMENTATIONS[path] != "sdpa":
            raise
        inner.set_attn_implementation("eager")  # an architecture that wrote its attention out, or has none


def segment_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one packed row; query [1, heads, T, d], key and value [1, kv heads, T, d] -> [1, T, heads, d].

    `attention_mask` holds the segments, int64 [1, 1, S, 4]; without one, whole rows are causal. What a model adds to
    its scores (Gemma 2's soft cap, GPT-OSS's sinks, relative positions) is refused, and found when a layout is chosen.
    """
    for extra in ("softcap", "s_aux", "position_bias"):
        if given.get(extra) is not None:
            raise ValueError(f"segment attention has no {extra}")
    shared: dict[str, Any] = {
        "scale": scaling,
        "dropout_p": dropout,
        "enable_gqa": query.shape[1] != key.shape[1],
    }
    if attention_mask is None:
        whole = scaled_dot_product_attention(query, key, value, is_causal=True, **shared)
        return whole.transpose(1, 2), None
    outputs = []
    for context, context_end, start, end in attention_mask[0, 0].tolist():
        q = query[:, :, start:end]
        own_key, own_value = key[:, :, start:end], value[:, :, start:end]
        if context == context_end:
            output = scaled_dot_product_attention(q, own_key, own_value, is_causal=True, **shared)
        else:
            # Rows P to P + R of a causal mask: all of the prompt, and the response up to the token itself.
            seen = context_end - context
            mask = _causal_mask(seen + end - start, query.dtype, query.device)[seen:]
            keys = torch.cat((key[:, :, context:context_end], own_key), dim=2)
            values = torch.cat((value[:, :, context:context_end], own_value), dim=2)
            output = scaled_dot_product_attention(q, keys, values, attn_mask=mask, **shared)
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1), None


def _causal_mask(n: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Additive causal mask [n, n], a view of one that is kept."""
    return _causal_square(max(256, 1 << (n - 1).bit_length()), dtype, device)[:n, :n]


@lru_cache(maxsize=4)
def _causal_square(n: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # kept for later calls, which may want gradients
        allowed = torch.ones(n, n, dtype=torch.bool, device=device).tril()
        return torch.zeros(n, n, dtype=dtype, device=device).masked_fill_(~allowed, torch.finfo(dtype).min)


def attention_mask(pack: Pack, implementation: str, dtype: torch.dtype, device: torch.device) -> Any:
    """What a model with this attention implementation is given for `pack`; None where causal attention is exact."""
    if pack.is_plain:
        return None
    if implementation == SEGMENTS:
        return torch.from_numpy(pack.segments)[None, None]  # stays on the CPU: it is read as numbers
    if implementation == "flex_attention":
        return _block_mask(pack, device)
    allowed = torch.from_numpy(pack.mask()).to(device)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
    return mask.masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]


def _block_mask(pack: Pack, device: torch.device) -> Any:
    """FlexAttention's block mask over the row padded to a bucket; padding sees itself alone."""
    from torch.nn.attention.flex_attention import create_block_mask

    n = pack.tokens.shape[1]
    width = bucketed(n)
    bounds = torch.arange(width).repeat(3, 1)  # context, context end, start of each token's segment
    for context, context_end, start, end in pack.segments.tolist():
        bounds[:, start:end] = torch.tensor([[context], [context_end], [start]])
    context_of, context_end_of, start_of = bounds.to(device)

    def allowed(batch: Any, head: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        in_context = (k >= context_of[q]) & (k < context_end_of[q])
        return (k <= q) & ((k >= start_of[q]) | in_context)

    return create_block_mask(allowed, None, None, width, width, device=str(device))


def bucketed(tokens: int) -> int:
    """Row length that FlexAttention is run at: the next multiple of FLEX_BUCKET."""
    return -(-tokens // FLEX_BUCKET) * FLEX_BUCKET
