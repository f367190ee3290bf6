"""The record of a training run: one line of metrics per logged step, in metrics.jsonl.

`log_history` in trainer_state.json, the trackers, the charts and the choice of the best checkpoint are made from these
lines. Only hints see every step, logged or not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rmo_train.console.progress import say
from rmo_train.report import hint_line
from rmo_train.store.files import append_line, write_bytes
from rmo_train.training.hints import Hints
from rmo_train.training.trackers import Trackers

METRICS = "metrics.jsonl"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The logged lines of a run's folder, without a line cut short by a kill."""
    path = folder / METRICS
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def series(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """(step, value) of the lines that have a finite number for `key`."""
    known = [(line["step"], line[key]) for line in lines if isinstance(line.get(key), int | float)]
    return [(step, float(value)) for step, value in known if math.isfinite(value)]


class Record:
    """The record of one run in the folder `out`, written by its main process."""

    def __init__(
        self, out: Path, logging_steps: int = 1, *, hints: Hints | None = None, trackers: Trackers | None = None
    ):
        self.out, self.logging_steps = out, logging_steps
        self.hints, self.trackers = hints, trackers or Trackers({})

    def rewind(self, step: int) -> None:
        """Go back to `step`: removes later lines, so that no step is logged twice."""
        kept = [line for line in read_metrics(self.out) if line["step"] <= step]
        write_bytes(self.out / METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode())
        if self.hints is not None:
            for line in kept:
                self.hints.of(line)  # discarded: printed before the interruption

    def add(self, step: int, metrics: Mapping[str, Any], *, due: bool = False) -> None:
        """Record a step's metrics: logged every `logging_steps`, or if `due`."""
        line = {"step": step, **metrics}
        if due or step % self.logging_steps == 0:
            append_line(self.out / METRICS, json.dumps(line))
            self.trackers.log(line)
        for hint in self.hints.of(line) if self.hints is not None else ():
            say(hint_line(hint))
