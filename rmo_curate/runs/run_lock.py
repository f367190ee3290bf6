"""Only one command at a time writes to a run folder. The kernel releases the lock however its holder ends.

The lock is on the file `.filling` in the run folder, which names its holder; the holder removes it. A file left behind
by a killed process is not locked.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from rmo_train.console.errors import UserError

LOCK = ".filling"
PATIENCE = 0.1  # seconds; a holder that ends removes the file first and releases the lock after that


@contextmanager
def only_one(run: Path) -> Iterator[None]:
    """Lock the folder; a UserError names another holder. If the file system has no locks, continue without one."""
    lock = _taken(run)
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                (run / LOCK).unlink()  # while locked, so that the next process notices that the file was replaced
            lock.release()


def check_not_held(run: Path) -> None:
    """A UserError if a command is writing to the folder."""
    if (run / LOCK).is_file():
        with only_one(run):
            pass


def is_held(run: Path) -> bool:
    """Whether a command is writing to the folder."""
    try:
        check_not_held(run)
    except UserError:
        return True
    return False


def _taken(run: Path) -> BaseFileLock | None:
    """Take the lock and write our name to its file; None if the file system has no locks or is read-only."""
    lock = FileLock(run / LOCK, timeout=PATIENCE, poll_interval=PATIENCE / 5, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{run}: another rmo-curate ({_holder(run)}) is writing to this folder; wait until it ends, or give "
            "another --out"
        ) from None
    except OSError:
        return None
    with contextlib.suppress(OSError):  # a full disk: the lock works without a name
        (run / LOCK).write_text(f"pid {os.getpid()}, on {socket.gethostname()}\n")
    return lock


def _holder(run: Path) -> str:
    """The holder of the lock, from its file."""
    try:
        name = (run / LOCK).read_text(errors="replace").strip()
    except OSError:
        name = ""
    return name or "process unknown"
