"""When a run saves a checkpoint: every so many steps, every so many minutes, and when it is told to stop.

A checkpoint of `--save-steps` stays when the run has ended. Every other one is there to resume from, and goes then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """What one process wants after the step at hand. It travels with the process's part of the batch, so that all
    processes decide alike and none of them waits once more."""

    save: bool  # the minutes are over, by this process's clock
    stop: bool  # it was told to stop


@dataclass(frozen=True)
class Decision:
    """What is done after a step."""

    save: bool
    stays: bool  # the checkpoint is one of --save-steps
    stop: bool


class Saves:
    """The saves of one run: `steps` (None: none by step) and `minutes` (0: none by time) between two of them.

    `clock` gives seconds; `told` says whether this process was told to stop.
    """

    def __init__(
        self,
        steps: int | None = None,
        minutes: float = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[], bool] = lambda: False,
    ):
        self.steps, self.seconds = steps, 60 * minutes
        self.clock, self.told = clock, told
        self.saved_at = clock()

    def wish(self) -> Wish:
        over = self.seconds > 0 and self.clock() - self.saved_at >= self.seconds
        return Wish(over, self.told())

    def decide(self, step: int, last: int, wishes: Sequence[Wish]) -> Decision:
        """What all processes do after `step` of `last`. The first one's clock counts; any of them may be told to stop.

        After the last step the model itself is written, so nothing is saved there but for a stop.
        """
        stop = any(wish.stop for wish in wishes)
        stays = self.steps is not None and step % self.steps == 0
        due = (stays or wishes[0].save) and step < last
        return Decision(due or stop, stays, stop)

    def saved(self) -> None:
        """A checkpoint was written: the minutes start again."""
        self.saved_at = self.clock()
