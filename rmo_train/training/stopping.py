"""Ctrl-C and SIGTERM in training: the first asks the loop to save a checkpoint and stop, the second exits at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from rmo_train.console.progress import is_first

SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNHANDLED = (signal.default_int_handler, signal.SIG_DFL)
HEARD = b"\nstopping after this step and saving a checkpoint; press Ctrl-C again to exit at once\n"


class StopRequest:
    """A context around training that records whether a signal asked it to stop.

    Signals that are ignored (a shell's background job) or already handled stay so. Outside the main thread, to which
    Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.heard = False
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) in UNHANDLED:
                    self.before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.heard:
            raise KeyboardInterrupt
        self.heard = True
        if is_first():
            os.write(2, HEARD)  # `print` is not reentrant in a signal handler
