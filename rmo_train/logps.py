"""Packed rows to the log-prob of each response, with or without gradient: the forward pass of scoring and training.

The language-model head runs only where a response token is predicted, in chunks, so no [tokens x vocabulary] tensor is
ever held. A model that cannot share prompts (found by comparing with plain rows at start) gets plain rows instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rmo_train.errors import ProcessingError
from rmo_train.head import token_logps
from rmo_train.packing import Pack, Tree, make_pack, make_packs, plain_trees

CPU_TOKENS_PER_BATCH = 256  # dense-mask attention makes longer rows slower on a CPU
GPU_TOKENS_PER_BATCH = 8192
# Nats per token by which a model that shares prompts may differ from plain rows on random tokens, by "is float32":
# bfloat16's rounding of logits is about 0.05 there, a model that ignores the mask is off by more than its entropy.
PROBE_TOLERANCE = {True: 1e-3, False: 0.25}


def default_tokens_per_batch(device: torch.device) -> int:
    """Token budget of a packed row where none is given."""
    return CPU_TOKENS_PER_BATCH if device.type == "cpu" else GPU_TOKENS_PER_BATCH


def causal_parts(model: Any) -> tuple[Any, Any]:
    """The decoder and the language-model head of a causal model, under LoRA or not."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return inner.get_decoder(), inner.get_output_embeddings()


def pack_logps(model: Any, pack: Pack, slots: int) -> torch.Tensor:
    """Summed log-prob of each response of a pack in nats: [slots], zero in slots the pack does not own.

    Differentiable where gradients are enabled; the head's logits are then computed again in the backward pass.
    """
    decoder, head = causal_parts(model)
    device = head.weight.device
    tokens = torch.from_numpy(pack.tokens).to(device)[None]
    positions = torch.from_numpy(pack.positions).to(device)[None]
    mask = None
    if not pack.is_plain:
        allowed = torch.from_numpy(pack.mask()).to(device)
        dtype = head.weight.dtype
        mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
        mask = mask.masked_fill_(~allowed, torch.finfo(dtype).min)[None, None]
    hidden = decoder(input_ids=tokens, position_ids=positions, attention_mask=mask, use_cache=False).last_hidden_state[
        0
    ]
    states = hidden[torch.from_numpy(pack.sources).to(device)]
    targets = torch.from_numpy(pack.targets).to(device)
    owners = torch.from_numpy(pack.owners).to(device)
    logps = token_logps(states, targets, head, model.config)
    # A sum of a thousand nats has a float32 rounding of 6e-5: what is recorded is summed in float64.
    dtype = torch.float32 if torch.is_grad_enabled() else torch.float64
    return torch.zeros(slots, dtype=dtype, device=device).index_add(0, owners, logps.to(dtype))


@dataclass(frozen=True)
class Layout:
    """How sequences are laid out for one model: prompts shared in packed rows, or plain rows, and why."""

    shared: bool
    reason: str

    def packs(self, trees: Sequence[Tree], budget: int) -> list[Pack]:
        if self.shared:
            return make_packs(trees, budget)
        return [make_pack([t]) for t in plain_trees(trees)]


def choose_layout(model: Any, longest: int) -> Layout:
    """Share prompts if this model gives the same log-probs either way; `longest` is the longest prompt + response.

    A sliding window shorter than the data is ruled out by the config; recurrent layers, absolute positions and ignored
    masks are found by comparing two small trees with their plain rows.
    """
    window = getattr(model.config, "sliding_window", None)
    if window and window < longest and getattr(model.config, "use_sliding_window", True):
        return Layout(False, f"plain rows: the model's sliding window ({window}) is shorter than the data ({longest})")
    rng = np.random.default_rng(0)
    highest = min(model.config.vocab_size, 1000)

    def ids(n: int) -> np.ndarray:
        return rng.integers(0, highest, n).astype(np.int32)

    trees = [Tree(ids(7), (ids(5), ids(9)), (0, 1)), Tree(ids(4), (ids(6), ids(3)), (2, 3))]
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            shared = pack_logps(model, make_pack(trees), 4)
            plain = sum(pack_logps(model, make_pack([t]), 4) for t in plain_trees(trees))
    except (ValueError, TypeError, RuntimeError, IndexError) as e:
        return Layout(False, f"plain rows: the model takes no packed rows ({type(e).__name__}: {e})")
    finally:
        model.train(was_training)
    lengths = torch.tensor([len(r) for t in trees for r in t.responses], device=shared.device)
    gap = float(((shared - plain) / lengths).square().mean().sqrt())
    if not gap <= PROBE_TOLERANCE[next(model.parameters()).dtype == torch.float32]:
        return Layout(False, f"plain rows: packed rows differ by {gap:.2g} nats per token on this architecture")
    return Layout(True, f"prompts shared in packed rows (differs from plain rows by {gap:.1g} nats per token)")


def response_logps(
    model: Any,
    trees: Sequence[Tree],
    slots: int,
    layout: Layout,
    budget: int,
    advance: Callable[[int], None] = lambda tokens: None,
) -> np.ndarray:
    """Log-probs of all responses without gradient, float64 nats [slots]; `advance` gets the tokens computed so far.

    On running out of memory the token budget is halved and the pack's trees are laid out again; a pack that cannot be
    halved any more raises ProcessingError.
    """
    result = np.zeros(slots, dtype=np.float64)
    waiting = [(list(trees), budget)]
    with torch.inference_mode():
        while waiting:
            group, limit = waiting.pop()
            packs = layout.packs(group, limit)
            for k, pack in enumerate(packs):
                try:
                    logps = pack_logps(model, pack, slots)
                except torch.OutOfMemoryError as e:
                    if limit < 2 * max(len(p.tokens) for p in layout.packs(group, 1)):
                        raise ProcessingError(
                            f"out of memory with one sequence a row ({len(pack.tokens)} tokens): "
                            "use a smaller --max-length or a smaller model"
                        ) from e
                    torch.cuda.empty_cache()
                    done = {int(o) for p in packs[:k] for o in np.unique(p.owners)}
                    waiting.append((_without(group, done), limit // 2))
                    break
                owned = np.unique(pack.owners)
                result[owned] = logps.double().cpu().numpy()[owned]
                advance(len(pack.tokens))
    return result


def _without(trees: Sequence[Tree], done: set[int]) -> list[Tree]:
    """`trees` without the responses whose slots are in `done`."""
    left = []
    for tree in trees:
        keep = [(r, o) for r, o in zip(tree.responses, tree.owners, strict=True) if o not in done]
        if keep:
            responses, owners = zip(*keep, strict=True)
            left.append(Tree(tree.prompt, responses, owners))
    return left
