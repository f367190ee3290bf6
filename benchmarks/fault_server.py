"""A process that has loaded all libraries and runs command lines in forks of itself, with a fault armed in each.

Started by `benchmarks.faults` with the shim of `faults.c` preloaded, so that a trial takes a second, not ten. It reads
one job of JSON a line and answers with one line: the exit code (minus the signal that ended it) and the seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

OPS = ("open", "write", "sync", "rename", "remove", "mkdir", "read", "lock", "link", "create", "truncate")
LOADED = (
    "torch", "transformers", "peft", "datasets", "pyarrow.parquet", "polars", "scipy.stats", "scipy.optimize",
    "transformers.models.llama.modeling_llama", "matplotlib.figure", "rmo_curate.score.command",
    "rmo_curate.filter.command", "rmo_curate.audit.command", "rmo_curate.export.command", "rmo_curate.filter.shards",
    "rmo_curate.score.inspection", "rmo_curate.score.conversion", "rmo_train.training.command",
    "rmo_train.generation.command", "rmo_train.generation.decoding", "rmo_train.model.merging", "rmo.run",
)  # fmt: skip
PROGRAMS = {"rmo-curate": "rmo_curate.cli", "rmo-train": "rmo_train.cli", "rmo": "rmo.cli"}
PATIENCE = 120  # seconds after which a trial counts as hung


def bits(ops: list[str]) -> int:
    """The mask of the kinds of call, as faults.c has them."""
    return sum(1 << OPS.index(op) for op in ops)


def run_one(job: dict[str, Any]) -> None:
    """Run a command line in this process, which is a fork; never returns."""
    os.setsid()
    os.chdir(job["folder"])
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(n, "wb", 0), write_through=True) for n in (1, 2))
    sys.argv = [job["program"], *job["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fault, shim = job["fault"], ctypes.CDLL(None)
    shim.fault_seen.restype = ctypes.c_long
    main = importlib.import_module(PROGRAMS[job["program"]]).main
    shim.fault_arm(
        os.fsencode(job["under"]), bits(fault["ops"]), ctypes.c_long(fault["at"]), ctypes.c_long(fault["times"]),
        fault["error"], fault["signal"], fault["silly"], fault["clock"],
    )  # fmt: skip
    code: Any = 0
    try:
        main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    Path(job["log"] + ".calls").write_text(str(shim.fault_seen()))
    os._exit(code)


def start(job: dict[str, Any]) -> int:
    child = os.fork()
    if not child:
        try:
            run_one(job)
        finally:
            os._exit(99)
    return child


def wait(child: int, job: dict[str, Any], began: float) -> dict[str, Any]:
    """The exit code of a fork, which gets the job's timed signal, and is ended where it hangs."""
    sent = not job["after"]
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        seconds = time.monotonic() - began
        if done:
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # what it started
            return {"code": code, "seconds": seconds, "hung": False}
        if not sent and seconds >= job["after"]:
            sent = True
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if job["timed"] == signal.SIGKILL else os.kill)(child, job["timed"])
        if seconds > PATIENCE:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": -signal.SIGKILL, "seconds": seconds, "hung": True}
        time.sleep(0.002)


def main() -> None:
    import torch

    for name in LOADED:
        importlib.import_module(name)
    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        jobs = json.loads(line)
        began = time.monotonic()
        children = []
        for job in jobs:  # at once
            children.append((start(job), job))
            time.sleep(job["stagger"])
        print(json.dumps([wait(child, job, began) for child, job in children]), flush=True)


if __name__ == "__main__":
    main()
