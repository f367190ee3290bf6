"""All GPU measurements of rmo, the most important first, for a GPU that is available for a few minutes.

    make bench-gpu            (python -m benchmarks.gpu_day --out FOLDER [--minutes 6] [--model FOLDER] [--only STEP …])

Every step writes FOLDER/STEP.json after each of its parts; the same command again runs only unfinished ones. A step
that does not fit into the remaining time is skipped; if one fails, its error is recorded and the next one runs.
`--tiny` runs everything on tiny shapes, also on a CPU.
"""

from __future__ import annotations

import argparse
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.environment import environment
from benchmarks.gpu import Bench, Figures, score
from benchmarks.gpu_checks import LORA_RANK, correctness, product
from benchmarks.gpu_train import full_training_gib, train
from benchmarks.gpu_trl import beside_trl
from rmo_train.model.policy import default_device
from rmo_train.store.files import read_json, write_json
from rmo_train.training.throughput import matmul_rate
from tests.tiny import write_tiny_model

RESULTS = Path(__file__).parent / "results" / "gpu-day"
FINISHED, FAILED, CUT, SKIPPED = "finished", "failed", "cut", "skipped"
ALL_PATHS = ("padded sdpa", "flex", "segments", "dense", "rows", "padded flash_attention_2")
MAIN_PATHS = ("padded sdpa", "flex", "segments")


