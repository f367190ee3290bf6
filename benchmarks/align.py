"""Does curation make a better model? Alignment under flipped labels, over the grid of benchmarks/plan.yaml.

    python -m benchmarks.align --model FOLDER [--minutes 8] [--judged TRAIN --heldout FILE --gold FILE] [--pack FILE]
    python -m benchmarks.align --tiny            the same in miniature, on any machine
    python -m benchmarks.align --table           tables of the cells that are there, and benchmarks/results/align.json

Set `constraints`: prompts with constraints that a program checks, answers of the model itself, pairs of an answer that
satisfies over one that does not (constraint_prompts.py, sampling.py, align_data.py). An arm curates the flipped pairs,
trains, and answers held-out prompts (align_cells.py); the score is the share satisfied. Set `judged`: the pairs of the
files given; the score is the reward accuracy on held-out pairs.

Order: answers, pairs, tuning of learning rate and epochs on validation topics, then the cells. Each is a job with its
file, and what is finished is not done again. Cells go to benchmarks/results/align/<size>/, answers and runs to --work.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import os
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.align_cells import Arm, Bench, Cell, Data, answers_of, end_tokens_of, prompt_ids, renderer, run_cell
from benchmarks.align_data import (
    checked,
    flipped,
    labels_name,
    make_pairs,
    rates_by_kind,
    read_answers,
    score_labels,
    write_answers,
)
from benchmarks.align_table import HeldOut, as_json, rows, tables
from benchmarks.constraint_prompts import PARTS, Prompt, make_prompts
from benchmarks.environment import environment
from benchmarks.schedule import Schedule, Task
from rmo_train.progress import say
from rmo_train.tables import read_json, write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "align"
SUMMARY = HERE / "results" / "align.json"
TUNED = "tuned.json"
HELD_OUT = "heldout.json"  # in the results, what a data set's cells are evaluated on
ROWS = "rows.json"  # in the work folder, a data set's pairs with their true labels
PROMPTS_A_TASK = 128  # of sampling: with 8 answers each they are one batch on a GPU
CONSTRAINTS, JUDGED = "constraints", "judged"


@dataclass(frozen=True)
class Experiment:
    """One run of the benchmark: the plan at one size, and where things are."""

    plan: Mapping[str, Any]
    size: str
    model: str
    work: Path
    results: Path
    judged: Path | None = None
    heldout: Path | None = None
    gold: Path | None = None

    @property
    def sized(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.plan["sizes"][self.size]
        return found

    @property
    def arms(self) -> dict[str, Arm]:
        return {name: Arm(**fields) for name, fields in self.plan["arms"].items()}

    @property
    def bench(self) -> Bench:
        sized, plan = self.sized, self.plan
        return Bench(
            self.model, self.arms, plan["train"], sized["score"], plan["new_tokens"], sized["drawn"], sized["batch"]
        )

    def prompts(self, part: str) -> list[Prompt]:
        return make_prompts(part, self.sized["prompts"][part], self.plan["seed"])

    def chunks(self, part: str) -> int:
        """Tasks in which a part's answers are sampled."""
        return -(-self.sized["prompts"][part] // PROMPTS_A_TASK)

    def answers(self, part: str) -> list[Path]:
        return [self.work / "answers" / f"{part}-{k}.jsonl" for k in range(self.chunks(part))]

    def data(self, name: str, pairs: Sequence[dict[str, Any]], cell: Cell, part: str = "heldout") -> Data:
        prompts = tuple(self.prompts(part)) if name == CONSTRAINTS else ()
        true = self.arms[cell.arm].true_labels
        wrong = set() if true else flipped(pairs, cell.flips, cell.rate, cell.seed)
        return Data(self.work / name, frozenset(wrong), prompts)

    def cells(self) -> list[Cell]:
        """The grid in its order: of a row, the first seed at all its labels, then the next."""
        found = [
            Cell(row["data"], row["loss"], arm, *labels_of(labels), seed)
            for row in self.sized.get("cells", self.plan["cells"])
            for seed, labels, arm in product(row["seeds"], row["flips"], row["arms"])
        ]
        judged = self.judged is not None or (self.results / f"{JUDGED}-{HELD_OUT}").exists()
        return [c for c in dict.fromkeys(found) if c.data == CONSTRAINTS or judged]


def labels_of(text: str) -> tuple[str, float]:
    """`uniform 0.3` -> (uniform, 0.3)."""
    flips, rate = text.split()
    return flips, float(rate)


# ---------------------------------------------------------------------------------------------------- the tasks


def sampling_tasks(x: Experiment) -> list[Task]:
    return [
        Task(f"answers-{part}-{k}", f"answers-{part}", out, (), (part, k))
        for part in ("train", "heldout")
        for k, out in enumerate(x.answers(part))
    ]


def labels_task(x: Experiment, data: str, labels: tuple[str, float, int]) -> Task:
    name = "heldout" if labels[0] == "heldout" else labels_name(*labels)
    out = x.work / data / name / "scored.json"
    return Task(f"score-{data}-{name}", f"score-{data}", out, (x.work / data / ROWS,), (data, *labels))


def cell_task(x: Experiment, cell: Cell) -> tuple[list[Task], Task]:
    """The labels that a cell needs, and the cell."""
    wanted = [("heldout", 0.0, 0)]
    if x.arms[cell.arm].true_labels:
        wanted.append(("none", 0.0, 0))
    elif x.arms[cell.arm].trained:
        wanted.append((cell.flips, cell.rate, cell.seed))
    labels = [labels_task(x, cell.data, w) for w in wanted]
    needs = (*(t.out for t in labels), x.results / TUNED)
    kind = f"cell-{cell.data}-{cell.loss}"
    return labels, Task(cell.name, kind, x.results / f"{cell.name}.json", needs, cell)


def tuning_tasks(x: Experiment) -> Iterator[tuple[list[Task], Task]]:
    """Labels, and a task, of each loss, arm, learning rate and number of epochs; the first try of every arm first."""
    tune = x.plan["tune"]
    arms = [(loss, arm) for loss, names in x.sized.get("tuned", tune["arms"]).items() for arm in names]
    for (rate, epochs), (loss, arm) in product(x.sized.get("tries", tune["tries"]), arms):
        cell = Cell(CONSTRAINTS, loss, arm, *labels_of(tune["labels"]), tune["seed"])
        labels, task = cell_task(x, cell)
        out = x.results / "tune" / f"{loss}-{arm}-{rate:g}-{epochs}.json"
        name = f"tune-{out.stem}"
        needs = tuple(t.out for t in labels)
        yield labels, replace(task, name=name, kind="tune", out=out, needs=needs, payload=(cell, rate, epochs))


def work(x: Experiment, task: Task) -> None:
    """Do one task, in whatever process."""
    if task.kind.startswith("answers"):
        sample_part(x, task)
    elif task.kind.startswith("score"):
        score_task(x, task)
    elif task.kind == "tune":
        cell, rate, epochs = task.payload
        settings = {"learning_rate": rate, "num_train_epochs": epochs}
        pairs = read_json(x.work / cell.data / ROWS)
        bench = x.bench
        found = run_cell(cell, bench, x.data(cell.data, pairs, cell, "validation"), settings, x.work)
        write_json(task.out, found | {"tuning": settings})
    else:
        pairs = read_json(x.work / task.payload.data / ROWS)
        settings = tuned_settings(x, task.payload)
        found = run_cell(task.payload, x.bench, x.data(task.payload.data, pairs, task.payload), settings, x.work)
        write_json(task.out, found)


def begin(threads: int, log: Path | None) -> None:
    """Prepare a process: its threads, and a file for what the stages say."""
    import torch

    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if log is not None:
        log.mkdir(parents=True, exist_ok=True)
        file = os.open(log / f"{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(file, stream)


def sample_part(x: Experiment, task: Task) -> None:
    """Answers of the untrained model to every k-th prompt of a part, checked."""
    from benchmarks.align_cells import reference

    part, k = task.payload
    bench, prompts = x.bench, x.prompts(part)[k :: x.chunks(part)]
    ids = [prompt_ids(x.model, p) for p in prompts]
    each = x.sized["samples"]
    seed = x.plan["seed"] + 1 + 1000 * k + 100 * list(PARTS).index(part)
    answers = answers_of(reference(x.model), bench, ids, [True] * each, seed)
    ends, tokenizer = end_tokens_of(x.model), renderer(x.model).tokenizer
    task.out.parent.mkdir(parents=True, exist_ok=True)
    write_answers(task.out, [checked(prompts[n // each], a, tokenizer, ends) for n, a in enumerate(answers)])


def score_task(x: Experiment, task: Task) -> None:
    data, flips, rate, seed = task.payload
    held_out = flips == "heldout"
    pairs = read_json(x.work / data / ("heldout-rows.json" if held_out else ROWS))
    settings = {**x.sized["score"], **({"proxy_folds": 0, "probe": False} if held_out else {})}
    start = time.perf_counter()
    flips = "none" if held_out else flips
    found = score_labels(pairs, flips, rate, seed, task.out.parent, x.model, settings)
    write_json(task.out, found | {"seconds": time.perf_counter() - start})


# ---------------------------------------------------------------------------------------------------- data sets


def make_constraints(x: Experiment) -> None:
    """Pairs of the sampled answers, and the rates of every kind."""
    folder = x.work / CONSTRAINTS
    if (folder / ROWS).exists():
        return
    most, seconds = x.plan["pairs_per_prompt"], time.perf_counter()
    pairs, rates = {}, {}
    for part in ("train", "heldout"):
        prompts, answers = x.prompts(part), read_answers(x.answers(part))
        pairs[part] = make_pairs(prompts, answers, most)
        rates[part] = {
            "prompts": len(prompts),
            "answers": len(answers),
            "satisfied": float(np.mean([a.satisfies for a in answers])),
            "finished": float(np.mean([a.finished for a in answers])),
            "pairs": len(pairs[part]),
            "kinds": rates_by_kind(prompts, answers),
        }
        say(f"{part}: {rates[part]['satisfied']:.1%} of {len(answers):,} answers satisfy, {len(pairs[part]):,} pairs")
    said = {"constraints": rates, "environment": environment(), "seconds": time.perf_counter() - seconds}
    write_json(x.results / "rates.json", said)
    save_data(x, CONSTRAINTS, pairs["train"], pairs["heldout"], {})


def make_judged(x: Experiment) -> None:
    if x.judged is None or x.heldout is None or (x.work / JUDGED / ROWS).exists():
        return
    clarity = {row["id"]: row["clarity"] for row in read_lines(x.gold)} if x.gold is not None else {}
    save_data(x, JUDGED, read_lines(x.judged), read_lines(x.heldout), clarity)


def read_lines(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return [json.loads(line) for line in text.splitlines()]


def save_data(
    x: Experiment, name: str, train: list[dict[str, Any]], held_out: list[dict[str, Any]], clarity: Mapping[str, str]
) -> None:
    """A data set's pairs in the work folder; ROWS, which tasks wait for, last."""
    folder = x.work / name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "clarity.json", dict(clarity))
    write_json(folder / "heldout-rows.json", held_out)
    write_json(folder / ROWS, train)


def describe_held_out(x: Experiment, name: str) -> None:
    """Keep beside the cells what their figures are of: prompts, and each pair's prompt, lengths and clarity."""
    from rmo_train.pairs import open_pairs

    out = x.results / f"{name}-{HELD_OUT}"
    if out.exists() or not (x.work / name / "heldout" / "scored.json").exists():
        return
    pairs, clarity = open_pairs(x.work / name / "heldout" / "run"), read_json(x.work / name / "clarity.json")
    prompts = x.prompts("heldout") if name == CONSTRAINTS else []
    write_json(
        out,
        {
            "prompts": [p.id for p in prompts],
            "kinds": [p.constraint.kind for p in prompts],
            "groups": [g[:12] for g in pairs.groups],
            "chosen_tokens": pairs.chosen.lengths.tolist(),
            "rejected_tokens": pairs.rejected.lengths.tolist(),
            "clear": [clarity.get(str(i)) == "clear" for i in pairs.ids] if clarity else None,
        },
    )


# ---------------------------------------------------------------------------------------------------- tuning


def choose_tuned(x: Experiment) -> None:
    """Of every tuned arm the try that satisfies most, on the prompts of the validation topics."""
    best: dict[str, dict[str, Any]] = {}
    for path in sorted((x.results / "tune").glob("*.json")):
        found = read_json(path)
        if "refused" in found:
            continue
        key = f"{found['cell']['loss']}-{found['cell']['arm']}"
        share = float(np.mean([int(d) for s in found["satisfied"] for d in s[:-1]]))
        say(f"tuned {path.stem}: {share:.1%} satisfied")
        if key not in best or share > best[key]["satisfied"]:
            best[key] = {**found["tuning"], "satisfied": share}
    write_json(x.results / TUNED, best)


def tuned_settings(x: Experiment, cell: Cell) -> dict[str, Any]:
    """Learning rate and epochs of a cell: those of the arm that it is tuned as, else plain's."""
    if cell.data == JUDGED:
        return dict(x.plan["judged"])
    tuned = read_json(x.results / TUNED)
    own = tuned.get(f"{cell.loss}-{x.arms[cell.arm].tuned_as}", tuned[f"{cell.loss}-plain"])
    return {name: own[name] for name in ("learning_rate", "num_train_epochs")}


# ---------------------------------------------------------------------------------------------------- the run


def run(x: Experiment, minutes: float | None, limit: int | None) -> None:
    """All that fits into the time, in order; `limit`: cells at most."""
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
    schedule.run(sampling_tasks(x), doing)
    if not all(t.out.exists() for t in sampling_tasks(x)):
        say("the answers are not complete: run the command again to go on")
        return
    make_constraints(x)
    make_judged(x)
    needed = [cell_task(x, cell) for cell in x.cells()[:limit]]
    all_labels = [t for labels, _ in needed for t in labels]
    tuning = [] if (x.results / TUNED).exists() else list(tuning_tasks(x))
    tries = [task for _, task in tuning]
    # Labels of the cells fill the processes that tuning leaves idle.
    schedule.run([*(t for labels, _ in tuning for t in labels), *tries, *all_labels], doing)
    if tries and schedule.settled(tries):
        choose_tuned(x)
        say_what_fits(x, schedule, [t.out for t in tries])
    for name in (CONSTRAINTS, JUDGED):
        describe_held_out(x, name)
    cells = [cell for _, cell in needed]
    schedule.run([t for labels, cell in needed for t in (*labels, cell)], doing)
    for name in (CONSTRAINTS, JUDGED):
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


def say_what_fits(x: Experiment, schedule: Schedule, tries: Sequence[Path]) -> None:
    """How many cells fit into the time that is left, if they cost what tuning did."""
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
    """The results and the answers in one archive, under names from the working folder."""
    with tarfile.open(path, "w:gz") as archive:
        for folder in (x.results, x.work / "answers", x.work / "logs"):
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    inside = file.resolve()
                    root = Path.cwd().resolve()
                    archive.add(file, inside.relative_to(root) if inside.is_relative_to(root) else inside.name)
    say(f"packed {path}: {path.stat().st_size / 2**20:.1f} MiB")


def table(x: Experiment) -> list[str]:
    """The tables of the cells that are there, which ones are not, and the summary file."""
    held_out = {
        name: HeldOut(
            *(np.array(found[field]) for field in ("prompts", "groups", "chosen_tokens", "rejected_tokens")),
            None if found["clear"] is None else np.array(found["clear"]),
        )
        for name in (CONSTRAINTS, JUDGED)
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
    write_json(SUMMARY, {**about, "rows": [as_json(r) for r in found], "refused": refused, "missing": missing})
    said = [f"refused: {name}: {why}" for name, why in refused.items()]
    return [*tables(found, list(x.plan["arms"])), "", *said, f"{len(missing)} cells missing: {', '.join(missing)}"]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="folder or name (default: the plan's)")
    parser.add_argument("--size", choices=("gpu", "cpu", "tiny"), help="of the plan (default: by the machine)")
    parser.add_argument("--tiny", action="store_const", const="tiny", dest="size", help="--size tiny")
    parser.add_argument("--minutes", type=float, help="stop in time; the same command goes on later")
    parser.add_argument("--workers", type=int, help="processes (default: the size's)")
    parser.add_argument("--cells", type=int, help="only the first N cells")
    parser.add_argument("--judged", type=Path, help="training pairs of set `judged`")
    parser.add_argument("--heldout", type=Path, help="its held-out pairs")
    parser.add_argument("--gold", type=Path, help="the judge's clarity of them")
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
