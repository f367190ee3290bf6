"""Ctrl-C and SIGTERM in training: the first asks the loop to save a checkpoint and stop, the second leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

from rmo_train.console.progress import is_first

SIGNALS = (signal.SIGINT, signal.SIGTERM)
UNHANDLED = (signal.default_int_handler, signal.SIG_DFL)
HEARD = b"\nstopping: this step is finished and a checkpoint saved; Ctrl-C again leaves at once\n"


class StopRequest:
    """Around training: whether a signal asked it to stop.

    What ignores a signal (a shell's job in the background) or answers it in another way keeps doing so, and so does a
    thread beside the main one, to which Python gives no signals.
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
            os.write(2, HEARD)  # `print` must not be entered again from a signal
