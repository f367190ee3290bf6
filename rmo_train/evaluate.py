"""Held-out accuracy of a model on preference pairs, against the reference log-probs that the data carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rmo_train.distributed import ALONE, World
from rmo_train.errors import UserError
from rmo_train.layout import Layout
from rmo_train.logps import pair_logps
from rmo_train.metrics import Interval, accuracy, bootstrap, length_matched_accuracy
from rmo_train.pairs import PairData
from rmo_train.progress import progress

PART = 256  # pairs laid out at a time: bounds memory, whatever the size of the data


@dataclass(frozen=True)
class Evaluation:
    """Accuracies with 95% intervals (bootstrap over prompts) and what they were computed from.

    A pair counts as right when its margin is above 0; a tie counts 0.5, so that the reference itself has 0.5 by
    `reward_accuracy`. `length_accuracy` is what "the longer answer wins" would get.
    """

    n: int
    reward_accuracy: Interval
    logp_accuracy: Interval
    mean_logp_accuracy: Interval
    length_accuracy: Interval
    length_matched_reward_accuracy: Interval
    mean_reward_margin: float  # nats, without beta
    overlap_pairs: int = 0
    overlap_prompts: int = 0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evaluation:
        """What `as_json` gave."""
        given: dict[str, Any] = {k: Interval(**v) if isinstance(v, dict) else v for k, v in value.items()}
        return cls(**given)

    def as_metrics(self) -> dict[str, float]:
        names = ("reward_accuracy", "logp_accuracy", "mean_logp_accuracy", "length_matched_reward_accuracy")
        return {f"eval/{name}": getattr(self, name).value for name in names}

    def lines(self) -> list[str]:
        return [
            f"{self.n} pairs; accuracy with 95% interval (bootstrap over prompts)",
            f"  reward                  {self.reward_accuracy}   (the reference itself: 0.500)",
            f"  reward, length-matched  {self.length_matched_reward_accuracy}",
            f"  log-prob                {self.logp_accuracy}",
            f"  mean log-prob           {self.mean_logp_accuracy}",
            f"  the longer wins         {self.length_accuracy}",
        ]


def logps_in_parts(
    model: Any,
    data: PairData,
    layout: Layout,
    advance: Callable[[int], None] = lambda tokens: None,
    world: World | None = None,
) -> np.ndarray:
    """Log-probs of every pair's responses, float64 nats [n, 2] (chosen, rejected); each distinct sequence once a part.

    Parts are cut in the order of the prompts, so that pairs of one prompt share its computation. The processes of
    `world` take them in turns and all of them get the result.
    """
    world = world or ALONE
    order = np.argsort(data.groups.astype(str), kind="stable")
    result = np.empty((len(data), 2), dtype=np.float64)
    parts = [order[start : start + PART] for start in range(0, len(data), PART)]
    mine = [(rows, pair_logps(model, data, rows, layout, advance)) for rows in parts[world.rank :: world.size]]
    for rows, logps in world.gathered(mine):
        result[rows] = logps
    return result


def evaluate(
    model: Any, data: PairData, layout: Layout, overlap: tuple[int, int] = (0, 0), world: World | None = None
) -> Evaluation:
    """Measure `model` on `data`, whose reference columns give the reward margins."""
    reference_logps(data)  # refused before the forward passes, not after
    total = int((data.prompt.lengths + data.chosen.lengths + data.rejected.lengths).sum())
    with progress("evaluate", total, "tokens") as bar:
        logps = logps_in_parts(model, data, layout, bar.advance, world)
    return summarise(data, logps, overlap)


def reference_logps(data: PairData) -> np.ndarray:
    """The reference's log-probs [n, 2] from the data's columns; a UserError where there are none."""
    if data.ref_chosen is None or data.ref_rejected is None:
        raise UserError(
            f"{data.folder}: no reference log-probs to evaluate against; run `rmo-curate score` on the data first"
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
        return bootstrap(lambda rows: accuracy(values[rows]), data.groups)

    matched = bootstrap(
        lambda rows: length_matched_accuracy(reward[rows], chosen_n[rows], rejected_n[rows]), data.groups
    )
    return Evaluation(
        n=len(data),
        reward_accuracy=of(reward),
        logp_accuracy=of(margin),
        mean_logp_accuracy=of(mean),
        length_accuracy=of(longer),
        length_matched_reward_accuracy=matched,
        mean_reward_margin=float(reward.mean()),
        overlap_pairs=overlap[0],
        overlap_prompts=overlap[1],
    )


def overlap_of(train_ids: set[str], train_prompts: set[str], data: PairData) -> tuple[int, int]:
    """How many of `data`'s pairs (by id) and distinct prompts a training set shares."""
    return sum(i in train_ids for i in data.ids), len(train_prompts & set(data.groups))
