"""`--report-to`: the lines of a run's record to TensorBoard, Weights & Biases or Trackio.

The trackers are accelerate's; what is here decides where they write, and that none of them can end a training.
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
        """Send what of a line of the record is a finite number."""
        numbers = {k: v for k, v in line.items() if isinstance(v, int | float) and math.isfinite(v)}
        step = numbers.pop("step")
        for name, tracker in list(self.opened.items()):
            try:
                tracker.log(numbers, step=step)
            except Exception as e:  # a service's own errors: an outage must not cost the hours of a run
                del self.opened[name]
                say(f"{name}: {e}; step {step} and those after it are in metrics.jsonl alone")

    def finish(self) -> None:
        for name, tracker in self.opened.items():
            try:
                tracker.finish()
            except Exception as e:  # as above
                say(f"{name}: {e}; its record may lack the last steps, which metrics.jsonl has")
        self.opened = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()


def require_trackers(names: Sequence[str]) -> None:
    """UserError naming the command that installs a tracker's package where it is missing."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(
                f"--report-to {name}: the package {name} is not installed; run `pip install {name}`, or leave the flag "
                "out: metrics.jsonl is always written"
            )


def open_trackers(names: Sequence[str], out: Path, settings: Mapping[str, Any], first_step: int = 0) -> Trackers:
    """The trackers `names` of the run in the folder `out`, each with the run's settings; on one process only.

    `first_step`: finished steps of a resumed run; TensorBoard forgets what an interrupted run logged after them.
    """
    if not names:
        return Trackers({})
    from accelerate import PartialState

    PartialState()  # accelerate's logging asks for it
    return Trackers({name: _open(name, out, settings, first_step) for name in names})


def _open(name: str, out: Path, settings: Mapping[str, Any], first_step: int) -> Any:
    from accelerate import tracking

    try:
        if name == "tensorboard":
            tracker: Any = tracking.TensorBoardTracker(name, out, purge_step=first_step + 1)
        elif name == "wandb":
            tracker = tracking.WandBTracker(PROJECT, name=out.name, dir=str(out))
        else:
            tracker = tracking.TrackioTracker(PROJECT, name=out.name)
        tracker.start()
        if name == "tensorboard":  # its own record of settings would be a second run in the board
            tracker.log({"settings": "```json\n" + json.dumps(dict(settings), indent=2, default=str) + "\n```"}, step=0)
        else:
            plain = {k: v if isinstance(v, bool | int | float | str | None) else str(v) for k, v in settings.items()}
            tracker.store_init_configuration(plain)
        return tracker
    except Exception as e:  # not logged in, no network, a folder that cannot be written: before anything is trained
        raise UserError(f"--report-to {name}: cannot be opened ({e}); nothing was trained") from e
