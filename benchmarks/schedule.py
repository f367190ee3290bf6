"""Runs tasks in order in several processes, as many as fit into the time.

A task is done when its file exists, so an interrupted run resumes where it stopped. A task starts only if the longest
one of its kind so far would still finish in time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmo_train.console.progress import say

POLL = 1.0  # seconds between two looks at the clock


@dataclass(frozen=True)
class Task:
    """A call `work(task)` in some process, which writes `out`; it waits for the files of `needs`."""

    name: str
    kind: str
    out: Path
    needs: tuple[Path, ...]
    payload: Any

    @property
    def ready(self) -> bool:
        return all(path.exists() for path in self.needs)


class Schedule:
    """Runs tasks until they are done or the time is up; `minutes` None: as long as it takes.

    `begin(*given)` prepares a process before its first task; with one worker, this process.
    """

    def __init__(self, workers: int, minutes: float | None, begin: Callable[..., None], given: tuple[Any, ...] = ()):
        self.workers, self.begin, self.given = workers, begin, given
        self.start = time.monotonic()
        self.deadline = float("inf") if minutes is None else self.start + 60 * minutes
        self.longest: dict[str, float] = {}  # seconds of the longest task of a kind
        self.failed: dict[str, str] = {}
        self.pool: ProcessPoolExecutor | None = None
        if workers == 1:
            begin(*given)

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def fits(self, task: Task) -> bool:
        return self.longest.get(task.kind, 0.0) < self.left

    def settled(self, tasks: Sequence[Task]) -> bool:
        """Whether each of `tasks` is done, or failed."""
        return all(t.out.exists() or t.name in self.failed for t in tasks)

    def run(self, tasks: Sequence[Task], work: Callable[[Task], None]) -> None:
        """Run `tasks`, the first ones first."""
        waiting = [t for t in dict.fromkeys(tasks) if not t.out.exists() and t.name not in self.failed]
        if self.workers == 1:
            self._alone(waiting, work)
        else:
            while waiting:  # a process that is killed from outside takes the pool with it: the other tasks go on
                waiting = self._pooled(waiting, work)

    def _alone(self, waiting: list[Task], work: Callable[[Task], None]) -> None:
        for task in waiting:
            if not task.ready or not self.fits(task):
                continue
            start = time.monotonic()
            try:
                work(task)
            except Exception as e:  # one cell's failure is recorded, the others go on
                self._fail(task, e)
            else:
                self._done(task, time.monotonic() - start)

    def _pooled(self, waiting: list[Task], work: Callable[[Task], None]) -> list[Task]:
        """Run what fits; returns the tasks to go on with in a new pool."""
        if self.pool is None:
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(self.workers, spawn, self.begin, self.given)
        running: dict[Future[None], tuple[Task, float]] = {}
        while True:
            while len(running) < self.workers:
                task = next((t for t in waiting if t.ready and self.fits(t)), None)
                if task is None:
                    break
                waiting.remove(task)
                running[self.pool.submit(work, task)] = (task, time.monotonic())
            if not running:
                return []  # all done, or what is left does not fit or waits for what failed
            done, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in done:
                task, start = running.pop(future)
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    lost = [task, *(t for t, _ in running.values())]
                    self.failed |= {t.name: "its process was killed" for t in lost}
                    say(f"a process was killed while it ran one of: {', '.join(t.name for t in lost)}")
                    self.close()
                    return waiting
                if error is not None:
                    self._fail(task, error)
                else:
                    self._done(task, time.monotonic() - start)
            if self.left <= 0:
                say(f"the time is up: stopping {', '.join(t.name for t, _ in running.values())}")
                self.close()
                return []

    def close(self) -> None:
        """End the processes at once; finished tasks are on disk."""
        if self.pool is not None:
            for process in multiprocessing.active_children():
                process.terminate()
            self.pool.shutdown(wait=False, cancel_futures=True)
            self.pool = None

    def _done(self, task: Task, seconds: float) -> None:
        self.longest[task.kind] = max(seconds, self.longest.get(task.kind, 0.0))
        say(f"{time.monotonic() - self.start:5.0f} s  {task.name}: {seconds:.1f} s")

    def _fail(self, task: Task, error: BaseException) -> None:
        self.failed[task.name] = f"{type(error).__name__}: {error}"
        say(f"{task.name} failed: {self.failed[task.name]}")
