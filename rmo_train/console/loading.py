"""Ctrl-C while a command is still being loaded: prints one line and exits with code 130, without a traceback.

It imports almost nothing, since Ctrl-C during its own imports is not handled.
"""

from __future__ import annotations

import os
import signal


class Loading:
    """A context around imports, when there is nothing to save or clean up: Ctrl-C ends the process at once.

    An exception would not work: raised while a compiled module is being imported, it may be replaced or swallowed. If
    Ctrl-C is ignored (a shell's background job) or already handled, it stays so.
    """

    def __enter__(self) -> None:
        self.before = signal.getsignal(signal.SIGINT)
        if self.before is signal.default_int_handler:
            signal.signal(signal.SIGINT, _leave)

    def __exit__(self, *error: object) -> None:
        if self.before is signal.default_int_handler:
            signal.signal(signal.SIGINT, self.before)


def _leave(number: int, frame: object) -> None:
    os.write(2, b"\nstopped before any work was started\n")
    os._exit(130)  # `Stopped.exit_code`
