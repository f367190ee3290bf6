"""Unhappy training told where it happens: a run's metrics, step by step, to hints, which `rmo_train.report` words.

A `Hints` is given every step's metrics and gives each hint at most once. It reads these keys (any other is ignored, any
may be missing):

    loss, rewards/chosen, rewards/rejected, rewards/margins, rewards/accuracies, grad_norm, learning_rate, epoch
    rewards/accuracies_longer    reward accuracy on the batch's pairs whose chosen answer has more tokens
    rewards/accuracies_shorter   the same where it has fewer; each is left out of a batch without such pairs
    eval/reward_accuracy, eval/length_matched_reward_accuracy    at steps with an evaluation

Rewards are beta x log-ratio to the reference. `referenced=False` says that there is none: rewards are then beta x
log-prob, whose mean follows the lengths of a batch's answers, and the rules that need a known start stay silent.
Nothing is generated in training, so that answers grow is not seen; that the policy ranks by length is.

    hints = Hints(steps)
    for hint in hints.of(metrics): say(hint_line(hint))
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

# Steps that are averaged: a batch has some 16 pairs, so about 160 pairs, whose accuracy is known to 0.04.
WINDOW = 10
# Standard errors by which a mean must differ before it counts: rules are asked at every step, so two are too few.
CERTAIN = 3.0

# Rewards. At beta 0.1 a unit is 10 nats off a whole answer; half of that comes and goes in runs that end well.
FALLEN = 1.0
# Loss of chosen over the margin won by it. Below 1 the rejected answer pays for most of the margin, as it should.
DISPLACED = 1.0
DISPLACED_STEPS = 2 * WINDOW  # a warm-up's first swing is no trend

EASY_LOSS = 0.05  # of the loss at the start: a mean margin of about 3.5 rewards for DPO

# In the first ten steps labels that agree with each other cannot push the margins of later batches down this far.
AGAINST = 0.05
AGAINST_ACCURACY = 0.5
HELD_OUT_REVERSED, TRAINED_WELL = 0.4, 0.6  # accuracies: worse than a coin held out, better than one in training

LENGTH_STEPS = 3 * WINDOW  # each kind is about half of a batch
LENGTH_GAP = 0.4  # between the accuracies of pairs whose chosen answer is longer and shorter
# Held out, plain accuracy above length-matched accuracy: what length alone contributed.
LENGTH_GAP_HELD_OUT = 0.1

FLAT_STEPS = 3 * WINDOW  # before that a run is too short to be judged
FLAT_MARGIN = 0.02  # rewards: DPO's loss has then moved by 0.01 of its 0.69
FLAT_ACCURACY = 0.6  # margins may be tiny and right all the same, with a tiny beta

RISEN = 1.1  # the loss over the loss at the start


KEYS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "rewards/accuracies_longer",
    "rewards/accuracies_shorter",
    "eval/reward_accuracy",
    "eval/length_matched_reward_accuracy",
    "grad_norm",
    "learning_rate",
    "epoch",
)


@dataclass(frozen=True)
class Hint:
    """What a rule saw: the name of its sentence in `rmo_train.report.HINTS`, and the figures in it."""

    name: str
    figures: Mapping[str, float] = field(default_factory=dict)
    step: int = 0  # after which it was seen


class History:
    """The values of each key so far; a step without a key has NaN."""

    def __init__(self, steps: int, referenced: bool, max_grad_norm: float):
        self.steps, self.referenced, self.max_grad_norm = steps, referenced, max_grad_norm
        self.columns = {key: array("d") for key in KEYS}

    def append(self, metrics: Mapping[str, Any]) -> None:
        for key, column in self.columns.items():
            value = metrics.get(key)
            column.append(float(value) if isinstance(value, int | float) else math.nan)

    def __len__(self) -> int:
        return len(self.columns["loss"])

    def first(self, key: str, count: int = WINDOW, skip: int = 0) -> np.ndarray:
        """The values of the first `count` steps after `skip`, without those that are not there."""
        return _present(self.columns[key][skip : skip + count])

    def last(self, key: str, count: int = WINDOW) -> np.ndarray:
        return _present(self.columns[key][-count:])

    def now(self, key: str) -> float:
        return self.columns[key][-1]

    def fall(self, key: str) -> tuple[float, float]:
        """How far a reward's mean is below its start, and the standard error of that."""
        start = np.zeros(1) if self.referenced else self.first(key)
        return mean(start) - mean(self.last(key)), math.hypot(error(start), error(self.last(key)))


def _present(values: Any) -> np.ndarray:
    column = np.asarray(values, dtype=np.float64)
    return column[np.isfinite(column)]


def mean(values: np.ndarray) -> float:
    """NaN without values: every comparison with it is false, so a rule without its keys is silent."""
    return float(values.mean()) if len(values) else math.nan


def error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std() / math.sqrt(len(values))) if len(values) else math.nan


# ---------------------------------------------------------------------------------------------------- rules


