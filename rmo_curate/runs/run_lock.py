"""One command at a time fills a run folder: a lock that the kernel gives back when its holder ends, however it ends.

The lock is on the file `.filling` in the run folder, which names its holder and is removed by it. A file that a killed
holder left behind locks nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmo_train.console.errors import UserError

LOCK = ".filling"


@contextmanager
def only_one(run: Path) -> Iterator[None]:
    """Hold the folder; a UserError that names who else does. Where files cannot be locked, go on without a lock."""
    lock = _take(run)
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                (run / LOCK).unlink()  # while it is held: who takes it next sees that it is another file
            os.close(lock)


def check_not_held(run: Path) -> None:
    """A UserError where a command is filling the folder now."""
    if (run / LOCK).is_file():
        with only_one(run):
            pass


def _take(run: Path) -> int | None:
    """The locked file, with our name in it; None where the file system has no locks or cannot be written to."""
    path = run / LOCK
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), path.stat()):
                break
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
            os.close(lock)
            raise UserError(
                f"{run}: another rmo-curate ({holder or 'its name is not known yet'}) is filling this folder; wait "
                "until it has ended, or give another --out"
            ) from None
        except FileNotFoundError:  # its last holder removed it between our two calls
            pass
        except OSError:
            os.close(lock)
            return None
        os.close(lock)
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"pid {os.getpid()}, on {socket.gethostname()}\n".encode(), 0)
    return lock
