"""The tables of docs/results/robustness.md: faults and fuzz."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import result, table

# What is promised of each fault, beside what is promised of all of them (docs/results/robustness.md).
PROMISED = {
    "SIGKILL": "the same command resumes and ends as if undisturbed",
    "SIGTERM": "the same; training saves a checkpoint first",
    "disk full": "code 3, with the space needed and the space free",
    "EIO when writing": "code 2 or 3, naming the file, or the command does without it",
    "EIO when reading": "code 2 or 3, naming the file, or the command does without it",
    "ESTALE when reading": "code 2 or 3, naming the file, or the command does without it",
    "read-only folder": "code 2 or 3, naming the folder, before the work",
    "two at once": "one does its work; the other is refused, naming the first one's process, or waits its turn",
    "clock jumps": "no difference",
    "NFS: open files keep a name": "no difference",
    "no locks, no links": "no difference",
}


def faults() -> Iterator[str]:
    found = result("faults")["by_fault"]
    rows = ([name, said, f"{found[name]['kept']} of {found[name]['trials']}"]
            for name, said in PROMISED.items() if name in found)  # fmt: skip
    yield from table(["fault", "promised", "kept"], rows)


def faults_by_command() -> Iterator[str]:
    found = result("faults")["by_command"]
    yield from table(["command", "trials with all promises kept"],
                     ([name, f"{kept} of {n}"] for name, (kept, n) in found.items()))  # fmt: skip


def fuzz() -> Iterator[str]:
    """What the fuzz went through, by area."""
    found = result("fuzz")["areas"]
    keys = ("files", "records", "refused")
    rows = ([name, *(f"{one[key]:,}" for key in keys), f"{sum(one['failures'].values())}"]
            for name, one in found.items())  # fmt: skip
    yield from table(["area", "files", "records", "refused with a reason", "failures"], rows)
