"""The alignment experiment's stages: its tasks, what they wait for, and how each is done."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, product, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.align_cells import (
    Arm,
    Bench,
    Cell,
    Data,
    answers_of,
    end_tokens_of,
    prompt_ids,
    reference,
    renderer,
    run_cell,
)
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
from benchmarks.constraint_prompts import PARTS, Prompt, make_prompts
from benchmarks.environment import environment
from benchmarks.flips import draw, exchanged
from benchmarks.schedule import Task
from rmo_train.console.progress import say
from rmo_train.store.files import read_json, write_json

RESULTS = Path(__file__).parent / "results" / "align"
TUNED = "tuned.json"
ANSWERS = "answers.tar.gz"  # in the results of a size whose answers others take
HELD_OUT = "heldout.json"  # in the results, what a data set's cells are evaluated on
ROWS = "rows.json"  # in the work folder, a data set's pairs with their true labels
DEMO_FILES = Path(__file__).parent.parent / "data" / "demo"
PROMPTS_A_TASK = 256  # of sampling: with 8 answers each they are one batch on a GPU
CONSTRAINTS, JUDGED, DEMO = DATA = "constraints", "judged", "demo"


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
            self.model,
            self.arms,
            sized.get("train", plan["train"]),
            sized["score"],
            plan["answer_tokens"],
            sized.get("drawn", 0),
            sized.get("batch", 1),
        )

    @property
    def untuned(self) -> Mapping[str, Any]:
        """Settings of the data sets whose cells are evaluated on pairs alone; the others are tuned by their answers."""
        found: Mapping[str, Any] = self.sized.get("untuned", self.plan["untuned"])
        return found

    def prompts(self, part: str) -> list[Prompt]:
        return make_prompts(part, self.sized["prompts"][part], self.plan["seed"])

    def chunks(self, part: str) -> int:
        """Tasks in which a part's answers are sampled."""
        return -(-self.sized["prompts"][part] // PROMPTS_A_TASK)

    def answers(self, part: str) -> list[Path]:
        return [self.work / "answers" / f"{part}-{k}.jsonl" for k in range(self.chunks(part))]

    def data(self, name: str, pairs: Sequence[dict[str, Any]], cell: Cell, part: str = "heldout") -> Data:
        prompts = () if name in self.untuned else tuple(self.prompts(part))
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
        return [c for c in dict.fromkeys(found) if c.data != JUDGED or judged]

    def has(self, data: str) -> bool:
        """Whether there are cells of this data set."""
        return any(cell.data == data for cell in self.cells())


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
        wanted.append((cell.flips, cell.rate, cell.seed if cell.rate else 0))
    labels = [labels_task(x, cell.data, w) for w in wanted]
    tuned = [] if cell.data in x.untuned else [x.results / TUNED]
    needs = (*(t.out for t in labels), *tuned)
    kind = f"cell-{cell.data}-{cell.loss}"
    return labels, Task(cell.name, kind, x.results / f"{cell.name}.json", needs, cell)


def tuning_tasks(x: Experiment) -> Iterator[tuple[list[Task], Task]]:
    """Labels, and a task, of each loss, arm, learning rate, number of epochs and seed; every arm's first try first."""
    tune = x.plan["tune"]
    arms = [(loss, arm) for loss, names in x.sized.get("tuned", tune["arms"]).items() for arm in names]
    for seed, (rate, epochs), (loss, arm) in product(tune["seeds"], x.sized.get("tries", tune["tries"]), arms):
        cell = Cell(CONSTRAINTS, loss, arm, *labels_of(tune["labels"]), seed)
        labels, task = cell_task(x, cell)
        out = x.results / "tune" / f"{loss}-{arm}-{rate:g}-{epochs}-s{seed}.json"
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


def unpack_answers(x: Experiment) -> None:
    """The answers that another size sampled, where the plan says so."""
    if "answers" in x.sized and not all(path.exists() for part in ("train", "heldout") for path in x.answers(part)):
        x.work.mkdir(parents=True, exist_ok=True)
        with tarfile.open(RESULTS / x.sized["answers"] / ANSWERS) as archive:
            archive.extractall(x.work, filter="data")


def sample_part(x: Experiment, task: Task) -> None:
    """Answers of the untrained model to every k-th prompt of a part, checked."""
    part, k = task.payload
    bench, prompts = x.bench, x.prompts(part)[k :: x.chunks(part)]
    ids = [prompt_ids(x.model, p) for p in prompts]
    each = x.sized["samples"]
    seed = x.plan["seed"] + 1 + 1000 * k + 100 * list(PARTS).index(part)
    answers = answers_of(reference(x.model), bench, ids, [True] * each, seed, x.plan["new_tokens"])
    ends, tokenizer = end_tokens_of(x.model), renderer(x.model).tokenizer
    task.out.parent.mkdir(parents=True, exist_ok=True)
    write_answers(task.out, [checked(prompts[n // each], a, tokenizer, ends) for n, a in enumerate(answers)])


def score_task(x: Experiment, task: Task) -> None:
    data, flips, rate, seed = task.payload
    held_out = flips == "heldout"
    pairs = read_json(x.work / data / ("heldout-rows.json" if held_out else ROWS))
    settings, kind = x.sized["score"], "none" if held_out else "probe"
    start = time.perf_counter()
    flips = "none" if held_out else flips
    found = score_labels(pairs, flips, rate, seed, task.out.parent, x.model, settings, kind)
    write_json(task.out, found | {"seconds": time.perf_counter() - start})


def tuned_settings(x: Experiment, cell: Cell) -> dict[str, Any]:
    """Learning rate and epochs of a cell: those of the arm that it is tuned as, else plain's."""
    if cell.data in x.untuned:
        return dict(x.untuned[cell.data])
    tuned = read_json(x.results / TUNED)
    own = tuned.get(f"{cell.loss}-{x.arms[cell.arm].tuned_as}", tuned[f"{cell.loss}-plain"])
    return {name: own[name] for name in ("learning_rate", "num_train_epochs")}


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


def make_demo(x: Experiment) -> None:
    """The demo's pairs, with the labels that were swapped put right."""
    if not x.has(DEMO) or (x.work / DEMO / ROWS).exists():
        return
    swapped = {row["id"] for row in read_lines(DEMO_FILES / "truth.jsonl") if row["flipped"]}
    train = [exchanged(row) if row["id"] in swapped else row for row in read_lines(DEMO_FILES / "train.jsonl")]
    save_data(x, DEMO, train, read_lines(DEMO_FILES / "heldout.jsonl"), {})


def read_lines(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return [json.loads(line) for line in text.splitlines()]


def save_data(
    x: Experiment, name: str, train: list[dict[str, Any]], held_out: list[dict[str, Any]], clarity: Mapping[str, str]
) -> None:
    """A data set's pairs in the work folder, no more than the size takes; ROWS, which tasks wait for, last."""
    folder = x.work / name
    train, held_out = (
        drawn(rows, most) for rows, most in zip_longest((train, held_out), x.sized.get("most", {}).get(name, ()))
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "clarity.json", dict(clarity))
    write_json(folder / "heldout-rows.json", held_out)
    write_json(folder / ROWS, train)


def drawn(rows: list[dict[str, Any]], most: int | None) -> list[dict[str, Any]]:
    """At most so many rows, of whole prompts in the order of a hash; in the order given."""
    if most is None:
        return rows
    prompts = [json.dumps(row["prompt"]) for row in rows]
    sizes = Counter(prompts)
    order = sorted(sizes, key=lambda prompt: draw("most", prompt))
    ends = accumulate(sizes[prompt] for prompt in order)
    taken = {prompt for prompt, end in zip(order, ends, strict=True) if end <= most}
    return [row for row, prompt in zip(rows, prompts, strict=True) if prompt in taken]


def describe_held_out(x: Experiment, name: str) -> None:
    """Keep beside the cells what their figures are of: prompts, and each pair's prompt, lengths and clarity."""
    from rmo_train.data.pairs import open_pairs

    out = x.results / f"{name}-{HELD_OUT}"
    if out.exists() or not (x.work / name / "heldout" / "scored.json").exists():
        return
    pairs, clarity = open_pairs(x.work / name / "heldout" / "run"), read_json(x.work / name / "clarity.json")
    prompts = [] if name in x.untuned else x.prompts("heldout")
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
