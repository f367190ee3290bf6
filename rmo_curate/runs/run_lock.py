"""One command at a time fills a run folder: a lock that the kernel gives back when its holder ends, however it ends.

The lock is on the file `.filling` in the run folder, which names its holder and is removed by it. A file that a killed
holder left behind locks nothing.
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
PATIENCE = 0.1  # seconds; a holder that is ending removes its file and then lets go of it


@contextmanager
def only_one(run: Path) -> Iterator[None]:
    """Hold the folder; a UserError that names who else does. Where files cannot be locked, go on without a lock."""
    lock = _taken(run)
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                (run / LOCK).unlink()  # while it is held: who takes it next sees that it is another file
            lock.release()


def check_not_held(run: Path) -> None:
    """A UserError where a command is filling the folder now."""
    if (run / LOCK).is_file():
        with only_one(run):
            pass


def is_held(run: Path) -> bool:
    """Whether a command is filling the folder now."""
    try:
        check_not_held(run)
    except UserError:
        return True
    return False


def _taken(run: Path) -> BaseFileLock | None:
    """The lock, held, our name in its file; None where the file system has no locks or cannot be written to."""
    lock = FileLock(run / LOCK, timeout=PATIENCE, poll_interval=PATIENCE / 5, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{run}: another rmo-curate ({_holder(run)}) is filling this folder; wait until it has ended, or give "
            "another --out"
        ) from None
    except OSError:
        return None
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        (run / LOCK).write_text(f"pid {os.getpid()}, on {socket.gethostname()}\n")
    return lock


def _holder(run: Path) -> str:
    """What the lock's file says of who holds it."""
    try:
        name = (run / LOCK).read_text(errors="replace").strip()
    except OSError:
        name = ""
    return name or "its name is not known yet"
