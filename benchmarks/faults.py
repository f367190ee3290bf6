"""Full disks, read-only folders, broken disks, kills, clocks that jump, two commands at once, NFS: every command.

    python -m benchmarks.faults --minutes 20         writes benchmarks/results/faults.json

Each trial starts from a folder in which the command has nothing yet, runs it with one fault at a drawn moment, looks at
what is there, and runs the same command again without a fault. Promised: no traceback and one error that says what
happened; what other commands made is untouched; no file under its own name is half; and after the second run every file
is that of an undisturbed run, byte for byte, with nothing left beside it. Faults come from a shim that is preloaded
(`faults.c`), commands run in forks of one process that has loaded the libraries (`fault_server`); `benchmarks.kill` has
the real command lines from their first moment. A C compiler is needed. A tiny random model on 24 demo pairs.
"""

from __future__ import annotations

import argparse
import errno
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from benchmarks.fault_chain import (
    AT_A_CHANGE,
    CHANGES,
    TWO,
    Chain,
    Command,
    Fault,
    Server,
    Trial,
    commands,
    together,
    tried,
)
from rmo_train.store.files import read_json, write_json
from tests.rmo_curate.scored import demo_records, write_jsonl
from tests.tiny import write_tiny_model

RESULTS = Path(__file__).parent / "results"
SHIM = Path(__file__).parent / "faults.c"
PAIRS, SEED = 24, 0


def planned(
    chain: Chain, of: Sequence[Command], rounds: int, rng: np.random.Generator, *, more: bool = False
) -> Iterator[tuple[Command, Fault, str]]:
    """(command, fault, moment) of every trial; all kinds once, then kills, so that a run that is cut short has both.

    `more`: trials beside those of an earlier run, kills first; what is done all the time was tried there.
    """
    changing = {c.name: chain.calls(c, CHANGES) for c in of}
    reading = {c.name: chain.calls(c, ("read", "open")) for c in of}

    def at(counts: dict[str, int], command: Command) -> tuple[int, str]:
        total = counts[command.name]
        drawn = 1 + int(rng.integers(max(1, total)))
        return drawn, f"{'change' if counts is changing else 'read'} {drawn} of {total}"

    def kills(number: int) -> Iterator[tuple[Command, Fault, str]]:
        for c in of:
            for name in ("SIGKILL", "SIGTERM"):
                n, when = at(changing, c)
                yield c, replace(AT_A_CHANGE[name], at=n), when
            kind = (signal.SIGKILL, signal.SIGTERM)[number % 2]
            moment = max(float(rng.random()) * chain.seconds[c.name], 0.01)
            codes = AT_A_CHANGE[kind.name].codes
            yield c, Fault(kind.name, after=moment, timed=kind, codes=codes), f"after {moment:.2f} s"

    def disks(number: int) -> Iterator[tuple[Command, Fault, str]]:
        for c in of:
            n, when = at(changing, c)
            code = (errno.ENOSPC, errno.EDQUOT)[number % 2]
            yield c, Fault("disk full", ("write", "sync", "mkdir"), n, 0, code, codes=(3, 0)), when
            n, when = at(changing, c)
            yield c, replace(AT_A_CHANGE["EIO when writing"], at=n), when
            n, when = at(reading, c)
            name, code = (("EIO", errno.EIO), ("ESTALE", errno.ESTALE))[number % 2]
            yield c, Fault(f"{name} when reading", ("read", "open"), n, 1, code, codes=(2, 3, 0)), when

    def always() -> Iterator[tuple[Command, Fault, str]]:
        for c in of:
            yield c, Fault("read-only folder", (*CHANGES, "link"), 1, 0, errno.EROFS, codes=(2, 3)), "from the start"
            yield c, Fault("clock jumps", clock=1), "all the time"
            yield c, Fault("NFS: open files keep a name", silly=1), "all the time"
            yield c, Fault("no locks, no links", ("lock", "link"), 1, 0, errno.EOPNOTSUPP), "all the time"
            yield c, TWO, "0"

    once = 0 if more else 1  # rounds that are done before the kinds that are tried once
    for number in range(once):
        yield from kills(number)
    if not more:
        yield from always()
    for number in range(once):
        yield from disks(number)
    for number in range(once, rounds):
        yield from kills(number)
    for number in range(once, rounds):
        yield from disks(number)
    if rounds > 1:
        yield from ((c, TWO, f"{chain.seconds[c.name] / 2:.2f}") for c in of)


