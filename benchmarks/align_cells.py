"""One cell of the alignment experiment: the arm's pairs, its training and its evaluation, by the product's own code."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import flips as wrong_labels
from benchmarks.align_data import checked, labels_name
from benchmarks.constraint_prompts import Prompt
from benchmarks.sampling import Ask, sample
from rmo_train.data.pairs import PairData, open_pairs
from rmo_train.training.settings import TrainSettings

DRAWS_SEED = 7  # of the evaluation's samples: the same for every arm


@dataclass(frozen=True)
class Cell:
    """One experiment: which labels, which arm, and the seed of flips, order and initialisation."""

    data: str  # constraints, judged or demo
    loss: str
    arm: str
    flips: str  # none, uniform or longer
    rate: float
    seed: int

    @property
    def name(self) -> str:
        arm = re.sub("[^a-z]+", "-", self.arm)
        return f"{self.data}-{self.loss}-{arm}-{self.flips}{round(100 * self.rate)}-s{self.seed}"

    @property
    def labels(self) -> str:
        return labels_name(self.flips, self.rate, self.seed)


@dataclass(frozen=True)
class Arm:
    """How labels are treated: settings of the filter and of the trainer."""

    trained: bool = True
    true_labels: bool = False
    filter: Mapping[str, Any] | None = None
    train: Mapping[str, Any] | None = None
    as_many_as: str | None = None  # keep as many pairs, at random, as this arm keeps
    steps_as: str | None = None  # train as many steps as this arm
    tuned_as: str = "plain"


@dataclass(frozen=True)
class Bench:
    """Inputs common to all cells."""

    model: str
    arms: Mapping[str, Arm]
    train: Mapping[str, Any]  # settings of every arm
    score: Mapping[str, Any]  # attention and tokens_per_batch, of scoring and training alike
    answer_tokens: int
    drawn: int
    batch: int


@dataclass(frozen=True)
class Data:
    """A cell's data: one folder per labelling, each with its run, and the held-out pairs."""

    folder: Path
    flipped: frozenset[str]  # ids
    prompts: tuple[Prompt, ...] = ()  # held-out ones to answer; none: pairs alone are evaluated

    def run(self, labels: str) -> Path:
        return self.folder / labels / "run"


