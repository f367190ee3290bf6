"""Methods in separate processes that take turns: each answers a JSON line with a JSON line."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class Worker:
    """One method in its own process; `ready` is its message after loading, None if it does not run here."""

    def __init__(self, module: str, name: str, arguments: list[str]):
        self.log = Path(os.environ.get("TMPDIR", "/tmp")) / f"{module.rsplit('.', 1)[-1]}-{name}.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        self.ready = self._answer()

    def _answer(self) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        assert answer is not None, f"the method's process ended: {self.log}"
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def answers_to_parent() -> IO[str]:
    """Where a worker writes its answers; whatever libraries print goes to standard error from here on."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def questions() -> Iterator[dict[str, Any]]:
    """What a worker is asked, until its parent is done."""
    for line in sys.stdin:
        yield json.loads(line)


def peak_gib() -> float:
    """Resident memory at most of this process or of a child of its own."""
    kilobytes = sum(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kilobytes / 2**20
