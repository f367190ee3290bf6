"""Workers on one machine or a cluster, on Ray: each loads a model once and computes the parts that it is handed.

Ray finds a place for every worker, starts its process, carries arrays there and back and tells when one is gone. Which
part is computed when, and what a failure costs, is decided here, since a part must not wait for a place: a worker that
dies is replaced by a new one, wherever Ray has room, and its part goes to whoever is free first.
"""

from __future__ import annotations

import logging
import os
import socket
import statistics
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from rmo_curate.score.crew import Advance, Alone, Answer, Crew, Job, Loads, Part, compute, describe
from rmo_curate.score.engines.base import Engine
from rmo_curate.score.placement import Placement
from rmo_curate.score.run_folder import WORKING
from rmo_curate.score.settings import WorkerSettings
from rmo_train.console.errors import ProcessingError, RmoError, UserError, first_line
from rmo_train.console.extras import install_command
from rmo_train.console.progress import say
from rmo_train.console.trust import Trust, grant, granted
from rmo_train.data.pairs import PairData
from rmo_train.store.files import write_json

LOGS = "logs"  # in a run folder: what engines and workers print
TRIES = 3  # of a part; the last error is what the user reads
SLOW = 4.0  # times the median of the parts before: then an idle worker computes the part, too
ANSWER_SECONDS = 10.0  # for a cluster's address to answer
HEARTBEAT = 2.0  # seconds between two looks at the clock


def require_ray(settings: WorkerSettings) -> None:
    if settings.hires and find_spec("ray") is None:
        flag = "--workers" if settings.ray is None else "--ray"
        raise UserError(f"{flag}: Ray is not installed; run `{install_command('ray')}`, or leave the flag out")
    if settings.ray is not None:
        _require_answer(settings.ray)


