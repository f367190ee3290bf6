"""Does curation make a better model? Alignment under flipped labels, over the grid of benchmarks/plan.yaml.

    python -m benchmarks.align --model FOLDER [--minutes 8] [--judged TRAIN --heldout FILE --gold FILE] [--pack FILE]
    python -m benchmarks.align --tiny            the same in miniature, on any machine
    python -m benchmarks.align --table           tables of the cells that are there, and their summary.json

Set `constraints`: prompts with constraints that a program checks, answers of the model itself, and pairs of an answer
that satisfies the constraint and one that does not (constraint_prompts.py, sampling.py, align_data.py). An arm curates
the flipped pairs, trains, and answers held-out prompts (align_cells.py); the score is the share satisfied. For the sets
`judged` (the given files) and `demo` (the project's pairs), it is the reward accuracy on held-out pairs.

Order: answers, pairs, tuning of learning rate and epochs on validation topics, then the cells. Each is a task with its
own file, and finished tasks are skipped. Cells go to benchmarks/results/align/<size>/, answers and runs to --work.
"""

from __future__ import annotations

import argparse
import functools
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.align_table import HeldOut, as_json, rows, tables
from benchmarks.align_tasks import (
    CONSTRAINTS,
    DATA,
    HELD_OUT,
    RESULTS,
    TUNED,
    Experiment,
    begin,
    cell_task,
    describe_held_out,
    make_constraints,
    make_demo,
    make_judged,
    sampling_tasks,
    tuned_settings,
    tuning_tasks,
    unpack_answers,
    work,
)
from benchmarks.environment import environment
from benchmarks.schedule import Schedule
from rmo_train.console.progress import say
from rmo_train.store.files import read_json, write_json

HERE = Path(__file__).parent
SUMMARY = "summary.json"  # in the results


def choose_tuned(x: Experiment) -> None:
    """For every tuned arm, the try with the largest share satisfied on validation topics, averaged over seeds; another
    epoch must gain at least one point."""
    shares: dict[str, list[tuple[dict[str, Any], float]]] = {}
    for path in sorted((x.results / "tune").glob("*.json")):
        found = read_json(path)
        if "refused" not in found:
            tried = f"{found['cell']['loss']}-{found['cell']['arm']}"
            share = float(np.mean([int(d) for s in found["satisfied"] for d in s[:-1]]))
            shares.setdefault(tried, []).append((found["tuning"], share))
    best = {}
    for arm, found in shares.items():
        settings = [dict(t) for t in dict.fromkeys(tuple(sorted(tuning.items())) for tuning, _ in found)]
        tries = [t | {"satisfied": float(np.mean([s for tuning, s in found if tuning == t]))} for t in settings]
        best[arm] = max(tries, key=worth)
        said = (f"{t['satisfied']:.1%} at {t['learning_rate']:g} x {t['num_train_epochs']:g}" for t in tries)
        say(f"tuned {arm}: {', '.join(said)} epochs")
    write_json(x.results / TUNED, best)


def remove_stale(x: Experiment) -> None:
    """Remove the cells that were trained with other settings than are chosen now."""
    for cell in x.cells():
        path = x.results / f"{cell.name}.json"
        used = (read_json(path).get("settings") if path.exists() else None) or {}
        if any(used.get(name, value) != value for name, value in tuned_settings(x, cell).items()):
            say(f"{cell.name} was trained with other settings: again")
            path.unlink()


def worth(tried: dict[str, Any]) -> float:
    return float(tried["satisfied"] - 0.01 * tried["num_train_epochs"])


def run(x: Experiment, minutes: float | None, limit: int | None) -> None:
    """Run the tasks in order until the time is up; `limit`: maximum number of cells."""
    x.results.mkdir(parents=True, exist_ok=True)
    x.work.mkdir(parents=True, exist_ok=True)
    write_json(x.results / "environment.json", environment(model=x.model, size=x.size, gpu=gpu_name()))
    several = x.sized["workers"] > 1
    if several:  # before a process imports a library that reads it
        os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(x.sized["threads"])
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"  # several processes share the GPU's memory
    given = (x.sized["threads"], x.work / "logs" if several else None)
    schedule = Schedule(x.sized["workers"], minutes, begin, given)
    try:
        run_stages(x, schedule, limit)
    finally:
        schedule.close()
        write_json(x.results / "failed.json", schedule.failed)


