"""Broken records, damaged files and strange settings, for so many minutes: no traceback, no hang, nothing lost.

    python -m benchmarks.fuzz --minutes 15             writes benchmarks/results/fuzz.json
    python -m benchmarks.fuzz --repeat fuzz-failures/… one failure again

Five areas (`fuzz_checks`): reading, rendering, audits, filter with exports, damaged folders. hypothesis draws the cases
(`fuzz_files`, `fuzz_runs`) and shrinks what fails; the seed of each round is (seed, area, round). A failure's seed,
input and traceback are kept in a folder of its own. The work is done by a process that is started again where it dies,
hangs for over 60 s or takes over 2 GiB: each of these counts as a failure, of the case that it was at.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import pickle
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.environment import environment
from benchmarks.fuzz_checks import Tally, auditing, damage, emptied, filtering, reading, rendering
from benchmarks.fuzz_files import DATA_FILES, Made
from benchmarks.fuzz_runs import damages, filter_cases
from rmo_train.store.files import write_json

RESULTS = Path(__file__).parent / "results"
FAILURES = Path("fuzz-failures")
HANG, MEMORY = 60, 2 * 2**30  # seconds, bytes
GRACE = 30  # seconds after which a process that its own alarm does not stop is ended
SEED = 0


@dataclass(frozen=True)
class Area:
    """A property, the cases it is tried on, and how many of them make a round."""

    check: Callable[[Path, Any], Tally]
    cases: st.SearchStrategy[Any]
    examples: int


AREAS = {
    "reading": Area(reading, DATA_FILES, 250),
    "rendering": Area(rendering, DATA_FILES, 60),
    "audits": Area(auditing, DATA_FILES, 12),
    "filter": Area(filtering, filter_cases(), 12),
    "damage": Area(damage, damages(), 5),
}


class Hang(BaseException):
    """A case took longer than HANG seconds."""


class Greedy(Exception):
    """A case took the process over MEMORY bytes."""


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise Hang after so many seconds."""

    def stop(number: int, frame: object) -> None:
        raise Hang(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def tried(area: Area, folder: Path, case: Any) -> Tally:
    """One case, within its time and memory."""
    before = peak_bytes()
    with within(HANG), contextlib.redirect_stderr(io.StringIO()):  # progress
        tally = area.check(emptied(folder), case)
    if before < MEMORY < peak_bytes():
        raise Greedy(f"{peak_bytes() / 2**30:.2f} GiB")
    return tally


# ---------------------------------------------------------------------------------------------------- failures


def keep(place: Path, case: Any, **more: Any) -> None:
    """Write a case down: pickled, to be tried again, and its file as it is."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "case.pickle").write_bytes(pickle.dumps(case))
    if isinstance(case, Made):
        case.write(place)
    (place / "failure.json").write_text(json.dumps(more, indent=2))


def where(error: BaseException) -> str:
    """What an error is told apart by: its kind, and the line of ours that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/rmo" in f.filename] or [f for f in frames if "fuzz_checks" in f.filename] or frames
    last = own[-1] if own else None
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}" if last else type(error).__name__


def round_of(name: str, number: int, base: int, folder: Path, examples: int, begin: Callable[[Any], None]) -> dict:
    """One round of an area: what it went through, and its failure, shrunk, if there was one."""
    area, numbers = AREAS[name], Counter[str]()
    slowest, began, last = 0.0, time.monotonic(), None

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @seed(round_seed(base, name, number))
    @given(area.cases)
    def holds(case: Any) -> None:
        nonlocal slowest, last
        begin(case)
        at = time.monotonic()
        try:
            tally = tried(area, folder, case)
        except BaseException:
            last = case  # the last one that fails is the one that it was shrunk to
            raise
        finally:
            slowest = max(slowest, time.monotonic() - at)
        numbers.update(asdict(tally) | {"cases": 1})

    failure = None
    try:
        holds()
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        failure = {"where": where(e), "said": f"{type(e).__name__}: {e}"[:2000]}
        text = "".join(traceback.format_exception(e))
        place = FAILURES / f"{name}-{hashlib.sha256(failure['where'].encode()).hexdigest()[:8]}"
        keep(place, last, area=name, round=number, seed=base, **failure, traceback=text)
    return {
        "area": name, "round": number, "seconds": time.monotonic() - began, "slowest": slowest, "peak": peak_bytes(),
        "failure": failure, **numbers,
    }  # fmt: skip