def _require_answer(address: str) -> None:
    """Something listens at HOST:PORT, found out before the data are read; names such as `auto` are left to Ray."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as e:  # nobody there; no port; no name
        raise _no_cluster(address, e) from e


def _no_cluster(address: str, why: Exception) -> UserError:
    return UserError(
        f"--ray {address}: no Ray cluster found there ({first_line(why)}); expected the address that "
        "`ray start --head` printed, or `auto` on a machine of the cluster"
    )


@contextmanager
def hired(settings: WorkerSettings, run: Path, gpus_each: int = 1) -> Iterator[Crew]:
    """The crew that the settings ask for, sent home at the end. Ray starts with the first part.

    gpus_each: that a model is split over.
    """
    if not settings.hires:
        yield Alone()
        return
    crew = RayCrew(settings.workers or "auto", settings.ray, run, gpus_each)
    try:
        yield crew
    finally:
        crew.close()


# ---------------------------------------------------------------------------------------------------- in a worker


class Worker:
    """What runs in a worker's process: the engine that it was last asked for stays loaded."""

    def __init__(self, trust: Trust) -> None:
        grant(trust)
        self.spec: Loads | None = None
        self.engine: Engine | None = None

    def place(self) -> tuple[str, int]:
        """(host, process id): asked first, and answered when the process is up."""
        return os.uname().nodename, os.getpid()

    def compute(self, spec: Loads, part: Part) -> Answer:
        return compute(self._loaded(spec), part)

    def describe(self, spec: Loads, sample: PairData) -> Answer:
        return describe(self._loaded(spec), sample)

    def call(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.engine = self.spec = None  # its memory is the function's
        function(*arguments)

    def _loaded(self, spec: Loads) -> Engine:
        if self.engine is None or spec != self.spec:
            self.engine = None  # free before the next one is loaded
            self.engine, self.spec = spec.load(), spec
        return self.engine


# ---------------------------------------------------------------------------------------------------- in the driver


@dataclass
class Task:
    """One thing to be done by some worker."""

    name: str  # for people: the part's file, say
    method: str  # of `Worker`
    arguments: Callable[[], tuple[Any, ...]]  # made when it is handed out: what waits takes no memory
    pairs: int = 0  # that are done with it
    failures: int = 0
    done: bool = False


@dataclass
class Hand:
    """A worker as the driver sees it."""

    actor: Any
    number: int
    where: str = "starting"  # then host:pid
    task: Task | None = None
    since: float = field(default_factory=time.monotonic)


class RayCrew:
    """Workers that are started once, for all stages of a command."""

    def __init__(self, workers: int | Literal["auto"], address: str | None, run: Path, gpus_each: int = 1):
        self.asked, self.address, self.run_folder, self.gpus_each = workers, address, run, gpus_each
        self.hands: dict[Any, Hand] = {}  # by the reference of the answer that is awaited of each
        self.free: list[Hand] = []
        self.hired = 0
        self.started = False
        self.reported = 0.0

    # ------------------------------------------------------------------------------------------------ coming, going

    def _start(self) -> None:
        import ray

        if self.started:
            return
        self.started = True
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self.address is None:
            quiet["include_dashboard"] = False
        try:
            ray.init(address=self.address or "local", **quiet)
        except Exception as e:  # of many kinds, the plain one among them
            if self.address is not None:
                raise _no_cluster(self.address, e) from e
            raise ProcessingError(
                f"--workers {self.asked}: Ray did not start here ({first_line(e)}); the machine may be too busy or "
                "short of memory: run the same command again, or without --workers"
            ) from e
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        placed = Placement.of(machines, self.asked, self.gpus_each, one_machine=self.address is None)
        self.needs = placed.needs
        say(placed.line)
        for _ in range(placed.workers):
            self._hire()

    def _hire(self) -> None:
        """One worker more, as soon as there is room for it."""
        import ray

        actor: Any = ray.remote(Worker).options(**self.needs).remote(granted())  # Ray gives it one thread
        self.hired += 1
        self.hands[actor.place.remote()] = Hand(actor, self.hired)

    def close(self) -> None:
        if self.started:
            import ray

            ray.shutdown()
        (self.run_folder / WORKING).unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------ working

    def run(self, jobs: Sequence[Job], advance: Advance) -> Iterator[Answer]:
        yield from self._done(tasks_of(jobs), advance)

    def each(self, function: Callable[..., None], calls: Iterable[tuple[Any, ...]]) -> None:
        tasks = (Task(f"{function.__name__} {n}", "call", partial(call_of, function, c)) for n, c in enumerate(calls))
        for _ in self._done(tasks, lambda pairs: None):
            pass

    def _done(self, tasks: Iterable[Task], advance: Advance) -> Iterator[Any]:
        """The answers to the tasks, as they come."""
        self._start()
        waiting = deque(tasks)
        left = len(waiting)
        failed: list[Task] = []
        took: list[float] = []
        while left:
            self._hand_out(waiting, took)
            for hand, answer in self._answers():
                task, hand.task = hand.task, None
                if isinstance(answer, Exception):
                    if task is not None and not task.done and self._lost(task, answer, waiting):
                        failed.append(task)
                        left -= 1
                elif task is not None and not task.done:
                    task.done, left = True, left - 1
                    took.append(time.monotonic() - hand.since)
                    advance(task.pairs)
                    self._hand_out(waiting, took)  # before the answer is written: nobody waits for the disk
                    yield answer
        if failed:
            raise ProcessingError(self._failure(failed))

    def _hand_out(self, waiting: deque[Task], took: Sequence[float]) -> None:
        """A task for every free worker: one that waits, else one that another worker is slow with."""
        while self.free:
            task = waiting.popleft() if waiting else self._slowest(took)
            if task is None:
                break
            hand = self.free.pop()
            hand.task, hand.since = task, time.monotonic()
            self.hands[getattr(hand.actor, task.method).remote(*task.arguments())] = hand
        self._report()

    def _slowest(self, took: Sequence[float]) -> Task | None:
        """A task that takes far longer than others did, and that one worker alone is at."""
        if not took:
            return None
        at = Counter(id(h.task) for h in self.hands.values() if h.task)
        late = time.monotonic() - SLOW * statistics.median(took)
        slow = [h for h in self.hands.values() if h.task and not h.task.done and h.since < late and at[id(h.task)] == 1]
        return min(slow, key=lambda h: h.since).task if slow else None

    def _answers(self) -> Iterator[tuple[Hand, Any]]:
        """Every answer that has come, at least after a while: of a worker that is up, nothing; an error where one was.

        A worker that failed is replaced: after some errors, of a GPU's above all, a process is good for nothing more.
        """
        import ray

        ready, _ = ray.wait(list(self.hands), num_returns=1, timeout=HEARTBEAT)
        for reference in ready:
            hand = self.hands.pop(reference)
            try:
                answer = ray.get(reference)
            except RmoError:  # a mistake of the user's, or what no other worker could do better
                raise
            except Exception as e:
                ray.kill(hand.actor)
                self._hire()
                yield hand, e
                continue
            if hand.task is None:
                hand.where = f"{answer[0]}:{answer[1]}"
                self.free.append(hand)
                continue
            self.free.append(hand)
            yield hand, answer

    def _lost(self, task: Task, error: Exception, waiting: deque[Task]) -> bool:
        """Note that a worker failed at a task; whether it is given up."""
        task.failures += 1
        log = self._log(task)
        log.parent.mkdir(exist_ok=True)
        with log.open("a", encoding="utf-8") as f:
            f.write("".join(traceback.format_exception(error)) + "\n")
        said = str(error).strip().splitlines()
        say(
            f"a worker failed at {task.name} ({task.failures} of {TRIES}): {said[-1] if said else type(error).__name__}"
        )
        if task.failures >= TRIES:
            return True
        waiting.appendleft(task)
        return False

    def _log(self, task: Task) -> Path:
        return self.run_folder / LOGS / f"worker-{Path(task.name).stem}.log"

    def _failure(self, failed: Sequence[Task]) -> str:
        last = failed[-1]
        names = ", ".join(task.name for task in failed[:5]) + (
            f" and {len(failed) - 5} more" if len(failed) > 5 else ""
        )
        return (
            f"{names}: {TRIES} workers failed; the last error is in {self._log(last)}. All other parts are finished: "
            "fix the cause and run the same command again"
        )

    def _report(self) -> None:
        """Who does what, for `status`."""
        if time.monotonic() - self.reported < HEARTBEAT:
            return
        self.reported = time.monotonic()
        at_work = [h for h in self.hands.values() if h.task is not None]
        rows = [
            {"worker": h.number, "where": h.where, "part": h.task.name, "seconds": round(time.monotonic() - h.since, 1)}
            for h in sorted(at_work, key=lambda h: h.number)
            if h.task
        ]
        write_json(self.run_folder / WORKING, {"workers": rows})


def tasks_of(jobs: Sequence[Job]) -> Iterator[Task]:
    """What is asked of each model first: a mistake in how it is loaded shows before hours of work."""
    for job in jobs:
        if job.describe:
            yield Task(f"description of {Path(job.spec.model).name}", "describe", partial(sample_of, job))
        for part in job.parts:
            yield Task(part.file, "compute", partial(part_of, job, part), len(part.rows))


def call_of(function: Callable[..., None], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return function, arguments


def sample_of(job: Job) -> tuple[Any, ...]:
    return job.spec, job.sample()


def part_of(job: Job, part: Part) -> tuple[Any, ...]:
    return job.spec, part.alone()
