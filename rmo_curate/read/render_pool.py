"""Pairs to rendered rows, in this process or in one process a core; the rows are the same either way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import pyarrow as pa

from rmo_curate.read.messages import RejectReason
from rmo_curate.read.pair_rendering import full, render_pairs
from rmo_curate.read.readers.record import encodable
from rmo_curate.read.sources import Pair, Reject
from rmo_train.console.errors import ProcessingError
from rmo_train.data.rendering import CallsLeftOut, Rendered, Renderer
from rmo_train.store.files import canonical_json, sha256_text
from rmo_train.store.tables import TOO_LONG

WORTH_WORKERS = 20_000  # records; below, workers (1.5 s to start) save less than they cost
MOST_WORKERS = 8  # one reading process does not keep more of them busy
IN_FLIGHT = 2  # batches a worker: one that it renders, one that waits for it


@dataclass(frozen=True)
class Rows:
    """A batch of pairs, rendered."""

    table: pa.Table  # rows of RUN/pairs, in order, without the refused pairs
    refused: dict[int, Reject]  # place in the batch -> why the template does not render that pair
    flags: Counter[str]
    longest: int  # tokens of the longest pair; 0 without any


@dataclass(frozen=True)
class RowMaker:
    """What turns pairs into rows of RUN/pairs."""

    renderer: Renderer
    schema: pa.Schema
    max_length: int  # tokens of prompt + longer response; a pair over it gets the flag `too_long`

    def __call__(self, pairs: Sequence[Pair]) -> Rows:
        rows, refused = [], {}
        for place, (pair, rendered) in enumerate(zip(pairs, render_pairs(self.renderer, pairs), strict=True)):
            if isinstance(rendered, Rendered):
                rows.append(pair_row(pair, rendered, self.max_length))
            else:
                calls = isinstance(rendered, CallsLeftOut)
                reason = RejectReason.TOOL_CALLS_NOT_RENDERED if calls else RejectReason.BAD_MESSAGES
                refused[place] = Reject(pair.source, pair.line, reason, encodable(str(rendered)), raw_messages(pair))
        flags = Counter(flag for row in rows for flag in row["flags"])
        longest = max((pair_tokens(row) for row in rows), default=0)
        return Rows(pa.Table.from_pylist(rows, schema=self.schema), refused, flags, longest)


def pair_tokens(row: Mapping[str, Any]) -> int:
    """The length of a row of RUN/pairs: tokens of its prompt and its longer response."""
    return len(row["prompt_ids"]) + max(row["chosen_tokens"], row["rejected_tokens"])


def raw_messages(pair: Pair) -> str:
    """The messages of a pair as the data have them."""
    sides = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    return encodable(canonical_json({name: [full(m) for m in side] for name, side in sides.items()}))


def tokens_sha(rendered: Rendered) -> str:
    """Hash of what a model sees of a pair."""
    return sha256_text(canonical_json([rendered.prompt_ids, rendered.chosen_ids, rendered.rejected_ids]))


def pair_row(pair: Pair, rendered: Rendered, max_length: int) -> dict[str, Any]:
    """One row of RUN/pairs; a pair over `max_length` tokens (prompt + longer response) gets the flag `too_long`."""
    longest = len(rendered.prompt_ids) + max(len(rendered.chosen_ids), len(rendered.rejected_ids))
    flags = [*rendered.flags, *([TOO_LONG] if longest > max_length else [])]
    return {
        **pair.extra,
        "id": pair.id,
        "prompt": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "tools": pair.tools,
        "chat_template_kwargs": pair.chat_template_kwargs,
        "prompt_ids": rendered.prompt_ids,
        "chosen_ids": rendered.chosen_ids,
        "rejected_ids": rendered.rejected_ids,
        "tokens_sha": tokens_sha(rendered),
        "chosen_tokens": len(rendered.chosen_ids),
        "rejected_tokens": len(rendered.rejected_ids),
        "flags": flags,
        "source_file": pair.source,
        "source_line": pair.line,
    }


def workers_for(records: int) -> int:
    """Processes that render `records` records: as many as there are allowed cores, or 1 (this process)."""
    if records < WORTH_WORKERS or not hasattr(os, "sched_getaffinity"):
        return 1
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


def rendered(make: RowMaker, batches: Iterable[Sequence[Pair]], workers: int) -> Iterator[Rows]:
    """`make` of every batch, in order, in `workers` processes (1: in this one). `batches` is read a few ahead."""
    if workers == 1:
        yield from map(make, batches)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (make,))
    asked: deque[Future[Rows]] = deque()
    processes: list[BaseProcess] = []
    try:
        processes += _started(pool, workers)
        for batch in batches:
            if len(asked) == IN_FLIGHT * workers:
                yield asked.popleft().result()
            asked.append(pool.submit(_rows, batch))
        while asked:
            yield asked.popleft().result()
    except BrokenProcessPool as e:
        raise ProcessingError(
            "a process that renders pairs was ended from outside (out of memory?); the finished parts are kept: run "
            "the same command again to go on"
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
        for _ in range(workers):
            pool.submit(os.getpid)
        return [p for p in multiprocessing.active_children() if p not in others]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---------------------------------------------------------------------------------------------------- in a worker

_make: RowMaker


def _begin(make: RowMaker) -> None:
    """Keep what renders, and see to it that this process ends with the one that started it, killed or not."""
    global _make
    _make = make
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread a worker
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(0)


def _rows(batch: Sequence[Pair]) -> Rows:
    return _make(batch)