def repeated(chain: Chain, of: Sequence[Command], broken: Sequence[Mapping[str, Any]]) -> Iterator[Trial]:
    """The trials of an earlier run that broke a promise, at the same call."""
    for one in broken:
        command, at = next(c for c in of if c.name == one["command"]), int(one["at"].split()[1])
        yield tried(chain, command, replace(AT_A_CHANGE[one["fault"]], at=at), one["at"])


def measure(
    base: Path,
    minutes: float,
    rounds: int,
    only: Sequence[str] = (),
    seed: int = SEED,
    *,
    more: bool = False,
    broken: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[Trial], Chain]:
    """Trials until the time is over or `rounds` of each kind are done, those that were `broken` before first. `only`:
    commands, with what they read."""
    until = time.monotonic() + 60 * minutes
    shim = base / "faults.so"
    compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", shim, SHIM, "-ldl"], check=True)
    made = base / "made"
    made.mkdir()
    write_jsonl(made / "data.jsonl", [*demo_records(PAIRS), {"prompt": "Q", "chosen": " ", "rejected": "no"}])
    write_tiny_model(made / "model")
    chain = Chain(Server(base / "work", shim), base)
    try:
        of = commands(only)
        for command in of:
            chain.measure(command, made)
        rng, done = np.random.default_rng(seed), list(repeated(chain, of, broken))
        for command, fault, at in planned(chain, of, rounds, rng, more=more):
            if time.monotonic() > until:
                break
            done.append(tried(chain, command, fault, at) if fault != TWO else together(chain, command, float(at)))
            show(done)
    finally:
        chain.server.close()
    return done, chain


def show(done: list[Trial]) -> None:
    if done[-1].broken:
        print(len(done), done[-1], flush=True)


def summary(trials: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], chain: Chain) -> dict[str, Any]:
    """What all runs came to."""
    kinds: dict[str, dict[str, int]] = {}
    for one in trials:
        of = kinds.setdefault(one["fault"], {"trials": 0, "kept": 0})
        of["trials"] += 1
        of["kept"] += not one["broken"]
    by_command = {name: [one for one in trials if one["command"] == name] for name in chain.before}
    return {
        "trials": len(trials),
        "kept": sum(not one["broken"] for one in trials),
        "kills": sum(one["fault"] in ("SIGKILL", "SIGTERM") for one in trials),
        "by_fault": kinds,
        "by_command": {name: [sum(not t["broken"] for t in of), len(of)] for name, of in by_command.items()},
        "files_with_times": {name: sorted(files) for name, files in chain.unstable.items() if files},
        "undisturbed_seconds": {name: round(s, 2) for name, s in chain.seconds.items()},
        "runs": list(runs),
        "environment": runs[0]["environment"],
        "each": list(trials),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--add", action="store_true", help="more trials, of another seed, beside those of faults.json")
    given, path = parser.parse_args(), RESULTS / "faults.json"
    before = read_json(path) if given.add else {"each": [], "runs": []}
    if given.seed in [run["seed"] for run in before["runs"]]:
        raise SystemExit(f"--seed {given.seed}: these trials are in {path.name} already")
    where_it_ran, began = environment(), time.monotonic()
    broken = [one for one in before["each"] if one["broken"]]  # mended meanwhile: tried again, in place of those
    kept = [one for one in before["each"] if not one["broken"]]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder).resolve()
        trials, chain = measure(work, given.minutes, given.rounds, seed=given.seed, more=given.add, broken=broken)
    minutes = round((time.monotonic() - began) / 60, 1)
    run = {"seed": given.seed, "trials": len(trials), "minutes": minutes, "environment": where_it_ran}
    if broken:
        run["mended_and_tried_again"] = broken
    found = summary([*kept, *map(asdict, trials)], [*before["runs"], run], chain)
    write_json(path, found)
    print({k: v for k, v in found.items() if k != "each"})
    sys.exit(0 if found["kept"] == found["trials"] else 1)


if __name__ == "__main__":
    main()
