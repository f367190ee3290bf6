"""Detects common training problems from a run's metrics, step by step; `rmo_train.report` has the messages.

A `Hints` receives the metrics of every step and gives each hint at most once. It reads these keys (others are ignored,
and any may be missing):

    loss, rewards/chosen, rewards/rejected, rewards/margins, rewards/accuracies, grad_norm, learning_rate, epoch
    rewards/accuracies_longer    reward accuracy on the batch's pairs whose chosen answer has more tokens
    rewards/accuracies_shorter   the same for fewer tokens; each is missing in a batch without such pairs
    eval/reward_accuracy, eval/length_matched_reward_accuracy    at steps with an evaluation

Rewards are beta x log-ratio to the reference. With `referenced=False` there is no reference: rewards are then beta x
log-prob, whose mean depends on the lengths of a batch's answers, and rules that need a known start are off.
Training generates no answers, so it cannot show that answers grow; but it can show that the policy ranks by length.

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

# Steps to average over: with batches of about 16 pairs, 160 pairs, whose accuracy has a standard error of 0.04.
WINDOW = 10
# Standard errors by which a mean must differ to count; rules are checked at every step, so two are too few.
CERTAIN = 3.0

# In units of reward. At beta 0.1 one unit is 10 nats of an answer; half of that is normal in runs that end well.
FALLEN = 1.0
# Fall of the chosen reward relative to the gain in margin. Below 1, most of the margin comes from the rejected answer.
DISPLACED = 1.0
DISPLACED_STEPS = 2 * WINDOW  # a swing during warm-up is no trend

EASY_LOSS = 0.05  # relative to the loss at the start; for DPO a mean margin of about 3.5

# If labels are consistent, the first ten steps cannot push the margins of later batches this far down.
AGAINST = 0.05
AGAINST_ACCURACY = 0.5
HELD_OUT_REVERSED, TRAINED_WELL = 0.4, 0.6  # accuracies: below chance on held-out pairs, above chance in training

LENGTH_STEPS = 3 * WINDOW  # each kind makes up about half of a batch
LENGTH_GAP = 0.4  # difference in accuracy between pairs whose chosen answer is longer and shorter
# Held-out accuracy minus length-matched accuracy: the contribution of length.
LENGTH_GAP_HELD_OUT = 0.1

FLAT_STEPS = 3 * WINDOW  # shorter runs cannot be judged
FLAT_MARGIN = 0.02  # in units of reward; DPO's loss of 0.69 has then changed by 0.01
FLAT_ACCURACY = 0.6  # with a tiny beta, margins may be tiny but right

RISEN = 1.1  # loss relative to the loss at the start


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
    """A detected problem: the name of its message in `rmo_train.report.HINTS`, and the numbers in it."""

    name: str
    figures: Mapping[str, float] = field(default_factory=dict)
    step: int = 0  # after which it was detected


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
        """The values of the first `count` steps after `skip`, without missing ones."""
        return _present(self.columns[key][skip : skip + count])

    def last(self, key: str, count: int = WINDOW) -> np.ndarray:
        return _present(self.columns[key][-count:])

    def now(self, key: str) -> float:
        return self.columns[key][-1]

    def fall(self, key: str) -> tuple[float, float]:
        """How far a reward's mean is below its start, and the standard error."""
        start = np.zeros(1) if self.referenced else self.first(key)
        return mean(start) - mean(self.last(key)), math.hypot(error(start), error(self.last(key)))


def _present(values: Any) -> np.ndarray:
    column = np.asarray(values, dtype=np.float64)
    return column[np.isfinite(column)]


def mean(values: np.ndarray) -> float:
    """NaN without values: every comparison with NaN is false, so a rule without its keys is off."""
    return float(values.mean()) if len(values) else math.nan


def error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std() / math.sqrt(len(values))) if len(values) else math.nan


# ---------------------------------------------------------------------------------------------------- rules


