"""Work on a large set, shared out to one process a core: the same function of every batch, answers in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, TypeVar

from rmo_train.console.errors import ProcessingError

WORTH_WORKERS = 20_000  # records; below, workers (1.5 s to start) save less than they cost
MOST_WORKERS = 8  # one reading process does not keep more of them busy
IN_FLIGHT = 2  # batches a worker: one that it is at, one that waits for it

Batch = TypeVar("Batch")
Answer = TypeVar("Answer")


def workers_for(records: int) -> int:
    """Processes for so many records: as many as there are allowed cores, or 1 (this process)."""
    if records < WORTH_WORKERS or not hasattr(os, "sched_getaffinity"):
        return 1
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def in_processes(
    function: Callable[[Batch], Answer], batches: Iterable[Batch], workers: int, what: str, kept: str = ""
) -> Iterator[Answer]:
    """`function` of every batch, in order, in `workers` processes (1: in this one). `batches` is read a few ahead.

    function: of a module, or an object of a class of one; it is sent once. what: a process of these does, and
    what is `kept` when one is ended, in words.
    """
    if workers == 1:
        yield from map(function, batches)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (function,))
    asked: deque[Future[Answer]] = deque()
    processes: list[BaseProcess] = []
    try:
        processes += _started(pool, workers)
        for batch in batches:
            if len(asked) == IN_FLIGHT * workers:
                yield asked.popleft().result()
            asked.append(pool.submit(_answer, batch))
        while asked:
            yield asked.popleft().result()
    except BrokenProcessPool as e:
        raise ProcessingError(
            f"a process that {what} was killed (out of memory?); {kept}run the same command again"
        ) from e
    except BaseException:  # a Ctrl-C, above all: do not wait for what they are at, be it still importing
        for process in processes:
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _started(pool: ProcessPoolExecutor, workers: int) -> list[BaseProcess]:
    """Start the processes, deaf to a Ctrl-C on the terminal: it is for the process that gives the orders."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # they inherit it
    others = multiprocessing.active_children()
    try:
        with _unknown_script():
            for _ in range(workers):
                pool.submit(os.getpid)
        return [p for p in multiprocessing.active_children() if p not in others]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _unknown_script() -> Iterator[None]:
    """New processes import the script that was started; of a user's, which may call us anywhere in it, that would be to
    run it again. They need nothing of it."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


# ---------------------------------------------------------------------------------------------------- in a worker

_function: Callable[[Any], Any]


def _begin(function: Callable[[Any], Any]) -> None:
    """Keep what is to be done, and see to it that this process ends with the one that started it, killed or not."""
    global _function
    _function = function
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


def _answer(batch: Any) -> Any:
    return _function(batch)
