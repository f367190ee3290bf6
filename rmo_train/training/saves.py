"""When a run saves a checkpoint: every N steps, every N minutes, and when asked to stop.

Checkpoints of `--save-steps` are kept after the run. All others serve only for resuming and are removed at the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wish:
    """One process's request after the current step. It is sent along with the process's part of the batch, so that all
    processes decide alike without an extra synchronisation."""

    save: bool  # the time is up, by this process's clock
    stop: bool  # this process was asked to stop


@dataclass(frozen=True)
class Decision:
    """The decision after a step."""

    save: bool
    stays: bool  # the checkpoint is one of --save-steps, and kept
    stop: bool


class Saves:
    """The saves of one run: `steps` (None: none by step) and `minutes` (0: none by time) between saves.

    `clock` returns seconds; `told` returns whether this process was asked to stop.
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
        """The common decision after `step` of `last`: by the first process's clock; a request to any process stops all.

        After the last step the model itself is written, so no checkpoint is saved unless the run is asked to stop.
        """
        stop = any(wish.stop for wish in wishes)
        stays = self.steps is not None and step % self.steps == 0
        due = (stays or wishes[0].save) and step < last
        return Decision(due or stop, stays, stop)

    def saved(self) -> None:
        """A checkpoint was written: restart the clock."""
        self.saved_at = self.clock()
