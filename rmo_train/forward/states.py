"""Features of whole responses: hidden states at several depths, each averaged over a response's tokens.

They come from the forward pass that scores the responses, or from a separate one, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from rmo_train.data.pairs import PairData
from rmo_train.forward.logps import Packs, causal_parts, head_logps, over_packs, predicting, run_pack
from rmo_train.forward.packing import Pack, distinct_trees

DEPTHS = 6  # evenly spaced, the last layer's output among them

Reduce = Callable[[torch.Tensor], torch.Tensor]


def layers_read(layers: int) -> list[int]:
    """The layers after which states are read: at most `DEPTHS` of `layers`, ascending, counted from 1."""
    return sorted({max(1, round(layers * k / DEPTHS)) for k in range(1, DEPTHS + 1)})


def pair_state_differences(
    model: Any,
    data: PairData,
    rows: np.ndarray,
    layout: Packs,
    advance: Callable[[int], None] = lambda tokens: None,
) -> np.ndarray:
    """Mean state of the chosen response minus that of the rejected one: float32 [len(rows), depths x width].

    A response's states are those from which its tokens are predicted. Each distinct sequence is computed once;
    `advance` gets the tokens computed so far.
    """
    trees, slots = distinct_trees(data, rows)
    means: dict[int, np.ndarray] = {}
    for pack, (_, states) in over_packs(lambda pack: pack_states(model, pack), trees, layout, advance):
        means.update(_by_slot(pack, states))
    return _differences(means, slots)


def pair_logps_and_differences(
    model: Any,
    data: PairData,
    rows: np.ndarray,
    layout: Packs,
    advance: Callable[[int], None] = lambda tokens: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The results of `pair_logps` and `pair_state_differences`, from one forward pass."""
    trees, slots = distinct_trees(data, rows)
    logps = np.zeros(int(slots.max(initial=-1)) + 1, dtype=np.float64)
    means: dict[int, np.ndarray] = {}

    def compute(pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, states = pack_states(model, pack)
        return head_logps(model, hidden, pack, len(logps)), states

    for pack, (pack_logps, states) in over_packs(compute, trees, layout, advance):
        owned = np.unique(pack.owners)
        logps[owned] = pack_logps.cpu().numpy()[owned]
        means.update(_by_slot(pack, states))
    return logps[slots], _differences(means, slots)


def _by_slot(pack: Pack, states: torch.Tensor) -> Iterator[tuple[int, np.ndarray]]:
    return zip(np.unique(pack.owners).tolist(), states.cpu().numpy(), strict=True)


def _differences(means: dict[int, np.ndarray], slots: np.ndarray) -> np.ndarray:
    return np.stack([means[chosen] - means[rejected] for chosen, rejected in slots.tolist()])


# ---------------------------------------------------------------------------------------------------- one pack


def pack_states(model: Any, pack: Pack) -> tuple[torch.Tensor, torch.Tensor]:
    """What the head reads [rows, length, width], and the mean states of the pack's responses in the order of their
    slots: float32 [responses, depths x width].
    """
    mean = means_of(pack, causal_parts(model)[1].weight.device)
    layers = decoder_layers(model)
    if layers is None:
        output = run_pack(model, pack, output_hidden_states=True)
        hidden = output.hidden_states  # the embeddings, then every layer
        means = [mean(hidden[k]) for k in layers_read(len(hidden) - 1)[:-1]]
    else:
        inner = [layers[k - 1] for k in layers_read(len(layers))[:-1]]
        with reducing_outputs(inner, mean) as means:
            output = run_pack(model, pack)
    last = output.last_hidden_state  # of the last layer, after the final norm
    return last, torch.cat([*means, mean(last)], dim=1)


def means_of(pack: Pack, device: torch.device) -> Reduce:
    """States [rows, length, width] -> their means over the positions that predict each response [responses, width]."""
    _, which, counts = np.unique(pack.owners, return_inverse=True, return_counts=True)
    owners, tokens = torch.from_numpy(which).to(device), torch.from_numpy(counts).to(device)

    def mean(hidden: torch.Tensor) -> torch.Tensor:
        states = predicting(hidden, pack).float()
        summed = torch.zeros(len(counts), states.shape[1], device=device).index_add(0, owners, states)
        return summed / tokens[:, None]

    return mean


def decoder_layers(model: Any) -> torch.nn.ModuleList | None:
    """The decoder's layers in order; None if they cannot be identified among its module lists."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = [m for m in causal_parts(model)[0].modules() if isinstance(m, torch.nn.ModuleList)]
    complete = [m for m in lists if len(m) == count]
    return complete[0] if len(complete) == 1 else None


@contextmanager
def reducing_outputs(layers: list[torch.nn.Module], reduce: Reduce) -> Iterator[list[torch.Tensor]]:
    """`reduce` of each layer's output, in the order in which they run, filled by a forward pass inside the block.

    `output_hidden_states` would hold the output of every layer, over all tokens, until the pass ends.
    """
    reduced: list[torch.Tensor] = []

    def keep(layer: torch.nn.Module, inputs: Any, output: Any) -> None:
        reduced.append(reduce(output if isinstance(output, torch.Tensor) else output[0]))

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield reduced
    finally:
        for hook in hooks:
            hook.remove()
