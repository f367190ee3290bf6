"""Held-out accuracy of a model on preference pairs, against the reference log-probs that the data carries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rmo_train.console.errors import UserError
from rmo_train.console.progress import progress
from rmo_train.data.pairs import PairData
from rmo_train.evaluation.intervals import accuracy_interval, length_matched_interval
from rmo_train.evaluation.metrics import Interval
from rmo_train.evaluation.result import Evaluation, PairMargin, rounded
from rmo_train.forward.distributed import ALONE, World
from rmo_train.forward.layout import Layout
from rmo_train.forward.logps import pair_logps
from rmo_train.forward.packing import distinct_trees

PART = 256  # pairs laid out at a time, which bounds memory


def logps_in_parts(
    model: Any,
    data: PairData,
    layout: Layout,
    advance: Callable[[int], None] = lambda tokens: None,
    world: World | None = None,
) -> np.ndarray:
    """Log-probs of every pair's responses, float64 nats [n, 2] (chosen, rejected); each distinct one once per part.

    Parts follow the order of prompts, so that pairs of one prompt share its computation. The processes of `world`
    take turns, and all of them get the result.
    """
    world = world or ALONE
    result = np.empty((len(data), 2), dtype=np.float64)
    mine = [(rows, pair_logps(model, data, rows, layout, advance)) for rows in parts_of(data, world)]
    for rows, logps in world.gathered(mine):
        result[rows] = logps
    return result


def parts_of(data: PairData, world: World) -> list[np.ndarray]:
    """The rows of each part that this process of `world` computes."""
    order = np.argsort(data.groups.astype(str), kind="stable")
    return [order[start : start + PART] for start in range(0, len(data), PART)][world.rank :: world.size]


def evaluate(
    model: Any, data: PairData, layout: Layout, overlap: tuple[int, int] = (0, 0), world: World | None = None
) -> Evaluation:
    """Evaluate `model` on `data`, whose reference columns give the reward margins."""
    reference_logps(data)  # raises before the forward passes, not after
    total = sum(layout.tokens(distinct_trees(data, rows)[0]) for rows in parts_of(data, world or ALONE))
    with progress("evaluate", total, "token") as bar:
        logps = logps_in_parts(model, data, layout, bar.advance, world)
    return summarise(data, logps, overlap)


def reference_logps(data: PairData) -> np.ndarray:
    """The reference's log-probs [n, 2] from the data's columns; a UserError if there are none."""
    if data.ref_chosen is None or data.ref_rejected is None:
        raise UserError(
            f"{data.folder}: no reference log-probs to compare with; expected scored pairs: score them first"
        )
    return np.stack([data.ref_chosen, data.ref_rejected], axis=1)


def summarise(data: PairData, logps: np.ndarray, overlap: tuple[int, int] = (0, 0)) -> Evaluation:
    """The Evaluation of policy log-probs [n, 2] on `data`."""
    chosen_n, rejected_n = data.chosen.lengths, data.rejected.lengths
    margin = logps[:, 0] - logps[:, 1]
    reference = reference_logps(data)
    reward = margin - (reference[:, 0] - reference[:, 1])
    mean = logps[:, 0] / chosen_n - logps[:, 1] / rejected_n
    longer = (chosen_n - rejected_n).astype(float)

    def of(values: np.ndarray) -> Interval:
        return accuracy_interval(values, data.groups)

    return Evaluation(
        n=len(data),
        reward_accuracy=of(reward),
        logp_accuracy=of(margin),
        mean_logp_accuracy=of(mean),
        length_accuracy=of(longer),
        length_matched_reward_accuracy=length_matched_interval(reward, chosen_n, rejected_n, data.groups),
        mean_reward_margin=float(reward.mean()),
        pairs=pair_margins(data, reward),
        pairs_sha256=data.content_sha256,
        reference_sha256=data.reference.weights_sha256,
        overlap_pairs=overlap[0],
        overlap_prompts=overlap[1],
    )


def pair_margins(data: PairData, rewards: np.ndarray) -> dict[str, PairMargin]:
    """The data of each pair that a comparison needs, by id; `rewards`: reward margins [n], nats."""
    prompts = {group: k for k, group in enumerate(dict.fromkeys(data.groups))}
    longer = data.chosen.lengths - data.rejected.lengths
    return {
        str(i): (rounded(margin), prompts[group], int(longer_by))
        for i, group, margin, longer_by in zip(data.ids, data.groups, rewards, longer, strict=True)
    }


def overlap_of(train_ids: set[str], train_prompts: set[str], data: PairData) -> tuple[int, int]:
    """Number of `data`'s pairs (by id) and distinct prompts that are also in a training set."""
    return sum(i in train_ids for i in data.ids), len(train_prompts & set(data.groups))