@dataclass(frozen=True)
class Day:
    """What the steps run on and with."""

    bench: Bench
    folder: Path
    model: str
    tiny: bool

    def shape(self, name: str) -> str:
        return "tiny" if self.tiny else name

    def tokens(self, number: int) -> int:
        return 2000 if self.tiny else number

    def paths(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """FlexAttention takes minutes to compile for a CPU."""
        return tuple(n for n in names if n != "flex" or self.bench.device.type == "cuda")


Parts = Iterator[tuple[str, Figures]]


@dataclass(frozen=True)
class Step:
    """A named part of the day; `least` are the seconds that it needs to be worth a start, `most` those it may have."""

    name: str
    least: float
    most: float
    run: Callable[[Day, Path], Parts]


def check(day: Day, scratch: Path) -> Parts:
    return correctness(day.model, scratch, day.bench.device)


def commands(day: Day, scratch: Path) -> Parts:
    return product(day.model, scratch, 24 if day.tiny else None)


def score_smollm2(day: Day, scratch: Path) -> Parts:
    for mix in ("ultrafeedback", "hh", "judged"):
        names = day.paths(ALL_PATHS)
        yield from score(day.shape("smollm2-135m"), mix, day.tokens(131_072), names, day.bench)


def score_8b(day: Day, scratch: Path) -> Parts:
    for mix in ("ultrafeedback", "hh", "judged"):
        names = day.paths((*MAIN_PATHS, "padded flash_attention_2"))
        yield from score(day.shape("llama-8b"), mix, day.tokens(32_768), names, day.bench)


def train_8b_lora(day: Day, scratch: Path) -> Parts:
    for mix in ("ultrafeedback", "judged"):
        names = day.paths(MAIN_PATHS)
        yield from train(day.shape("llama-8b"), mix, day.tokens(16_384), names, LORA_RANK, day.bench)


def train_smollm2_full(day: Day, scratch: Path) -> Parts:
    for mix in ("ultrafeedback", "judged"):
        names = day.paths((*MAIN_PATHS, "rows"))
        yield from train(day.shape("smollm2-135m"), mix, day.tokens(65_536), names, None, day.bench)


def train_8b_full(day: Day, scratch: Path) -> Parts:
    shape = day.shape("llama-8b")
    if day.bench.device.type == "cuda":
        needed, there = full_training_gib(shape), torch.cuda.mem_get_info()[1] / 2**30
        if needed > there:
            yield shape, {"failed": f"needs {needed:.0f} GiB, the GPU has {there:.0f}"}
            return
    yield from train(shape, "ultrafeedback", day.tokens(16_384), day.paths(("flex", "padded sdpa")), None, day.bench)


def train_vocab(day: Day, scratch: Path) -> Parts:
    for name in ("flex", "padded sdpa"):
        for shape in ("llama-8b-32k", "llama-8b-256k"):
            tokens, names = day.tokens(16_384), day.paths((name,))
            yield from train(day.shape(shape), "judged", tokens, names, LORA_RANK, day.bench)


def train_trl(day: Day, scratch: Path) -> Parts:
    ours = day.paths(("flex", "rows"))
    yield from beside_trl(day.shape("smollm2-135m"), "ultrafeedback", day.tokens(32_768), ours, None, day.bench)
    yield from beside_trl(day.shape("llama-8b"), "ultrafeedback", day.tokens(32_768), ours[:1], LORA_RANK, day.bench)


STEPS = (
    Step("correctness", 20, 100, check),
    Step("product", 30, 150, commands),
    Step("score-smollm2", 15, 60, score_smollm2),
    Step("score-8b", 25, 80, score_8b),
    Step("train-8b-lora", 25, 80, train_8b_lora),
    Step("train-smollm2-full", 20, 60, train_smollm2_full),
    Step("train-8b-full", 25, 60, train_8b_full),
    Step("train-trl", 40, 120, train_trl),
    Step("train-vocab", 25, 80, train_vocab),
)


def run_step(step: Step, day: Day, left: Callable[[], float]) -> dict[str, Any]:
    """Run a step and write its file after every part; what the file says at the end."""
    file, scratch = day.folder / f"{step.name}.json", day.folder / "scratch" / step.name
    about = {"step": step.name, "environment": environment(device=device_name(day.bench.device))}
    about |= {"matmul_tflops": day.bench.tflops, "tiny": day.tiny, "model": day.model}
    found: dict[str, Figures] = {}

    def said(status: str, **more: Any) -> dict[str, Any]:
        result = about | {"status": status, "seconds": time.monotonic() - began, **more, "found": found}
        write_json(file, result)
        return result

    began = time.monotonic()
    if left() < step.least:
        return said(SKIPPED, reason=f"{left():.0f} s left, it needs {step.least:.0f} to be worth a start")
    shutil.rmtree(scratch, ignore_errors=True)  # of an earlier try
    scratch.mkdir(parents=True)
    parts = step.run(day, scratch)
    longest, at = 0.0, began
    try:
        for name, figures in parts:
            found[name] = figures
            print(f"{step.name}: {name}: {figures}", flush=True)
            now = time.monotonic()
            longest, at = max(longest, now - at), now
            said(CUT)
            if left() < longest or now - began > step.most:
                parts.close()  # type: ignore[attr-defined]
                return said(CUT, reason=f"{left():.0f} s left; a part took up to {longest:.0f} s")
    except Exception:
        return said(FAILED, error=traceback.format_exc(limit=-4)[-3000:])
    return said(FINISHED)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"


def run_day(day: Day, steps: tuple[Step, ...], seconds: float) -> list[dict[str, Any]]:
    """Run every unfinished step in order until the time is up; returns the content of each step's file."""
    end, results = time.monotonic() + seconds, []
    for step in steps:
        file = day.folder / f"{step.name}.json"
        done = read_json(file) if file.is_file() else {}
        if done.get("status") != FINISHED:
            print(f"{step.name}: {end - time.monotonic():.0f} s left", flush=True)
            done = run_step(step, day, lambda: end - time.monotonic())
            day.bench.free()
        results.append(done)
    return results


SHOWN = (
    "ok",
    "logp_gap_rms",
    "states_gap",
    "pairs_per_second",
    "share_of_matmul_rate",
    "times_padded_sdpa",
    "times_trl",
    "memory_over_trl",
    "peak_gib",
)


def table(results: list[dict[str, Any]]) -> str:
    """One line per step, followed by one per part with the main figures."""
    lines = []
    for result in results:
        why = result.get("reason") or str(result.get("error", "")).strip().rpartition("\n")[2]
        lines.append(f"{result['step']:<20} {result['status']:<9} {result['seconds']:6.1f} s  {why}")
        for name, figures in result["found"].items():
            shown = [f"{key} {figures[key]:.3g}" for key in SHOWN if key in figures]
            lines.append(f"  {name:<52} {'  '.join(shown) or str(figures)[:160]}")
    return "\n".join(lines)


def prepared(out: Path, model: str | None, tiny: bool) -> Day:
    """The day's folder, model and measured matrix rate."""
    out.mkdir(parents=True, exist_ok=True)
    if model is None:
        model = str(out / "tiny-model")
        if not (out / "tiny-model" / "config.json").is_file():
            write_tiny_model(out / "tiny-model")
    device = default_device()
    rate = matmul_rate(device, torch.bfloat16) / 1e12
    model = str(Path(model).resolve()) if Path(model).is_dir() else model
    return Day(Bench(device, rate, 1 if tiny else 2), out.resolve(), model, tiny)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument(
        "--model", help="model of the checks and the demo, a folder or smollm2-135m (default: a tiny random one)"
    )
    parser.add_argument("--only", choices=[s.name for s in STEPS], nargs="+")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes: shows that everything works")
    given = parser.parse_args()
    began = time.monotonic()
    day = prepared(given.out, given.model, given.tiny)
    steps = tuple(s for s in STEPS if given.only is None or s.name in given.only)
    print(table(run_day(day, steps, 60 * given.minutes - (time.monotonic() - began))))


if __name__ == "__main__":
    main()
