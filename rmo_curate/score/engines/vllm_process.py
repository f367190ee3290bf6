"""The parent's side of the vLLM process: starts it, sends requests, detects its death, and always ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import weakref
from datetime import datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from rmo_curate.score.engines.vllm_worker import EngineSettings, Failure, Sequence

ROOT = Path(__file__).parents[3]  # where `rmo_curate` lies
POLL = 0.5  # seconds between two looks at whether the process lives
# Seconds without an answer after which a process that lives is taken to hang. All are far above what is ever seen: a
# hang that is noticed late costs an hour, a slow machine taken for a hanging one costs the run.
START_LIMIT = 3600.0  # hundreds of GB of weights over a slow network disk take tens of minutes
REQUEST_LIMIT = 600.0  # of any request, in addition to the time per token
FIRST_SECONDS_PER_TOKEN = 0.5  # until the first request is measured: a 7B model on one slow core
PATIENCE = 20.0  # afterwards: this many times the slowest request so far, since others may start to use the machine
KILL_SECONDS = 30.0  # a process that hangs in a device driver survives SIGKILL; do not wait any longer
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the worker already is a separate process
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # vLLM must generate a token, even after a sequence that fills the context
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",  # the model is a folder
}


class EngineDied(Exception):
    """The process ended or failed. `memory`: whether it may have run out of memory."""

    def __init__(self, reason: str, memory: bool):
        super().__init__(reason)
        self.memory = memory


class EngineProcess:
    """One vLLM engine in a separate process; its output goes to `log`.

    The process ends with `close`, with this object, with this interpreter, and when this process is killed.
    """

    def __init__(self, settings: EngineSettings, log: Path):
        log.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        ours, theirs = Pipe()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with log.open("a", encoding="utf-8") as out:
            out.write(f"=== {datetime.now():%Y-%m-%d %H:%M:%S} {settings}\n")
            out.flush()
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rmo_curate.score.engines.vllm_worker", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends the whole group
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
            )
        theirs.close()
        self.connection = ours
        self.close = weakref.finalize(self, _end, self.process, ours)
        self._ask(settings, START_LIMIT)
        self.seconds = time.monotonic() - start
        self.slowest: float | None = None  # seconds per token of the slowest request so far

    def sums(self, sequences: list[Sequence]) -> np.ndarray:
        """Summed log-prob of each sequence's response, float64 nats [n]."""
        tokens = sum(len(s.tokens) for s in sequences)
        start = time.monotonic()
        sums: np.ndarray = self._ask(sequences, patience(tokens, self.slowest))
        self.slowest = max(self.slowest or 0.0, (time.monotonic() - start) / tokens)
        return sums

    def _ask(self, message: Any, limit: float) -> Any:
        """Send a message and wait for the answer; EngineDied if the process ends or `limit` seconds pass."""
        end = time.monotonic() + limit
        try:
            self.connection.send(message)
            while not self.connection.poll(POLL):
                if self.process.poll() is not None and not self.connection.poll(0):
                    raise EOFError
                if time.monotonic() > end:
                    self.close()
                    raise EngineDied(f"no answer for {limit / 60:,.0f} minutes", memory=False)
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(answer, Failure):
            self.close()
            raise EngineDied(answer.text, answer.memory)
        return answer

    def _death(self) -> EngineDied:
        """How the process ended. A signal usually comes from the kernel because memory ran out."""
        try:
            code = self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.close()
            return EngineDied("hung up", False)
        self.close()
        if code < 0:
            return EngineDied(f"killed by {signal.Signals(-code).name}", True)
        return EngineDied(f"ended with exit status {code}", False)


def patience(tokens: int, slowest: float | None) -> float:
    """Timeout in seconds of a request of `tokens` tokens; `slowest`: seconds per token of the slowest one so far."""
    per_token = FIRST_SECONDS_PER_TOKEN if slowest is None else PATIENCE * slowest
    return REQUEST_LIMIT + per_token * tokens


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    """End the process and all its children."""
    connection.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_SECONDS)