def run_cell(cell: Cell, bench: Bench, data: Data, tuned: Mapping[str, Any], work: Path) -> dict[str, Any]:
    """Filter, train and evaluate; returns everything that the tables need.

    tuned: learning_rate and num_train_epochs.
    """
    from rmo_train.console.errors import UserError

    with TemporaryDirectory(dir=work) as scratch:
        start = time.perf_counter()
        try:
            pairs, said = arm_pairs(cell, bench, data, Path(scratch))
            settings = arm_settings(cell, bench, data, tuned, Path(scratch)) if pairs is not None else None
        except UserError as e:
            return {"cell": asdict(cell), "refused": str(e)}
        filtered = time.perf_counter()
        model, trained = trained_model(pairs, settings, bench, Path(scratch))
        found = time.perf_counter()
        evaluation = evaluate_cell(model, bench, data)
        end = time.perf_counter()
    seconds = {"filter": filtered - start, "train": found - filtered, "evaluate": end - found}
    return {
        "cell": asdict(cell),
        "settings": None if settings is None else settings.model_dump(exclude_unset=True),
        "said": said,
        "pairs": None if pairs is None else pairs_found(pairs, flipped_after(pairs, cell, bench, data), data),
        "training": trained,
        **evaluation,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


# ---------------------------------------------------------------------------------------------------- an arm's pairs


def arm_pairs(cell: Cell, bench: Bench, data: Data, scratch: Path) -> tuple[PairData | None, list[str]]:
    """The pairs that an arm trains on, and what the filter said; None for an arm that is not trained."""
    arm = bench.arms[cell.arm]
    if not arm.trained:
        return None, []
    run = data.run("none0" if arm.true_labels else cell.labels)
    pairs, said = filtered_pairs(run, arm, scratch / "shards")
    if arm.as_many_as is not None:
        other, _ = filtered_pairs(run, bench.arms[arm.as_many_as], scratch / "as-many-as")
        order = sorted(range(len(pairs)), key=lambda i: wrong_labels.draw("random", cell.seed, pairs.ids[i]))
        pairs = pairs.subset(np.sort(order[: len(other)]))
    return pairs, said


def filtered_pairs(run: Path, arm: Arm, out: Path) -> tuple[PairData, list[str]]:
    from rmo_curate.filter.command import run_filter
    from rmo_curate.filter.settings import FilterSettings

    *said, _ = run_filter(run, out, FilterSettings(**(arm.filter or {})))  # the last line says where the shards are
    return open_pairs(out), said


def arm_settings(cell: Cell, bench: Bench, data: Data, tuned: Mapping[str, Any], scratch: Path) -> TrainSettings:
    arm = bench.arms[cell.arm]
    own = {name: cell.rate if value == "rate" else value for name, value in (arm.train or {}).items()}
    placed = {name: value for name, value in bench.score.items() if name in ("attention", "tokens_per_batch")}
    everywhere = {"loss": cell.loss, "seed": cell.seed, "logging_steps": 10_000}
    settings = TrainSettings(**{**bench.train, **placed, **everywhere, **tuned, **own})
    if arm.steps_as is None:
        return settings
    other, _ = filtered_pairs(data.run(cell.labels), bench.arms[arm.steps_as], scratch / "steps-as")
    steps = math.ceil(math.ceil(len(other) / settings.pairs_per_step()) * settings.num_train_epochs)
    return settings.model_copy(update={"max_steps": steps})


def flipped_after(pairs: PairData, cell: Cell, bench: Bench, data: Data) -> np.ndarray:
    """Which of an arm's pairs have a wrong label after filtering, bool [pairs]; flips that were flipped back do not."""
    wrong = np.array([str(i) in data.flipped for i in pairs.ids])
    if (bench.arms[cell.arm].filter or {}).get("action") != "flip":
        return wrong
    given = open_pairs(data.run(cell.labels))
    place = {i: k for k, i in enumerate(given.ids)}
    exchanged = [not np.array_equal(pairs.chosen[k], given.chosen[place[i]]) for k, i in enumerate(pairs.ids)]
    return wrong ^ np.array(exchanged)


def pairs_found(pairs: PairData, wrong: np.ndarray, data: Data) -> dict[str, Any]:
    """How many pairs are kept, how many of them have the wrong label, and what weight and confidence those have."""

    def mean(values: np.ndarray, rows: np.ndarray) -> float | None:
        return float(values[rows].mean()) if rows.any() else None

    return {
        "kept": len(pairs),
        "flipped_kept": int(wrong.sum()),
        "flipped": len(data.flipped),
        **{
            f"{name}_of_{kind}": mean(getattr(pairs, name), rows)
            for name in ("weight", "label_confidence")
            for kind, rows in (("right", ~wrong), ("flipped", wrong))
        },
    }


# ---------------------------------------------------------------------------------------------------- training


def trained_model(
    pairs: PairData | None, settings: TrainSettings | None, bench: Bench, scratch: Path
) -> tuple[Any, dict[str, Any]]:
    """The trained policy in eval mode (the reference, where nothing is trained), and the last step's metrics."""
    from rmo_train.training.job import build_job, check_step_zero, step_zero_noise
    from rmo_train.training.loop import train
    from rmo_train.training.plan import make_plan

    if pairs is None or settings is None:
        return reference(bench.model), {}
    pairs = pairs.labelled(settings.soft_labels)
    plan = make_plan(pairs, settings)
    out = scratch / "model"
    out.mkdir()
    job = build_job(pairs, plan, bench.model, out, settings, {})
    check_step_zero(job, step_zero_noise(job, bench.model))
    metrics = train(job)
    job.model.eval()
    kept = ("loss", "rewards/accuracies", "rewards/margins", "pairs_per_second", "amplify/reach")
    return job.model, {"steps": plan.steps, **{name: round(metrics[name], 4) for name in kept if name in metrics}}


@cache
def reference(model: str) -> Any:
    """The untrained model, loaded once a process."""
    from rmo_train.model.policy import load_model

    return load_model(model, "auto")


@cache
def renderer(model: str) -> Any:
    from rmo_train.data.rendering import Renderer
    from rmo_train.model.policy import load_tokenizer

    return Renderer(load_tokenizer(model))


# ---------------------------------------------------------------------------------------------------- evaluation


def evaluate_cell(model: Any, bench: Bench, data: Data) -> dict[str, Any]:
    """Reward margins of the held-out pairs, and where there are prompts the policy's answers to them."""
    from rmo_train.forward.layout import Workload, choose_layout

    held_out = open_pairs(data.folder / "heldout" / "run")
    placed = {name: value for name, value in bench.score.items() if name in ("attention", "tokens_per_batch")}
    layout = choose_layout(model, Workload.of(held_out), **placed)
    found = {"margins": reward_margins(model, held_out, layout)}
    return {**found, **answered(model, bench, data.prompts, layout)} if data.prompts else found


def reward_margins(model: Any, held_out: PairData, layout: Any) -> list[float]:
    """D - D_ref of every held-out pair, nats."""
    from rmo_train.evaluation.evaluate import logps_in_parts, reference_logps
    from rmo_train.forward.attention import use_attention

    use_attention(model, layout.path)
    gained = logps_in_parts(model, held_out, layout) - reference_logps(held_out)
    return [round(float(m), 3) for m in gained[:, 0] - gained[:, 1]]


def answered(model: Any, bench: Bench, prompts: Sequence[Prompt], layout: Any) -> dict[str, Any]:
    """The policy's answers to every prompt: `drawn` answers at T = 1 and, last, the greedy one.

    satisfied: one string of 0 and 1 per prompt, a digit per answer. tokens: mean of the drawn answers per prompt. kl:
    mean of log pi - log pi_0 over the drawn answers, nats per prompt: an estimate of KL(pi || pi_0).
    """
    ids = [prompt_ids(bench.model, p) for p in prompts]
    each = bench.drawn + 1
    drawn = [n < bench.drawn for n in range(each)]
    answers = answers_of(model, bench, ids, drawn, DRAWS_SEED, bench.answer_tokens)
    ends, tokenizer = end_tokens_of(bench.model), renderer(bench.model).tokenizer
    satisfied, tokens = [], []
    for n, prompt in enumerate(prompts):
        own = [checked(prompt, a, tokenizer, ends) for a in answers[n * each : (n + 1) * each]]
        satisfied.append("".join(str(int(a.satisfies)) for a in own))
        tokens.append(round(float(np.mean([a.tokens for a in own[: bench.drawn]])), 2))
    drawn = [answers[n * each : n * each + bench.drawn] for n in range(len(prompts))]
    return {"satisfied": satisfied, "tokens": tokens, "kl": divergence(model, bench, ids, drawn, layout)}


def answers_of(
    model: Any, bench: Bench, ids: Sequence[Sequence[int]], drawn: Sequence[bool], seed: int, new_tokens: int
) -> list[list[int]]:
    """Token ids of len(drawn) answers to every prompt, prompt after prompt."""
    asks = [Ask(prompt, is_drawn) for prompt in ids for is_drawn in drawn]
    ends = end_tokens_of(bench.model)
    return sample(model, asks, ends, new_tokens=new_tokens, batch_size=bench.batch, seed=seed)


def prompt_ids(model: str, prompt: Prompt) -> list[int]:
    ids: list[int] = renderer(model).render_prompt([{"role": "user", "content": prompt.text}])
    return ids


def end_tokens_of(model: str) -> tuple[int, ...]:
    from rmo_train.generation.command import end_tokens

    return end_tokens(model, renderer(model))


def divergence(
    model: Any, bench: Bench, ids: Sequence[Sequence[int]], drawn: Sequence[Sequence[Sequence[int]]], layout: Any
) -> list[float]:
    """Mean log pi - log pi_0 over each prompt's answers, nats [prompts]."""
    from rmo_train.forward.attention import use_attention
    from rmo_train.forward.logps import response_logps
    from rmo_train.forward.packing import Tree

    each = bench.drawn
    trees = [
        Tree(
            np.array(prompt, dtype=np.int32),
            tuple(np.array(a, dtype=np.int32) for a in answers),
            tuple(range(n * each, (n + 1) * each)),
        )
        for n, (prompt, answers) in enumerate(zip(ids, drawn, strict=True))
    ]
    found = []
    for policy in (model, reference(bench.model)):
        use_attention(policy, layout.path)
        found.append(response_logps(policy, trees, len(trees) * each, layout))
    return [round(float(k), 3) for k in (found[0] - found[1]).reshape(-1, each).mean(1)]
