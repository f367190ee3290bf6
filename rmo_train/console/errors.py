"""Errors with an exit code, which a command line prints instead of a traceback.

Exit codes: 0 done · 2 the user's input or settings · 3 processing failed after retries ·
1 a defect of ours (any other exception, with its traceback) · 130 stopped by the user.
"""

from __future__ import annotations

import difflib
import errno
import shutil
from collections.abc import Iterable
from pathlib import Path


class RmoError(Exception):
    """Base of every expected failure; `exit_code` is the process's exit status."""

    exit_code = 1


class UserError(RmoError):
    """A mistake in the user's input or settings: says what was found, where, what was expected and how to fix it."""

    exit_code = 2


class ProcessingError(RmoError):
    """Processing failed for some part after retries (out of memory, a full disk, a dead engine)."""

    exit_code = 3


class Stopped(RmoError):
    """Ctrl-C: says what is kept and how to resume."""

    exit_code = 130


FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "your disk quota is used up",
    errno.EFBIG: "the file is larger than this system allows (a limit set with `ulimit -f`?)",
}
# What a disk, a network or a right does to a file: no defect of ours, and mostly gone when it is tried again.
OF_THE_MACHINE = {
    *FULL, errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.EPERM, errno.ETIMEDOUT, errno.ENODEV,
    errno.EMFILE, errno.ENFILE, errno.EHOSTDOWN, errno.ENOTCONN,
}  # fmt: skip


def of_the_machine(error: OSError) -> ProcessingError:
    """What to say of a failure of the file system that no command has words of its own for."""
    path = Path(error.filename) if isinstance(error.filename, str) else Path()
    if error.errno in FULL:
        return cannot_write(path, error)
    where = f"{path}: " if error.filename else ""
    return ProcessingError(
        f"{where}{error.strerror or error}. Finished work is kept: check that the disk is there and that you may read "
        "and write it, then run the same command again to resume"
    )


def cannot_write(path: Path, error: OSError, needed: int | None = None) -> ProcessingError:
    """The error for a file or folder that could not be written; for a full disk with sizes. `needed`: bytes."""
    if error.errno not in FULL:
        return ProcessingError(f"cannot write {path}: {error.strerror or error}; check that you may write there")
    there, free = free_space(path)
    said = f"cannot write {path}: {FULL[error.errno]}"
    said += f"; it needs {size_text(needed)} and " if needed is not None else "; "
    said += f"{size_text(free)} is free on the disk of {there}"
    return ProcessingError(f"{said}. Finished work is kept: free some space and run the same command again to resume")


def first_line(error: BaseException) -> str:
    """The first line of another library's error, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def misfit(error: Exception) -> str:
    """Why a value read from a file does not have the expected fields."""
    return f"no field {error}" if isinstance(error, KeyError) else first_line(error)


def free_space(path: Path) -> tuple[Path, int]:
    """The folder on whose disk `path` is or will be, and the bytes that are free there."""
    there = next((p for p in (path, *path.parents) if p.exists()), Path("/"))
    return there, shutil.disk_usage(there).free


def size_text(n: int) -> str:
    """A number of bytes in readable units."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return f"{n} bytes"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint `; did you mean 'x'?` naming the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