def round_seed(base: int, name: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{base}/{name}/{number}".encode()).digest()[:8], "big")


# ---------------------------------------------------------------------------------------------------- the process


def work(folder: Path, until: float, base: int) -> None:
    """Rounds of all areas in turn, from where the process before this one stopped; a line of JSON for each."""
    log = folder / "rounds.jsonl"
    number = len(log.read_text().splitlines()) if log.exists() else 0

    def begin(case: Any) -> None:
        (folder / "current").write_bytes(pickle.dumps(case))

    while time.time() < until:
        name = list(AREAS)[number % len(AREAS)]
        (folder / "area").write_text(name)
        found = round_of(name, number // len(AREAS), base, folder / "case", AREAS[name].examples, begin)
        with log.open("a") as f:
            f.write(json.dumps(found) + "\n")
        number += 1
        if found["peak"] > MEMORY or (found["failure"] or {}).get("where", "").startswith("Hang"):
            return  # what follows is to be measured on its own


def watched(folder: Path, until: float, base: int) -> list[dict[str, Any]]:
    """Run the process until the time is over, again where it died or hung; the failures that only we could see."""
    seen = []
    while time.time() < until:
        command = [sys.executable, "-m", "benchmarks.fuzz", "--work", str(folder), "--until", str(until)]
        process = subprocess.Popen([*command, "--seed", str(base)])
        current, ended = folder / "current", False
        while process.poll() is None:
            time.sleep(0.5)
            if current.exists() and time.time() - current.stat().st_mtime > HANG + GRACE:
                process.kill()
                ended = True
        if process.returncode:
            area = (folder / "area").read_text()
            said = "hung" if ended else f"died with {process.returncode}"
            keep(FAILURES / f"{area}-process-{len(seen)}", pickle.loads(current.read_bytes()), area=area, where=said)
            seen.append({"area": area, "where": said})
            with (folder / "rounds.jsonl").open("a") as f:  # the next process goes on behind it
                f.write(json.dumps({"area": area, "failure": {"where": said}}) + "\n")
    return seen


def summary(rounds: list[dict[str, Any]], seconds: float, base: int, where_it_ran: dict[str, Any]) -> dict[str, Any]:
    areas: dict[str, Any] = {}
    by_area: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in rounds:
        by_area[one["area"]].append(one)
    for name, of in by_area.items():
        sums = {key: sum(one.get(key, 0) for one in of) for key in ("cases", "files", "records", "pairs", "refused")}
        failures = Counter(one["failure"]["where"] for one in of if one["failure"])
        slowest = max(one.get("slowest", 0) for one in of)
        areas[name] = {**sums, "seconds": round(sum(one.get("seconds", 0) for one in of), 1),
                       "slowest_seconds": round(slowest, 2), "failures": dict(failures)}  # fmt: skip
    return {
        "minutes": round(seconds / 60, 1),
        "seed": base,
        "files": sum(one["files"] for one in areas.values()),
        "records": sum(one["records"] for one in areas.values()),
        "failures": sum(sum(one["failures"].values()) for one in areas.values()),
        "slowest_seconds": max(one["slowest_seconds"] for one in areas.values()),
        "peak_GiB": round(max(one.get("peak", 0) for one in rounds) / 2**30, 2),
        "limits": {"seconds": HANG, "GiB": MEMORY / 2**30},
        "areas": areas,
        "environment": where_it_ran,
    }


def repeat(place: Path) -> None:
    """Try a kept case again; its traceback, if it still fails."""
    case = pickle.loads((place / "case.pickle").read_bytes())
    name = json.loads((place / "failure.json").read_text())["area"]
    with tempfile.TemporaryDirectory() as folder:
        print(tried(AREAS[name], Path(folder) / "case", case))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--repeat", type=Path, help="folder of a failure")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    given_ = parser.parse_args()
    if given_.repeat:
        return repeat(given_.repeat)
    if given_.work:
        return work(given_.work, given_.until, given_.seed)
    where_it_ran, began = environment(), time.time()
    with tempfile.TemporaryDirectory() as folder:
        watched(Path(folder), began + 60 * given_.minutes, given_.seed)
        rounds = [json.loads(line) for line in (Path(folder) / "rounds.jsonl").read_text().splitlines()]
    found = summary(rounds, time.time() - began, given_.seed, where_it_ran)
    write_json(RESULTS / "fuzz.json", found)
    print(json.dumps(found, indent=1))
    sys.exit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()
