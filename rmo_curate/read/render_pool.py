"""Pairs to rendered rows, in this process or in one process a core; the rows are the same either way.

`python -m rmo_curate.read.render_pool FD…` is what the pool starts: a nursery that loads the tokenizer once and forks a
worker for every socket, so that the workers share its memory. A worker lives as long as its socket: when the process
at the other end is gone, killed or not, so is the worker.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from rmo_curate.read.messages import RejectReason
from rmo_curate.read.pair_rendering import full, render_pairs
from rmo_curate.read.readers.record import encodable
from rmo_curate.read.sources import Pair, Reject
from rmo_train.console.errors import ProcessingError
from rmo_train.data.rendering import Rendered, Renderer
from rmo_train.store.tables import canonical_json, sha256_text

TOO_LONG = "too_long"
WORTH_WORKERS = 20_000  # records; below, workers (1.5 s to start) save less than they cost
MOST_WORKERS = 8  # one reading process does not keep more of them busy
IN_FLIGHT = 2  # batches a worker: one that it renders, one that waits for it


@dataclass(frozen=True)
class Rows:
    """A batch of pairs, rendered."""

    table: pa.Table  # rows of RUN/pairs, in order, without the refused pairs
    refused: dict[int, Reject]  # place in the batch -> why the template does not render that pair
    flags: Counter[str]


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
                reason = RejectReason.BAD_MESSAGES
                refused[place] = Reject(pair.source, pair.line, reason, encodable(str(rendered)), raw_messages(pair))
        flags = Counter(flag for row in rows for flag in row["flags"])
        return Rows(pa.Table.from_pylist(rows, schema=self.schema), refused, flags)


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
    with _workers(make, workers) as links:
        asked: deque[Connection] = deque()
        for number, batch in enumerate(batches):
            if len(asked) == IN_FLIGHT * workers:
                yield _answer(asked.popleft())
            link = links[number % workers]
            try:
                link.send(batch)
            except OSError as e:
                raise _worker_died() from e
            asked.append(link)
        while asked:
            yield _answer(asked.popleft())


def _answer(link: Connection) -> Rows:
    """The next answer of a worker: its rows, or the exception that it met."""
    try:
        found = link.recv()
    except (EOFError, OSError) as e:
        raise _worker_died() from e
    if isinstance(found, BaseException):
        raise found
    return found


def _worker_died() -> ProcessingError:
    return ProcessingError(
        "a process that renders pairs was ended from outside (out of memory?); the finished parts are kept: run the "
        "same command again to go on"
    )


@contextmanager
def _workers(make: RowMaker, n: int) -> Iterator[list[Connection]]:
    """A connection to each of n workers. They end when it is closed, whatever becomes of this process."""
    pipes = [Pipe() for _ in range(n)]
    ends = [theirs.fileno() for _, theirs in pipes]
    nursery = subprocess.Popen(
        [sys.executable, "-m", "rmo_curate.read.render_pool", *map(str, ends)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=ends,
        process_group=0,  # a Ctrl-C on the terminal is for the process that gives the orders
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},  # one thread a worker
    )
    for _, theirs in pipes:
        theirs.close()
    links = [ours for ours, _ in pipes]
    try:
        assert nursery.stdin is not None
        try:
            pickle.dump(make, nursery.stdin)
            nursery.stdin.close()
        except OSError as e:
            raise _worker_died() from e
        yield links
    finally:
        for link in links:
            link.close()
        try:
            nursery.wait(timeout=5)
        except subprocess.TimeoutExpired:  # still importing, with nobody to work for
            nursery.kill()
            nursery.wait()


# ---------------------------------------------------------------------------------------------------- in the nursery


def _nurse(ends: Sequence[int]) -> None:
    """Load what renders, fork a worker for every socket and wait for them."""
    make: RowMaker = pickle.load(sys.stdin.buffer)
    for end in ends:
        if os.fork() == 0:
            for other in ends:
                if other != end:
                    os.close(other)
            _serve(make, Connection(end))
    for end in ends:
        os.close(end)
    for _ in ends:
        os.wait()


def _serve(make: RowMaker, link: Connection) -> None:
    """Answer batches until the other end is closed."""
    batches: queue.Queue[Sequence[Pair]] = queue.Queue()

    def receive() -> None:
        """In a thread of its own: the asking process never waits to send, so neither waits for the other for ever."""
        try:
            while True:
                batches.put(link.recv())
        except (EOFError, OSError):
            os._exit(0)

    threading.Thread(target=receive, daemon=True).start()
    while True:
        batch = batches.get()
        try:
            answer: Rows | Exception = make(batch)
        except Exception as e:  # raised again where the work was asked for
            answer = e
        try:
            link.send(answer)
        except OSError:
            os._exit(0)


if __name__ == "__main__":
    _nurse([int(end) for end in sys.argv[1:]])
