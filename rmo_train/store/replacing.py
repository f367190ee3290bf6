"""A folder that takes the place of an older one: made beside it and renamed when it is whole.

No reader ever sees half of it, and the older folder is moved away, not deleted, until the new one stands.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmo_train.console.errors import cannot_write
from rmo_train.store.files import sync_folder


@contextmanager
def replaced(out: Path) -> Iterator[Path]:
    """An empty folder to fill, which becomes `out` (resolved) at the end of the block.

    Where the block or the renaming fails, `out` is what it was and the space is given back; an OSError is said as a
    ProcessingError.
    """
    partial, old = _siblings(out)
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a killed run
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.replace(old)
        partial.replace(out)
        sync_folder(out.parent)
    except OSError as e:
        raise cannot_write(out, e) from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # a full disk gets its space back
        restore(out)  # brings the older folder back, or removes it


def restore(out: Path) -> None:
    """Bring back the folder that a replacement moved away, if it was stopped before the new one took its place."""
    _, old = _siblings(out)
    if old.exists() and not out.exists():
        old.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def _siblings(out: Path) -> tuple[Path, Path]:
    """Where a folder is made, and where the one that it replaces waits."""
    return out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.old")
