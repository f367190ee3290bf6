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
    """An empty folder to fill, which becomes `out` at the end of the block.

    Where the block or the renaming fails, `out` is what it was and the space is given back; an OSError is said as a
    ProcessingError. UserError where `out` is something else than a `stage` folder, made by the command `made_by`.
    """
    out = out.resolve()  # `.` and links have no name to put a sibling beside
    restore(out)
    refuse_foreign_files(out, stage, made_by)
    with replaced(out) as partial:
        yield partial


def refuse_foreign_files(out: Path, stage: str, made_by: str) -> None:
    """UserError where `out` is anything but a `stage` folder, an empty folder or absent: it is never replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    made = stage_of(out)
    if made == stage:
        return
    kind = f"a {made!r} folder" if made is not None else f"no {MANIFEST} in it"
    raise UserError(
        f"--out {out}: exists and was not made by `{made_by}` ({kind}); "
        "give a new or an empty folder, or one that it made"
    )
