"""How long the audit takes on one answer of 20 MB, and how much memory commands take on 1,000 answers of 1 MB.

    python -m benchmarks.large [--only long|many]

One answer of 20 MB, in a data set of 40 pairs, of each of several kinds of text: those that people write, and those
that take long where a check looks at every place twice. Then 500 pairs of two answers of 1 MB, through the commands
that read data. Each command runs in a process of its own, start included. Writes benchmarks/results/large.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.environment import environment
from rmo_train.store.files import read_json, write_json

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
WORDS = (ROOT / "data" / "demo" / "train.jsonl").read_text(encoding="utf-8").split()[:20_000]
LONG, MANY, EACH = 20_000_000, 500, 1_000_000  # bytes of the long answer; pairs of two answers, bytes of each
OTHERS = 40  # pairs beside the one with the long answer
TARGET_SECONDS, TARGET_GIB = 10.0, 4.0
MODEL = "smollm2-135m"


def prose(size: int, rng: random.Random) -> str:
    """Words in a drawn order, with a stop now and then and a blank line after it."""
    block = " ".join(w + rng.choice((".\n\n", "", "", "", "", "", "", "", "")) for w in rng.choices(WORDS, k=50_000))
    return " ".join(block[rng.randrange(999) :] for _ in range(size // len(block) + 2))[:size]


def letters(size: int, rng: random.Random) -> str:
    """Base64, without a space."""
    return rng.randbytes(size // 2).hex()


def characters(size: int, rng: random.Random) -> str:
    """Chinese characters, three bytes each."""
    block = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(100_000))
    return (block * (size // 300_000 + 1))[: size // 3]


def listed(size: int, rng: random.Random) -> str:
    """Markdown: bullets, numbers, tables, code."""
    lines = [
        f"{rng.choice(('- ', '1. ', '| ', '* **', '    ', '```', '# '))}{rng.choice(WORDS)}" for _ in range(50_000)
    ]
    block = "\n".join(lines)
    return (block * (size // len(block) + 1))[:size]


KINDS: dict[str, Callable[[int, random.Random], str]] = {
    "prose": prose,
    "prose with an emoji": lambda size, rng: "\U0001f600" + prose(size, rng),
    "Chinese": characters,
    "Markdown": listed,
    "letters without a space": letters,
    "one letter": lambda size, rng: "a" * size,
    "blank lines": lambda size, rng: "a" + "\n" * size + "b",
    "one line again and again": lambda size, rng: "This is the line that comes again.\n" * (size // 35),
    "different lines, each twice": lambda size, rng: "\n".join(2 * [f"{i:>40} is a line" for i in range(size // 104)]),
    "marks of quotation": lambda size, rng: "' \"- " * (size // 5),
    "number signs": lambda size, rng: "#" * size,
}


def pairs(rng: random.Random) -> Iterator[dict[str, str]]:
    for i in range(OTHERS):
        chosen, rejected = (" ".join(rng.choices(WORDS, k=60)) for _ in range(2))
        yield {"prompt": f"question {i}?", "chosen": chosen, "rejected": rejected}


def write(path: Path, rows: Iterator[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def run(*arguments: str) -> dict[str, float]:
    """Seconds on the clock and of computing, and the most memory (GiB), of a command in a process of its own."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "rmo_curate", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments)}: exit status {os.waitstatus_to_exitcode(status)}")
    seconds = {"seconds": time.monotonic() - began, "cpu_seconds": used.ru_utime + used.ru_stime}
    return {name: round(n, 1) for name, n in seconds.items()} | {"peak_GiB": round(used.ru_maxrss / 2**20, 2)}  # of KiB


def one_long(folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """The audit of data with one long answer, for each kind of text; without one, for comparison."""
    for kind, make in {"none": None, **KINDS}.items():
        rng = random.Random(0)
        data = folder / "long.jsonl"
        long = {"prompt": "Tell me all.", "chosen": make(LONG, rng), "rejected": "No."} if make else None
        write(data, iter([*([long] if long else []), *pairs(rng)]))
        yield kind, run("audit", str(data), "--out", str(folder / "out"))


def many_long(folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """The commands that read data, on many answers of a megabyte. With one emoji, Python holds a text with four bytes a
    character."""
    data, copy = folder / "many.jsonl", folder / "one.jsonl"
    audit = ("audit", str(data), "--out", str(folder / "audit"))
    score = ("score", str(data), "--model", MODEL, "--out", str(folder / "run"), "--dry-run")
    for kind, name, arguments in (
        ("prose with an emoji", "audit", audit),
        ("prose with an emoji", "score --dry-run", score),
        ("prose with an emoji", "inspect --to", ("inspect", str(data), "--to", str(copy))),
        ("prose", "audit", audit),
    ):
        rng = random.Random(0)
        sides = ({side: KINDS[kind](EACH, rng) for side in ("chosen", "rejected")} for _ in range(MANY))
        write(data, ({"prompt": f"question {i}?", **both} for i, both in enumerate(sides)))
        yield f"{name}, {kind}", run(*arguments)
        copy.unlink(missing_ok=True)


PARTS = {"long": one_long, "many": many_long}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, help="measure one part, and keep the other's figures")
    given = parser.parse_args()
    path = RESULTS / "large.json"
    found = read_json(path) if given.only and path.is_file() else {}
    found |= {"answer_MB": LONG / 1e6, "pairs": MANY, "each_MB": EACH / 1e6}
    found |= {"target_seconds": TARGET_SECONDS, "target_GiB": TARGET_GIB}
    for part in [given.only] if given.only else PARTS:
        found[part] = {"environment": environment()}
        with tempfile.TemporaryDirectory() as folder:
            for name, measured in PARTS[part](Path(folder)):
                print(name, measured, flush=True)
                found[part][name] = measured
                write_json(path, found)


if __name__ == "__main__":
    main()
