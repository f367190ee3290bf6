"""One trial of `faults`: a command of a chain, what it starts from and makes, a fault, and what must hold after it.

Faults come from a shim that is preloaded (`faults.c`); commands run in forks of one process that has loaded the
libraries (`fault_server`).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
CHANGES = ("write", "sync", "rename", "remove", "mkdir", "create", "truncate")


@dataclass(frozen=True)
class Command:
    """A command line of the chain on the folders of the work folder."""

    name: str
    program: str
    arguments: tuple[str, ...]
    reads: tuple[str, ...]  # what other commands made
    makes: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """What is done to a command: calls of kinds `ops` fail with `error` (0: none) or bring `signal`, from the `at`-th
    on, `times` of them (0: all); or a signal comes `after` seconds."""

    name: str
    ops: tuple[str, ...] = ()
    at: int = 1
    times: int = 0
    error: int = 0
    signal: int = 0
    silly: int = 0
    clock: int = 0
    after: float = 0
    timed: int = 0
    codes: tuple[int, ...] = (0,)  # that the command may end with


@dataclass(frozen=True)
class Trial:
    """What one fault did, and what came of it."""

    command: str
    fault: str
    at: str  # the moment
    code: int
    said: str  # its last line
    seconds: float
    broken: tuple[str, ...]  # promises; none where all hold


def commands(only: Sequence[str] = ()) -> list[Command]:
    """Every command that writes, in the order of a chain; the paths are those of the work folder. `only`: their names
    (none: all)."""

    def of(program: str, line: str, reads: str, makes: str, name: str = "") -> Command:
        words = tuple(line.split())
        return Command(name or words[0], program, words, tuple(reads.split()), tuple(makes.split()))

    curate, train = "rmo-curate", "rmo-train"
    training = (
        "--lora 2 --learning-rate 1e-3 --num-train-epochs 1 --save-steps 2 --save-total-limit 2 "
        "--per-device-train-batch-size 4 --gradient-accumulation-steps 1 --attention segments"
    )
    chain = [
        of(curate, "inspect data.jsonl --to converted.jsonl", "data.jsonl", "converted.jsonl converted.rejects.jsonl"),
        of(curate, "audit data.jsonl --out data-audit", "data.jsonl", "data-audit", "audit of data"),
        of(curate, "score data.jsonl --model model --out run --part-size 8 --dtype float32", "data.jsonl model", "run"),
        of(curate, "proxy run --kind lora --seed 7 --folds 2", "data.jsonl model run", "run"),
        of(curate, "filter run --out shards --rule irm --high-q 0.8", "run", "shards"),
        of(curate, "audit run --out audit", "run", "audit"),
        of(curate, "export shards --to trl --out exported", "shards", "exported"),
        of(curate, "export shards --to axolotl --out lines", "shards", "lines", "export of lines"),
        of(train, f"run shards --model model --out trained {training}", "shards model", "trained"),
        of(train, "eval run --model trained --out eval.json", "run model trained", "eval.json"),
        of(train, "generate shards --model trained --out answers.json --max-new-tokens 4 --limit 4",
           "shards model trained", "answers.json"),
        of(train, "merge trained --out merged", "model trained", "merged"),
        of(train, "compare eval.json eval.json --json compared.json", "eval.json", "compared.json"),
    ]  # fmt: skip
    return [command for command in chain if not only or command.name in only]


# ---------------------------------------------------------------------------------------------------- running


class Server:
    """The process that runs the commands."""

    def __init__(self, work: Path, shim: Path):
        self.work = work
        environ = {**os.environ, "LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
                   "HF_HUB_OFFLINE": "1", "COLUMNS": "500"}  # fmt: skip
        command = [sys.executable, "-m", "benchmarks.fault_server"]
        log = (work.parent / "server.log").open("ab")
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the server ended: {(self.work.parent / 'server.log').read_text()[-2000:]}")
        return line

    def run(self, several: Sequence[tuple[Command, Fault]], stagger: float = 0) -> list[dict[str, Any]]:
        """Run commands at once; of each: code, seconds, whether it hung, what it said, how many calls were counted."""
        jobs, logs = [], []
        for i, (command, fault) in enumerate(several):
            logs.append(self.work.parent / f"log-{i}")
            logs[-1].unlink(missing_ok=True)
            Path(f"{logs[-1]}.calls").unlink(missing_ok=True)
            jobs.append({
                "program": command.program, "arguments": command.arguments, "folder": str(self.work),
                "under": str(self.work), "log": str(logs[-1]), "fault": asdict(fault), "after": fault.after,
                "timed": fault.timed, "stagger": stagger,
            })  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        answers = json.loads(self._answer())
        for answer, log in zip(answers, logs, strict=True):
            calls = Path(f"{log}.calls")
            answer["said"] = log.read_text(errors="replace") if log.exists() else ""
            answer["calls"] = int(calls.read_text()) if calls.exists() else 0
        for path in self.work.rglob(".nfs*"):  # as NFS does when the process that has it open ends
            path.unlink(missing_ok=True)
        return answers  # type: ignore[no-any-return]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


NONE = Fault("none")
AT_A_CHANGE = {
    fault.name: fault
    for fault in (
        Fault("SIGKILL", CHANGES, times=1, signal=signal.SIGKILL, codes=(-signal.SIGKILL, 0)),
        Fault("SIGTERM", CHANGES, times=1, signal=signal.SIGTERM, codes=(-signal.SIGTERM, 130, 0)),
        Fault("EIO when writing", CHANGES, times=1, error=errno.EIO, codes=(3, 2, 0)),
    )
}
TWO = Fault("two at once", codes=(0, 2))  # what one makes and the other was refused


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass
class Chain:
    """The undisturbed chain: what each command starts from and makes, and how long that takes."""

    server: Server
    base: Path
    before: dict[str, Path] = field(default_factory=dict)
    whole: dict[str, dict[str, bytes]] = field(default_factory=dict)  # command -> the files that it leaves
    unstable: dict[str, set[str]] = field(default_factory=dict)  # files with times in them: two runs differ
    seconds: dict[str, float] = field(default_factory=dict)

    def restore(self, command: Command) -> None:
        """The work folder as the command finds it."""
        shutil.rmtree(self.server.work, ignore_errors=True)
        shutil.copytree(self.before[command.name], self.server.work, symlinks=True)

    def measure(self, command: Command, made: Path) -> None:
        """Run the command twice from the folder `made`, which then has what it made."""
        place = self.base / f"before-{len(self.before)}"
        place.mkdir()
        for name in command.reads:
            source = made / name
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, place / name)
        self.before[command.name] = place
        found = []
        for _ in range(2):
            self.restore(command)
            answer = self.server.run([(command, NONE)])[0]
            if answer["code"]:
                raise SystemExit(f"{command.name}: exit {answer['code']}\n{answer['said']}")
            found.append(files_of(self.server.work))
        self.seconds[command.name] = answer["seconds"]
        self.whole[command.name] = found[1]
        names = found[0].keys() | found[1].keys()
        self.unstable[command.name] = {n for n in names if found[0].get(n) != found[1].get(n)}
        for name in command.makes:
            source = self.server.work / name
            if source.is_dir():
                shutil.copytree(source, made / name, dirs_exist_ok=True)
            elif source.exists():
                shutil.copyfile(source, made / name)

    def calls(self, command: Command, ops: tuple[str, ...]) -> int:
        """How many calls of these kinds the undisturbed command makes."""
        self.restore(command)
        return int(self.server.run([(command, Fault("counted", ops))])[0]["calls"])


# ---------------------------------------------------------------------------------------------------- promises


def halves(work: Path, hidden: bool = False) -> Iterator[str]:
    """Files under their own names that are cut short or empty."""
    for path in sorted(work.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(work).parts):
            continue
        try:
            if path.suffix == ".parquet":
                pq.ParquetFile(path).metadata  # noqa: B018
            elif path.suffix == ".json":
                json.loads(path.read_bytes())
            elif path.suffix == ".jsonl" and path.name != "metrics.jsonl":  # whose last line a kill may cut
                for line in path.read_bytes().splitlines():
                    json.loads(line)
            elif path.suffix == ".html" and not path.read_bytes().rstrip().endswith(b"</html>"):
                raise ValueError("no end")
        except Exception as e:
            yield f"{path.relative_to(work)}: {type(e).__name__}"


def kept_promises(chain: Chain, command: Command, fault: Fault, answer: Mapping[str, Any]) -> list[str]:
    """The promises that the disturbed command broke."""
    work, said, broken = chain.server.work, answer["said"], []
    if "Traceback" in said:
        broken.append("a traceback")
    if answer["hung"]:
        broken.append("it hung")
    if answer["code"] not in fault.codes:
        broken.append(f"exit code {answer['code']}")
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if answer["code"] in (2, 3) and len(errors) != 1:
        broken.append(f"{len(errors)} errors")
    before = files_of(chain.before[command.name])
    now = files_of(work)
    lost = [n for n, content in before.items() if now.get(n) != content and n.split("/")[0] not in command.makes]
    broken += [f"touched {name}" for name in lost[:3]]
    broken += [f"half: {name}" for name in list(halves(work))[:3]]
    return broken


def resumed(chain: Chain, command: Command) -> list[str]:
    """Run the command again; the promises that its result breaks."""
    if command.makes[0].endswith(".jsonl") and (chain.server.work / command.makes[0]).exists():
        pass  # it was finished: a second time it would be refused
    else:
        answer = chain.server.run([(finished(chain, command), NONE)])[0]
        if answer["code"]:
            return [f"again: exit code {answer['code']}: {answer['said'].strip().splitlines()[-1:]}"]
    found, expected = files_of(chain.server.work), chain.whole[command.name]
    loose = chain.unstable[command.name]
    differ = [n for n, content in expected.items() if n not in loose and found.get(n) != content]
    more = sorted(found.keys() - expected.keys() - loose)
    return [f"again: {n} differs" for n in differ[:3]] + [f"again: left {n}" for n in more[:3]]


def finished(chain: Chain, command: Command) -> Command:
    """The command as a user gives it again: with --overwrite where it needs that for what it had finished."""
    done = command.name in ("generate", "merge") and (chain.server.work / command.makes[0]).exists()
    return replace(command, arguments=(*command.arguments, "--overwrite")) if done else command


def tried(chain: Chain, command: Command, fault: Fault, at: str) -> Trial:
    chain.restore(command)
    answer = chain.server.run([(command, fault)])[0]
    broken = kept_promises(chain, command, fault, answer) + resumed(chain, command)
    lines = [line for line in answer["said"].strip().splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "")
    place = str(chain.server.work)
    return Trial(command.name, fault.name, at, answer["code"], said.replace(place, "WORK")[:400],
                 round(answer["seconds"], 2), tuple(broken))  # fmt: skip


def together(chain: Chain, command: Command, stagger: float) -> Trial:
    """Two of the same command on one folder: at least one does its work, the other may be refused."""
    chain.restore(command)
    fault = TWO
    answers = chain.server.run([(command, fault), (command, fault)], stagger)
    broken = [b for answer in answers for b in kept_promises(chain, command, fault, answer)]
    if all(answer["code"] for answer in answers):
        broken.append("neither did its work")
    broken += resumed(chain, command)
    codes = sorted(answer["code"] for answer in answers)
    refused = next((a["said"].strip().splitlines()[-1] for a in answers if a["code"]), "")
    said = refused.replace(str(chain.server.work), "WORK")[:400]
    return Trial(command.name, fault.name, f"{stagger:.2f} s apart, {codes}", codes[-1], said,
                 round(max(a["seconds"] for a in answers), 2), tuple(dict.fromkeys(broken)))  # fmt: skip
