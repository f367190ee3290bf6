"""What a training run leaves of each step: a line of metrics.jsonl, trackers, and hints where it goes wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmo_train.console.progress import say
from rmo_train.store.tables import append_line, write_bytes
from rmo_train.training.checkpoint import METRICS, read_metrics
from rmo_train.training.hints import Hints
from rmo_train.training.trackers import Trackers


class Record:
    """The record of one run in the folder `out`, kept by its main process."""

    def __init__(
        self, out: Path, logging_steps: int = 1, *, hints: Hints | None = None, trackers: Trackers | None = None
    ):
        self.out, self.logging_steps = out, logging_steps
        self.hints, self.trackers = hints, trackers or Trackers({})

    def rewind(self, step: int) -> None:
        """Go back to `step`: lines after it are forgotten, so that none is ever logged twice."""
        kept = [line for line in read_metrics(self.out) if line["step"] <= step]
        write_bytes(self.out / METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode())
        if self.hints is not None:
            for line in kept:
                self.hints.of(line)  # said already, before the run was interrupted

    def add(self, step: int, metrics: Mapping[str, Any], *, due: bool = False) -> None:
        """A step's metrics: logged every `logging_steps`, or when `due`."""
        line = {"step": step, **metrics}
        if due or step % self.logging_steps == 0:
            append_line(self.out / METRICS, json.dumps(line))
            self.trackers.log(metrics, step)
        for hint in self.hints.of(line) if self.hints is not None else ():
            say(hint)
