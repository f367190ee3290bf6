"""`--report-to`: sends the lines of a run's record to TensorBoard, Weights & Biases or Trackio.

This module decides where they write, and keeps their errors from stopping training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Self

from rmo_train.console.errors import UserError
from rmo_train.console.progress import say

TrackerName = Literal["none", "tensorboard", "wandb", "trackio"]  # also the names of the packages
PROJECT = "rmo"


class Trackers:
    """Open trackers; a context manager that finishes them. Without any, `log` does nothing."""

    def __init__(self, opened: Mapping[str, Any]):
        self.opened = dict(opened)

    def log(self, line: Mapping[str, Any]) -> None:
        """Send the finite numbers of a line of the record."""
        numbers = {k: v for k, v in line.items() if isinstance(v, int | float) and math.isfinite(v)}
        step = numbers.pop("step")
        for name, tracker in list(self.opened.items()):
            try:
                tracker.log(numbers, step=step)
            except Exception as e:  # any error of a service: an outage must not stop the run
                del self.opened[name]
                say(f"{name}: {e}; from step {step} on, metrics are logged to metrics.jsonl only")

    def finish(self) -> None:
        for name, tracker in self.opened.items():
            try:
                tracker.finish()
            except Exception as e:  # as above
                say(f"{name}: {e}; it may lack the last steps, which are in metrics.jsonl")
        self.opened = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()


class Board:
    """TensorBoard with the interface of the other services' runs."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], first_step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=first_step + 1)
        # As text: TensorBoard's own hyperparameters would show as a second run.
        self.writer.add_text("settings", f"```json\n{json.dumps(dict(settings), indent=2, default=str)}\n```", 0)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for key, value in numbers.items():
            self.writer.add_scalar(key, value, step)
        self.writer.flush()

    def finish(self) -> None:
        self.writer.close()


def require_trackers(names: Sequence[str]) -> None:
    """UserError with the install command if a tracker's package is missing."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                f"--report-to {name}: the package {name} is not installed; run `pip install {name}`, or leave out the "
                "flag (metrics.jsonl is always written)"
            )


def open_trackers(names: Sequence[str], out: Path, settings: Mapping[str, Any], first_step: int = 0) -> Trackers:
    """The trackers `names` for the run in the folder `out`, each with the run's settings; on one process only.

    `first_step`: finished steps of a resumed run; TensorBoard drops what the interrupted run logged after them.
    """
    if not names:
        return Trackers({})
    return Trackers({name: _open(name, out, settings, first_step) for name in names})


def _open(name: str, out: Path, settings: Mapping[str, Any], first_step: int) -> Any:
    plain = {k: v if isinstance(v, bool | int | float | str | None) else str(v) for k, v in settings.items()}
    try:
        if name == "tensorboard":
            return Board(out / name, settings, first_step)
        if name == "wandb":
            import wandb

            return wandb.init(project=PROJECT, name=out.name, dir=str(out), config=plain)
        import trackio

        return trackio.init(project=PROJECT, name=out.name, config=plain)
    except Exception as e:  # not logged in, no network, a read-only folder: found before training starts
        raise UserError(
            f"--report-to {name}: cannot start it ({e}), so nothing was trained; fix the cause, or leave out the flag"
        ) from e
