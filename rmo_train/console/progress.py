"""Progress of long work on standard error: a bar on a terminal, otherwise a log line every `LINE_EVERY` seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from rmo_train.console.wording import counted, inert, noun_for

LINE_EVERY = 20.0  # seconds between two log lines without a terminal


class Progress(Protocol):
    def advance(self, amount: float = 1, note: str = "") -> None: ...


class _Lines:
    def __init__(self, label: str, total: float | None, unit: str, done: float):
        self.label, self.total, self.unit = label, total, unit
        self.done, self.before, self.start = done, done, time.monotonic()
        self.printed = self.start

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.printed >= LINE_EVERY:
            self.printed = now
            say(f"{self.label}: {self._so_far(now)} {note}".rstrip())

    def _so_far(self, now: float) -> str:
        if self.total is None:
            return counted(round(self.done), self.unit)
        total = max(self.total, self.done)  # foreseen too low: no time left, not a negative one
        rate = (self.done - self.before) / (now - self.start)
        left = (total - self.done) / rate if rate else 0
        return f"{self.done:,.0f}/{counted(round(total), self.unit)}, {left:,.0f} s left"

    def close(self) -> None:
        did = counted(round(self.done - self.before), self.unit)
        say(f"{self.label}: {did} in {time.monotonic() - self.start:,.1f} s")


class _Bar:
    def __init__(self, bar: Any, label: str, total: float | None, done: float):
        self.bar, self.total, self.done = bar, total, done
        self.task = bar.add_task(label, total=total, completed=int(done), note="")

    def advance(self, amount: float = 1, note: str = "") -> None:
        self.done += amount
        total = None if self.total is None else max(self.total, self.done)
        self.bar.update(self.task, advance=amount, total=total, note=note)


def say(line: str) -> None:
    """Print one line on standard error; of several processes, only the first one prints."""
    if is_first():
        print(inert(line), file=sys.stderr, flush=True)


def is_first() -> bool:
    """Whether this process is the only one or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def progress(label: str, total: float | None, unit: str, done: float = 0) -> Iterator[Progress]:
    """Follow `total` units of work (None: nobody knows), of which `done` were done by a run before.

    `unit`: a noun in the singular.
    """
    if not sys.stderr.isatty() or not is_first():
        lines = _Lines(label, total, unit, done)
        yield lines
        lines.close()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(noun_for(total or 0, unit)),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with RichProgress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, label, total, done)