def run_stages(x: Experiment, schedule: Schedule, limit: int | None) -> None:
    """Answers, pairs, tuning, cells."""
    doing = functools.partial(work, x)
    if x.has(CONSTRAINTS):
        unpack_answers(x)
        schedule.run(sampling_tasks(x), doing)
        if not all(t.out.exists() for t in sampling_tasks(x)):
            say("the answers are not complete: run the command again to resume")
            return
        make_constraints(x)
    make_judged(x)
    make_demo(x)
    needed = [cell_task(x, cell) for cell in x.cells()[:limit]]
    tuning = list(tuning_tasks(x)) if needs_tuning(x) else []
    tries = [task for _, task in tuning]
    # Labels of the first cells fill the processes that tuning leaves idle.
    first_labels = [t for labels, _ in needed[: 4 * x.sized["workers"]] for t in labels]
    schedule.run([*(t for labels, _ in tuning for t in labels), *tries, *first_labels], doing)
    if tries and schedule.settled(tries):
        choose_tuned(x)
        remove_stale(x)
        say_what_fits(x, schedule, [t.out for t in tries])
    for name in DATA:
        describe_held_out(x, name)
    cells = [cell for _, cell in needed]
    schedule.run([t for labels, cell in needed for t in (*labels, cell)], doing)
    for name in DATA:
        describe_held_out(x, name)
    missing = [c.name for c in cells if not c.out.exists()]
    seconds = [sum(read_json(c.out).get("seconds", {}).values()) for c in cells if c.out.exists()]
    if seconds:
        minutes_left = len(missing) * np.mean(seconds) / 60 / x.sized["workers"]
        say(
            f"{len(seconds)} cells of {len(cells)}, {np.mean(seconds):.0f} s each; the rest: {minutes_left:.1f} minutes"
        )
    if missing:
        say(f"missing: {', '.join(missing)}")


def needs_tuning(x: Experiment) -> bool:
    return x.has(CONSTRAINTS) and CONSTRAINTS not in x.untuned and not (x.results / TUNED).exists()


def say_what_fits(x: Experiment, schedule: Schedule, tries: Sequence[Path]) -> None:
    """How many cells fit into the remaining time, if each takes as long as tuning."""
    seconds = [sum(read_json(path)["seconds"].values()) for path in tries if path.exists()]
    if seconds and np.isfinite(schedule.left):
        fit = schedule.left * x.sized["workers"] / np.mean(seconds)
        say(
            f"{np.mean(seconds):.0f} s a cell: about {fit:.0f} of {len(x.cells())} cells fit into {schedule.left:.0f} s"
        )


def gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def pack(x: Experiment, path: Path) -> None:
    """Archive the results and the answers, with paths relative to the working folder."""
    with tarfile.open(path, "w:gz") as archive:
        for folder in (x.results, x.work / "answers", x.work / "logs"):
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    inside = file.resolve()
                    root = Path.cwd().resolve()
                    archive.add(file, inside.relative_to(root) if inside.is_relative_to(root) else inside.name)
    say(f"packed {path}: {path.stat().st_size / 2**20:.1f} MiB")


def table(x: Experiment) -> list[str]:
    """Print the tables of finished cells and list missing ones; write the summary file."""
    held_out = {
        name: HeldOut(
            *(np.array(found[field]) for field in ("prompts", "groups", "chosen_tokens", "rejected_tokens")),
            None if found["clear"] is None else np.array(found["clear"]),
        )
        for name in DATA
        if (x.results / f"{name}-{HELD_OUT}").exists()
        for found in [read_json(x.results / f"{name}-{HELD_OUT}")]
    }
    there = {c: read_json(path) for c in x.cells() if (path := x.results / f"{c.name}.json").exists()}
    found = rows(list(there.values()), held_out)
    about = {
        name: read_json(path)
        for name in ("environment", "rates", "tuned")
        if (path := x.results / f"{name}.json").exists()
    }
    refused = {c.name: cell["refused"] for c, cell in there.items() if "refused" in cell}
    missing = [c.name for c in x.cells() if c not in there]
    write_json(
        x.results / SUMMARY, {**about, "rows": [as_json(r) for r in found], "refused": refused, "missing": missing}
    )
    said = [f"refused: {name}: {why}" for name, why in refused.items()]
    return [
        *tables(found, list(x.plan["arms"])),
        "",
        *said,
        f"{len(missing)} cells missing {', '.join(missing)}".rstrip(),
    ]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or name (default: the plan's)")
    parser.add_argument("--size", choices=("gpu", "cpu", "demo", "tiny"), help="of the plan (default: by the machine)")
    parser.add_argument("--tiny", action="store_const", const="tiny", dest="size", help="--size tiny")
    parser.add_argument("--minutes", type=float, help="time limit; run the same command again to resume")
    parser.add_argument("--workers", type=int, help="processes (default: the size's)")
    parser.add_argument("--cells", type=int, help="only the first N cells")
    parser.add_argument("--judged", type=Path, help="training pairs of set `judged`")
    parser.add_argument("--heldout", type=Path, help="its held-out pairs")
    parser.add_argument("--gold", type=Path, help="the judge's log-odds for these files")
    parser.add_argument("--work", type=Path, default=Path("align-work"))
    parser.add_argument("--results", type=Path, help=f"default: {RESULTS.relative_to(HERE.parent)}/<size>")
    parser.add_argument("--pack", type=Path, help="archive of results and answers, written at the end")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["align"]
    size = given.size or ("gpu" if torch.cuda.is_available() else "cpu")
    results = given.results or RESULTS / size
    if given.workers:
        plan["sizes"][size]["workers"] = given.workers
    x = Experiment(
        plan, size, given.model or plan["model"], given.work / size, results, given.judged, given.heldout, given.gold
    )
    if given.table:
        print("\n".join(table(x)))
        return
    try:
        run(x, given.minutes, given.cells)
    finally:
        if given.pack is not None:
            pack(x, given.pack)


if __name__ == "__main__":
    main()
