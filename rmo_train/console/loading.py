"""A Ctrl-C while a command is still being loaded: one line and exit code 130, where Python would show a traceback.

It imports next to nothing: what it imports is loaded before it can answer.
"""

from __future__ import annotations

import os
import signal


class Loading:
    """Around imports, which hold nothing to be kept or ended: a Ctrl-C ends the process at once.

    An exception would not do: raised inside a compiled module that is being imported, it comes out as another one, or
    not at all. Where Ctrl-C is ignored (a shell's job in the background) or answered otherwise, that stays so.
    """

    def __enter__(self) -> None:
        self.before = signal.getsignal(signal.SIGINT)
        if self.before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)

    def __exit__(self, *error: object) -> None:
        if self.before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self.before)


def _leave(number: int, frame: object) -> None:
    os.write(2, b"\nstopped before anything was begun\n")
    os._exit(130)  # `Stopped.exit_code`
