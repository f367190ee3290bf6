"""One command at a time fills a run folder: `rmo_train.store.folder_lock` on the file `.filling` in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmo_train.console.errors import UserError
from rmo_train.store.folder_lock import LOCK, one_at_a_time


@contextmanager
def only_one(run: Path) -> Iterator[None]:
    """Hold the folder; a UserError that names who else does. Where files cannot be locked, go on without a lock."""
    with one_at_a_time(run, run / LOCK, "rmo-curate"):
        yield


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
