"""Replacing a folder: the new one is made beside the old one, and renamed when it is complete.

No reader ever sees a partial folder, and the old folder is moved aside, not deleted, until the new one is in place.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmo_train.console.errors import UserError, cannot_write
from rmo_train.store.files import sync_folder
from rmo_train.store.manifests import MANIFEST, stage_of


@contextmanager
def replacing(out: Path, stage: str, made_by: str) -> Iterator[Path]:
    """An empty folder to fill; it becomes `out` at the end of the block.

    If the block or the renaming fails, `out` stays as it was and the disk space is freed; an OSError becomes a
    ProcessingError. UserError if `out` is anything but a `stage` folder made by the command `made_by`.
    """
    out = out.resolve()  # `.` and links have no name beside which to put a sibling
    restore(out)
    refuse_foreign_files(out, stage, made_by)
    partial, old = _siblings(out)
    try:
        shutil.rmtree(partial, ignore_errors=True)  # left by an interrupted run
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.replace(old)
        partial.replace(out)
        sync_folder(out.parent)
    except OSError as e:
        raise cannot_write(out, e) from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # frees space on a full disk
        restore(out)  # restores the old folder, or removes it


def restore(out: Path) -> None:
    """Restore the folder that a replacement moved aside, if it was interrupted before the new one was in place."""
    _, old = _siblings(out)
    if old.exists() and not out.exists():
        old.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def refuse_foreign_files(out: Path, stage: str, made_by: str) -> None:
    """UserError unless `out` is a `stage` folder, empty or absent: nothing else is ever replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    made = stage_of(out)
    if made == stage:
        return
    kind = f"a {made!r} folder" if made is not None else f"no {MANIFEST} in it"
    raise UserError(
        f"--out {out}: exists, but was not made by `{made_by}` ({kind}); "
        "give a new or empty folder, or one made by this command"
    )


def _siblings(out: Path) -> tuple[Path, Path]:
    """The paths of the new folder while it is made, and of the old one while it is moved aside."""
    return out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.old")
