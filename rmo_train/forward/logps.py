"""Packed rows to the log-prob of each response, with or without gradient: the forward pass of scoring and training.

The language-model head runs only where a response token is predicted, in chunks, so no [tokens x vocabulary] tensor is
ever held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from rmo_train.console.errors import ProcessingError
from rmo_train.data.pairs import PairData
from rmo_train.forward.attention import attention_mask, run_length
from rmo_train.forward.head import token_logps
from rmo_train.forward.packing import Pack, Tree, distinct_trees

Computed = TypeVar("Computed")


class Packs(Protocol):
    """How trees become packs of at most `budget` tokens (`rmo_train.forward.layout.Layout`)."""

    @property
    def budget(self) -> int: ...

    def packs(self, trees: Sequence[Tree], budget: int) -> list[Pack]: ...


def causal_parts(model: Any) -> tuple[Any, Any]:
    """The decoder and the language-model head of a causal model, under LoRA or not."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = inner.get_decoder() or inner.base_model  # transformers 4 gives None where these are one
    return decoder, inner.get_output_embeddings()


def run_pack(model: Any, pack: Pack, **options: Any) -> Any:
    """The decoder's output for a pack's rows, padded to their run length; `options` are passed to the decoder.

    Its `last_hidden_state` [rows, length, width] is what the head reads.
    """
    decoder, head = causal_parts(model)
    device = head.weight.device
    implementation = model.config._attn_implementation
    mask = attention_mask(pack, implementation, head.weight.dtype, device)
    padding = ((0, 0), (0, run_length(pack, implementation) - pack.tokens.shape[1]))
    tokens, positions = (torch.from_numpy(np.pad(x, padding)).to(device) for x in (pack.tokens, pack.positions))
    return decoder(input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False, **options)


def predicting(hidden: torch.Tensor, pack: Pack) -> torch.Tensor:
    """The states of `hidden` [rows, length, width] whose outputs predict response tokens: [R, width]."""
    rows, columns = (torch.from_numpy(x).to(hidden.device) for x in divmod(pack.sources, pack.tokens.shape[1]))
    return hidden[rows, columns]


def pack_logps(model: Any, pack: Pack, slots: int) -> torch.Tensor:
    """Summed log-prob of each response of a pack in nats: [slots], zero in slots of other packs.

    Differentiable if gradients are enabled; the backward pass then recomputes the head's logits.
    """
    return head_logps(model, run_pack(model, pack).last_hidden_state, pack, slots)


def head_logps(model: Any, hidden: torch.Tensor, pack: Pack, slots: int) -> torch.Tensor:
    """`pack_logps` from the head's input, `hidden` [rows, length, width]."""
    states = predicting(hidden, pack)
    targets = torch.from_numpy(pack.targets).to(states.device)
    owners = torch.from_numpy(pack.owners).to(states.device)
    logps = token_logps(states, targets, causal_parts(model)[1], model.config)
    # float32 rounds a sum of a thousand nats by 6e-5, so recorded values are summed in float64.
    dtype = torch.float32 if torch.is_grad_enabled() else torch.float64
    return torch.zeros(slots, dtype=dtype, device=states.device).index_add(0, owners, logps.to(dtype))


def response_logps(
    model: Any,
    trees: Sequence[Tree],
    slots: int,
    layout: Packs,
    advance: Callable[[int], None] = lambda tokens: None,
) -> np.ndarray:
    """Log-probs of all responses without gradient, float64 nats [slots]; `advance` gets the tokens computed so far."""
    result = np.zeros(slots, dtype=np.float64)
    for pack, logps in over_packs(lambda pack: pack_logps(model, pack, slots), trees, layout, advance):
        owned = np.unique(pack.owners)
        result[owned] = logps.double().cpu().numpy()[owned]
    return result


def over_packs(
    compute: Callable[[Pack], Computed],
    trees: Sequence[Tree],
    layout: Packs,
    advance: Callable[[int], None] = lambda tokens: None,
) -> Iterator[tuple[Pack, Computed]]:
    """Every pack of `trees` with the result of `compute` on it, without gradient; `advance` counts tokens.

    Rows have at most the layout's budget of tokens. If memory runs out, the budget is halved and the pack's trees are
    laid out again; a pack that cannot be split further raises a ProcessingError.
    """
    waiting = [(list(trees), layout.budget)]
    while waiting:
        group, limit = waiting.pop()
        packs = layout.packs(group, limit)
        for k, pack in enumerate(packs):
            try:
                with torch.inference_mode():
                    computed = compute(pack)
            except torch.OutOfMemoryError as e:
                if limit < 2 * max(p.size for p in layout.packs(group, 1)):
                    raise ProcessingError(
                        f"out of memory with a single sequence per row ({pack.size} tokens): "
                        "use a smaller --max-length or a smaller model"
                    ) from e
                torch.cuda.empty_cache()
                done = {int(o) for p in packs[:k] for o in np.unique(p.owners)}
                waiting.append((_without(group, done), limit // 2))
                break
            yield pack, computed
            advance(pack.size)


def _without(trees: Sequence[Tree], done: set[int]) -> list[Tree]:
    """`trees` without the responses whose slots are in `done`."""
    left = []
    for tree in trees:
        keep = [(r, o) for r, o in zip(tree.responses, tree.owners, strict=True) if o not in done]
        if keep:
            responses, owners = zip(*keep, strict=True)
            left.append(Tree(tree.prompt, responses, owners))
    return left


def pair_logps(
    model: Any,
    data: PairData,
    rows: np.ndarray,
    layout: Packs,
    advance: Callable[[int], None] = lambda tokens: None,
) -> np.ndarray:
    """Log-probs of the pairs `rows` without gradient, float64 nats [len(rows), 2] (chosen, rejected).

    Each distinct sequence is computed once; `advance` gets the tokens computed so far.
    """
    trees, slots = distinct_trees(data, rows)
    return response_logps(model, trees, int(slots.max(initial=-1)) + 1, layout, advance)[slots]


def margin_sd(logps: np.ndarray, others: np.ndarray) -> float:
    """sd, in nats, of the difference in margins between two scorings of the same pairs: log-probs [n, 2] each."""
    gaps = logps - others
    return float(np.std(gaps[:, 0] - gaps[:, 1]))