def both_fall(h: History) -> Hint | None:
    """Chosen answers lose more probability than the margin gains: the model moves towards neither answer."""
    if len(h) < DISPLACED_STEPS:
        return None
    (chosen, chosen_error), (rejected, rejected_error) = h.fall("rewards/chosen"), h.fall("rewards/rejected")
    fell = chosen > max(FALLEN, CERTAIN * chosen_error) and rejected > max(FALLEN, CERTAIN * rejected_error)
    if not fell or chosen < DISPLACED * (rejected - chosen):
        return None
    return Hint("both fall", {"chosen": -chosen, "rejected": -rejected})


def too_easy(h: History) -> Hint | None:
    """Every pair right and no loss left before any pair was seen twice."""
    epoch = h.now("epoch")
    early = epoch <= 1 if math.isfinite(epoch) else len(h) <= h.steps / 2
    right, loss = h.last("rewards/accuracies"), mean(h.last("loss"))
    if not early or len(right) < WINDOW or right.min() < 1 or not loss < EASY_LOSS * abs(mean(h.first("loss", 1))):
        return None
    return Hint("too easy", {"loss": loss})


def against_the_labels(h: History) -> Hint | None:
    """The first margins are all negative: what one batch teaches makes the next one worse."""
    if not h.referenced or len(h) <= WINDOW:
        return None
    margins = h.first("rewards/margins", skip=1)  # the first step's is that of the reference itself, 0
    right = mean(h.first("rewards/accuracies", skip=1))
    if len(margins) < WINDOW or margins.max() >= 0 or mean(margins) > -AGAINST or not right < AGAINST_ACCURACY:
        return None
    return Hint("against the labels", {"count": WINDOW, "margin": mean(margins), "accuracy": right})


def held_out_reversed(h: History) -> Hint | None:
    """Better than a coin on the training pairs, worse than one on the held-out pairs."""
    held_out, trained = h.now("eval/reward_accuracy"), mean(h.last("rewards/accuracies"))
    if not (held_out < HELD_OUT_REVERSED and trained > TRAINED_WELL):
        return None
    return Hint("held out reversed", {"trained": trained, "held_out": held_out})


def ranks_by_length(h: History) -> Hint | None:
    """Right where the chosen answer is longer, wrong where it is shorter: what makes answers grow."""
    longer, shorter = (
        h.last("rewards/accuracies_longer", LENGTH_STEPS),
        h.last("rewards/accuracies_shorter", LENGTH_STEPS),
    )
    plain, matched = h.now("eval/reward_accuracy"), h.now("eval/length_matched_reward_accuracy")
    if (
        min(len(longer), len(shorter)) >= LENGTH_STEPS / 2
        and mean(shorter) < 0.5
        and mean(longer) - mean(shorter) > LENGTH_GAP
    ):
        return Hint("ranks by length", {"longer": mean(longer), "shorter": mean(shorter)})
    if plain - matched > LENGTH_GAP_HELD_OUT:
        return Hint("ranks by length, held out", {"plain": plain, "gap": plain - matched})
    return None


def flat(h: History) -> Hint | None:
    """Half of the run is over and nothing has moved. Asked once: without a reference a batch's noise would hide it."""
    if not h.referenced or len(h) != max(FLAT_STEPS, math.ceil(h.steps / 2)):
        return None
    margin, right = mean(h.last("rewards/margins")), mean(h.last("rewards/accuracies", FLAT_STEPS))
    if not (abs(margin) < FLAT_MARGIN and right < FLAT_ACCURACY):
        return None
    peak = max(h.first("learning_rate", len(h)), default=math.nan)
    return Hint("flat", {"step": len(h), "steps": h.steps, "margin": margin, "accuracy": right, "peak": peak})


def loss_rises(h: History) -> Hint | None:
    """The loss is above its start. A gradient norm at its limit is no sign by itself: AdamW's step does not depend on
    the gradients' scale, and summed log-probs give norms far above 1 in runs that go well."""
    if len(h) < 2 * WINDOW + h.steps // 10:  # a warm-up's first swing is no trend
        return None
    start, now = h.first("loss"), h.last("loss", 2 * WINDOW)
    certain = CERTAIN * math.hypot(error(start), error(now))
    norms = h.last("grad_norm", 2 * WINDOW)
    if not len(norms) or not mean(now) > max(RISEN * mean(start), mean(start) + certain):
        return None
    scaled = float(np.mean(norms > h.max_grad_norm))
    return Hint("loss rises", {"start": mean(start), "now": mean(now), "scaled": scaled})


RULES: tuple[Callable[[History], Hint | None], ...] = (
    both_fall,
    too_easy,
    against_the_labels,
    held_out_reversed,
    ranks_by_length,
    flat,
    loss_rises,
)


class Hints:
    """Hints on one run of `steps` optimizer steps; a resumed run gives it the logged steps before its start first."""

    def __init__(self, steps: int, *, referenced: bool = True, max_grad_norm: float = 1.0):
        self.history = History(steps, referenced, max_grad_norm)
        self.silent = list(RULES)  # those that have seen nothing yet

    def of(self, metrics: Mapping[str, Any]) -> list[Hint]:
        """What is to be said after a step with these metrics; each rule speaks once."""
        self.history.append(metrics)
        seen = {rule: hint for rule in self.silent if (hint := rule(self.history)) is not None}
        self.silent = [rule for rule in self.silent if rule not in seen]
        step = metrics.get("step", len(self.history))
        return [replace(hint, step=step) for hint in seen.values()]
