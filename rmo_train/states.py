"""What a model makes of whole responses: hidden states at several depths, each averaged over a response's tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rmo_train.logps import Packs, over_packs, predicting, run_pack
from rmo_train.packing import Pack, distinct_trees
from rmo_train.pairs import PairData

DEPTHS = 6  # evenly spaced, the last layer's output among them


def layers_read(layers: int) -> list[int]:
    """The layers, of `layers`, after which states are read: at most `DEPTHS`, ascending, counted from 1."""
    return sorted({max(1, round(layers * k / DEPTHS)) for k in range(1, DEPTHS + 1)})


def pair_state_differences(
    model: Any,
    data: PairData,
    rows: np.ndarray,
    layout: Packs,
    advance: Callable[[int], None] = lambda tokens: None,
) -> np.ndarray:
    """Mean state of the chosen response less that of the rejected one: float32 [len(rows), depths x width].

    A response's states are those from which its tokens are predicted. Each distinct sequence is computed once;
    `advance` gets the tokens computed so far.
    """
    trees, slots = distinct_trees(data, rows)
    means: dict[int, np.ndarray] = {}
    for pack, states in over_packs(lambda pack: pack_states(model, pack), trees, layout, advance):
        means.update(zip(np.unique(pack.owners).tolist(), states.cpu().numpy(), strict=True))
    return np.stack([means[chosen] - means[rejected] for chosen, rejected in slots.tolist()])


def pack_states(model: Any, pack: Pack) -> torch.Tensor:
    """Mean states of the pack's responses in the order of their slots: float32 [responses, depths x width]."""
    hidden = run_pack(model, pack, output_hidden_states=True).hidden_states  # the embeddings, then every layer
    _, which, counts = np.unique(pack.owners, return_inverse=True, return_counts=True)
    device = hidden[0].device
    owners, tokens = torch.from_numpy(which).to(device), torch.from_numpy(counts).to(device)
    means = []
    for layer in layers_read(len(hidden) - 1):
        states = predicting(hidden[layer], pack).float()
        summed = torch.zeros(len(counts), states.shape[1], device=device).index_add(0, owners, states)
        means.append(summed / tokens[:, None])
    return torch.cat(means, dim=1)
