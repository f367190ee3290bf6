"""A folder that takes the place of an older one of its own kind (`rmo_train.store.replacing`), and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmo_train.console.errors import UserError
from rmo_train.store.manifests import MANIFEST, stage_of
from rmo_train.store.replacing import replaced, restore


@contextmanager
def replacing(out: Path, stage: str, made_by: str) -> Iterator[Path]:
    """An empty folder to fill; it becomes `out` at the end of the block.

    If the block or the renaming fails, `out` stays as it was and the disk space is freed; an OSError becomes a
    ProcessingError. UserError if `out` is anything but a `stage` folder made by the command `made_by`.
    """
    out = out.resolve()  # `.` and links have no name beside which to put a sibling
    restore(out)
    refuse_foreign_files(out, stage, made_by)
    with replaced(out) as partial:
        yield partial


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
