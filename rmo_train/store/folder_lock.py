"""One command at a time fills a folder: a lock that the kernel gives back when its holder ends, however it ends.

The lock is on a file that names its holder and is removed by it: in the folder that is filled, or beside a folder or
file that is replaced. A file that a killed holder left behind locks nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from rmo_train.console.errors import UserError

LOCK = ".filling"
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
PATIENCE = 0.1  # seconds; a holder that is ending removes its file and then lets go of it


@contextmanager
def one_at_a_time(folder: Path, lock: Path, program: str) -> Iterator[None]:
    """Hold `lock` while `program` fills `folder`; a UserError that names who else does. Where files cannot be locked,
    go on without a lock."""
    taken = _taken(folder, lock, program)
    try:
        yield
    finally:
        if taken is not None:
            with contextlib.suppress(OSError):
                lock.unlink()  # while it is held: who takes it next sees that it is another file
            taken.release()


@contextmanager
def making(out: Path, program: str) -> Iterator[None]:
    """As `one_at_a_time`, of a folder or file that is made and takes its place at once: the lock lies beside it."""
    out = out.resolve()
    with one_at_a_time(out, out.with_name(f".{out.name}{LOCK}"), program):
        yield


def _taken(folder: Path, lock: Path, program: str) -> BaseFileLock | None:
    """The lock, held, our name in its file; None where the file system has no locks or cannot be written to."""
    taken = FileLock(lock, timeout=PATIENCE, poll_interval=PATIENCE / 5, fallback_to_soft=False)
    try:
        taken.acquire()
    except Timeout:
        raise UserError(
            f"{folder}: another {program} ({_holder(lock)}) is writing to this folder; wait until it ends, or give "
            "another --out"
        ) from None
    except OSError as e:
        if e.errno in NO_LOCKS:
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)  # it locks nothing, nobody holds it
        return None
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name
        lock.write_text(f"pid {os.getpid()}, on {socket.gethostname()}\n")
    return taken


def _holder(lock: Path) -> str:
    """What the lock's file says of who holds it."""
    try:
        name = lock.read_text(errors="replace").strip()
    except OSError:
        name = ""
    return name or "its name is not known yet"