def both_fall(h: History) -> Hint | None:
    """Chosen answers lose more log-prob than the margin gains: the model moves away from both answers."""
    if len(h) < DISPLACED_STEPS:
        return None
    (chosen, chosen_error), (rejected, rejected_error) = h.fall("rewards/chosen"), h.fall("rewards/rejected")
    fell = chosen > max(FALLEN, CERTAIN * chosen_error) and rejected > max(FALLEN, CERTAIN * rejected_error)
    if not fell or chosen < DISPLACED * (rejected - chosen):
        return None
    return Hint("both fall", {"chosen": -chosen, "rejected": -rejected})


def too_easy(h: History) -> Hint | None:
    """All pairs are right and the loss is near 0 before any pair was seen twice."""
    epoch = h.now("epoch")
    early = epoch <= 1 if math.isfinite(epoch) else len(h) <= h.steps / 2
    right, loss = h.last("rewards/accuracies"), mean(h.last("loss"))
    if not early or len(right) < WINDOW or right.min() < 1 or not loss < EASY_LOSS * abs(mean(h.first("loss", 1))):
        return None
    return Hint("too easy", {"loss": loss})


def against_the_labels(h: History) -> Hint | None:
    """The first margins are all negative: learning from one batch makes the next one worse."""
    if not h.referenced or len(h) <= WINDOW:
        return None
    margins = h.first("rewards/margins", skip=1)  # at the first step, the margin is 0: the policy is the reference
    right = mean(h.first("rewards/accuracies", skip=1))
    if len(margins) < WINDOW or margins.max() >= 0 or mean(margins) > -AGAINST or not right < AGAINST_ACCURACY:
        return None
    return Hint("against the labels", {"count": WINDOW, "margin": mean(margins), "accuracy": right})


def held_out_reversed(h: History) -> Hint | None:
    """Above chance on the training pairs, below chance on the held-out pairs."""
    held_out, trained = h.now("eval/reward_accuracy"), mean(h.last("rewards/accuracies"))
    if not (held_out < HELD_OUT_REVERSED and trained > TRAINED_WELL):
        return None
    return Hint("held out reversed", {"trained": trained, "held_out": held_out})


def ranks_by_length(h: History) -> Hint | None:
    """Right if the chosen answer is longer, wrong if it is shorter: answers will grow."""
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
    """Margins have not changed in half of the run. Checked once; needs a reference, or noise would hide it."""
    if not h.referenced or len(h) != max(FLAT_STEPS, math.ceil(h.steps / 2)):
        return None
    margin, right = mean(h.last("rewards/margins")), mean(h.last("rewards/accuracies", FLAT_STEPS))
    if not (abs(margin) < FLAT_MARGIN and right < FLAT_ACCURACY):
        return None
    peak = max(h.first("learning_rate", len(h)), default=math.nan)
    return Hint("flat", {"step": len(h), "steps": h.steps, "margin": margin, "accuracy": right, "peak": peak})


def loss_rises(h: History) -> Hint | None:
    """The loss is above its start. A clipped gradient norm alone is no sign of trouble: AdamW's step does not depend on
    the scale of gradients, and summed log-probs give norms far above 1 in good runs."""
    if len(h) < 2 * WINDOW + h.steps // 10:  # a swing during warm-up does not count
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
    """Hints for one run of `steps` optimizer steps; a resumed run first replays its logged steps."""

    def __init__(self, steps: int, *, referenced: bool = True, max_grad_norm: float = 1.0):
        self.history = History(steps, referenced, max_grad_norm)
        self.silent = list(RULES)  # rules that have not fired yet

    def of(self, metrics: Mapping[str, Any]) -> list[Hint]:
        """New hints after a step with these metrics; each rule fires once."""
        self.history.append(metrics)
        seen = {rule: hint for rule in self.silent if (hint := rule(self.history)) is not None}
        self.silent = [rule for rule in self.silent if rule not in seen]
        step = metrics.get("step", len(self.history))
        return [replace(hint, step=step) for hint in seen.values()]
