"""`score --shard i/n`: processes that know nothing of each other score one run, each its share of the part files.

For schedulers that start processes and nothing more (Slurm's arrays, SkyPilot), on a file system that all of them see.
`--shard 0/n` reads and renders the pairs; 1/n to n/n fill RUN/shares/<i>-of-<n> with their parts of the reference's and
the checkpoints' scores; the same command without --shard takes these in, computes what is missing and ends the run. So
each process has its own folder, journal and lock, and a killed one is started again.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rmo_curate.runs.run_lock import is_held
from rmo_train.console.errors import UserError

SHARES = "shares"  # in a run folder


@dataclass(frozen=True)
class Share:
    number: int  # 0: the pairs; 1 to `of`: parts
    of: int

    @classmethod
    def parsed(cls, text: str) -> Share:
        """`i/n`; ValueError where it is none."""
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if match is None or int(match[2]) < 1 or int(match[1]) > int(match[2]):
            raise ValueError("expected i/n, such as 1/8 to 8/8, or 0/8 to make the pairs first")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def folder(self, run: Path) -> Path:
        return run / SHARES / f"{self.number}-of-{self.of}"

    def has(self, part: int) -> bool:
        """Whether the part of this number is one of its own."""
        return part % self.of == self.number - 1


def share_folders(run: Path) -> Iterator[Path]:
    yield from sorted(p for p in (run / SHARES).glob("*-of-*") if p.is_dir())


def check_none_at_work(run: Path) -> None:
    """A UserError where a share is being filled: what it has would be taken from under its hands."""
    if working := [folder.name.replace("-of-", "/") for folder in share_folders(run) if is_held(folder)]:
        raise UserError(f"{run}: --shard {', '.join(working)} is still running; wait until it has ended")


def remove_shares(run: Path) -> None:
    if (run / SHARES).is_dir():
        shutil.rmtree(run / SHARES)
