"""`rmo-train run` and `rmo-train eval`: open the data, check identities, build the job, train, write the model."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_train.console.errors import ProcessingError, UserError, free_space
from rmo_train.console.progress import say
from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData, open_pairs
from rmo_train.evaluation.evaluate import evaluate, overlap_of, reference_logps, summarise
from rmo_train.evaluation.result import Evaluation
from rmo_train.forward.distributed import World, joined, require_several, shard
from rmo_train.forward.layout import Workload, choose_layout
from rmo_train.forward.memory import RowMemory, device_memory, most_tokens, training_state
from rmo_train.model.adapters import check_adapter
from rmo_train.model.models import flags_needed
from rmo_train.model.policy import (
    context_length,
    identity,
    load_config,
    load_model,
    parameter_count,
    resolve,
    save_model,
)
from rmo_train.report import (
    already_trained,
    checkpoint_lines,
    dry_run_lines,
    overlap_warning,
    own_reference,
    plan_lines,
    step_zero,
    too_long_line,
    too_long_to_train,
    trained_lines,
    unfiltered_line,
)
from rmo_train.store.files import read_json, write_bytes, write_json
from rmo_train.store.folder_lock import making
from rmo_train.store.manifests import RunManifest, TrainManifest, check_key, read_manifest, require_manifest
from rmo_train.store.tables import read_table, write_table
from rmo_train.training.card import model_card
from rmo_train.training.checkpoint import (
    EVALUATION,
    STATE,
    TrainState,
    best_checkpoint,
    checkpoint_bytes,
    load_state,
    newest_checkpoint,
    remove_resumable,
    take_model,
)
from rmo_train.training.curves import draw_curves
from rmo_train.training.hints import Hints
from rmo_train.training.job import (
    Job,
    build_job,
    check_step_zero,
    step_zero_noise,
    training_dtype,
    with_all_references,
)
from rmo_train.training.loop import run_evaluation, save_policy, train
from rmo_train.training.plan import Plan, make_plan
from rmo_train.training.record import Record, read_metrics
from rmo_train.training.saves import Saves
from rmo_train.training.settings import TrainSettings
from rmo_train.training.stopping import StopRequest
from rmo_train.training.trackers import open_trackers, require_trackers

RENDERING_FIELDS = ("tokenizer_sha256", "template_sha256")
IDENTITY_FIELDS = ("weights_sha256", *RENDERING_FIELDS)
STEP_ZERO = "step_zero.json"
RECORD = "run.json"  # the key of a run that has begun
TRAINED_ON = pa.schema([("id", pa.string()), ("group", pa.string())])


@dataclass(frozen=True)
class Trained:
    """The result of a training run."""

    out: Path
    pairs: int
    steps: int
    metrics: Mapping[str, Any]  # of the last step
    evaluation: Evaluation | None
    best: Path | None  # the checkpoint used as the model, if held-out accuracy chose one


def check_identity(data: PairData, identity: Any, fields: tuple[str, ...] = IDENTITY_FIELDS) -> None:
    """Refuse a model other than the one that scored the data; the error names the field that differs."""
    for field in fields if data.reference.is_known() else ():
        expected, own = getattr(data.reference, field), getattr(identity, field)
        if expected != own:
            raise UserError(
                f"{field.removesuffix('_sha256')}: {data.folder} was scored with {data.reference.name!r} "
                f"({expected!s:.12}), but {identity.name!r} has {own!s:.12}. Give that model as --model, score the "
                "pairs again with this one, or pass --ignore-identity if you know that they match."
            )


def check_lengths(data: PairData, model: str) -> None:
    """Refuse data with a pair longer than the model's context."""
    longest, context = data.longest(), context_length(load_config(model))
    if longest > context:
        raise UserError(
            f"{data.folder}: a pair has {longest:,} tokens, more than the context of {model} ({context:,}); score the "
            f"pairs again with --max-length {context} or less"
        )


def check_memory(data: PairData, model: str, settings: TrainSettings, processes: int) -> None:
    """Warn about pairs that may be too long to train on this machine, by the estimate of `rmo_train.forward.memory`.

    Not an error, because the estimate is conservative and the machine may have more memory than it reports (swap).
    """
    room, row = training_room(model, training_dtype(settings, data), settings, processes)
    tokens = data.prompt.lengths + data.chosen.lengths + data.rejected.lengths
    limit = most_tokens(row, room)
    if limit and (over := np.flatnonzero(tokens > limit)).size:
        longest = over[np.argsort(-tokens[over], kind="stable")]
        say(too_long_to_train(
            [(str(data.ids[i]), int(tokens[i])) for i in longest], limit, row(int(tokens.max())), room,
            checkpointing=settings.gradient_checkpointing,
        ))  # fmt: skip


def training_room(model: str, dtype: str, settings: TrainSettings, processes: int) -> tuple[int, Callable[[int], int]]:
    """Bytes left for a row after weights, gradients and optimizer, and the bytes of a row of `tokens` tokens."""
    config = load_config(model)
    device, memory = device_memory()
    state = training_state(parameter_count(model), dtype, lora=settings.lora is not None)
    row = partial(RowMemory.of(config, dtype).training, checkpointing=settings.gradient_checkpointing, device=device)
    return memory - state // (processes if settings.fsdp else 1), row


def run_training(
    shards: Path,
    model: str,
    out: Path,
    settings: TrainSettings,
    *,
    eval_data: Path | None = None,
    resume_from_checkpoint: Path | None = None,
    ignore_identity: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Train `model` on the kept pairs of `shards`; the model, its card and its metrics are written to `out`.

    Returns the lines to print. Repeating the call resumes an interrupted run; after a finished run it does nothing.
    `clock` (seconds) decides when the checkpoints of `save_minutes` are due.
    """
    with joined() as world, ExitStack() as held:
        require_trackers(settings.report_to)
        if settings.fsdp:
            require_several(world)
        data = open_pairs(shards).labelled(settings.soft_labels)
        check_adapter(model)
        settings = settings.of_model(parameter_count(model))
        plan = make_plan(data, settings, world.size)
        model_identity = identity(model)
        if not ignore_identity:
            check_identity(data, model_identity, IDENTITY_FIELDS if data.has_references else RENDERING_FIELDS)
        held_out = _open_eval(eval_data, data, model_identity, settings, ignore_identity)
        for pairs in (data, held_out) if held_out is not None else (data,):
            check_lengths(pairs, model)
        if world.is_main:
            check_memory(data, model, settings, world.size)
            if isinstance(data.manifest, RunManifest):
                say(unfiltered_line(shards, len(data)))
            if data.manifest is not None and data.manifest.too_long is not None:
                say(too_long_line(data.manifest.too_long))
        size = checkpoint_bytes(model, training_dtype(settings, data), settings.lora)
        planned = [*plan_lines(plan, settings), *checkpoint_lines(settings, plan.steps, size, free_space(out)[1])]
        key = run_key(data, model_identity, settings, held_out, plan)
        if dry_run:
            if not overwrite and _check_folder(out, key) is not None:
                return [already_trained(out)]
            return dry_run_lines(model, shards, out, planned)
        if world.is_main:
            held.enter_context(making(out, "rmo-train"))
        if overwrite and world.is_main and out.exists():
            shutil.rmtree(out)
        world.wait()
        if _check_folder(out, key) is not None:
            if world.is_main:
                remove_resumable(out)  # in case the run was killed after the manifest was written
            return [already_trained(out)]
        _claim(out, key, world)
        checkpoint = resume_from_checkpoint or newest_checkpoint(out)
        state = load_state(checkpoint, key) if checkpoint else None
        if checkpoint:
            say(f"resuming from {checkpoint}")
        for line in planned:
            say(line)
        job = build_job(data, plan, model, out, settings, key, eval_data=held_out, world=world)
        return _train_and_write(with_all_references(job, model), model, state, ignore_identity, clock)


def _check_folder(out: Path, key: Mapping[str, Any]) -> TrainManifest | None:
    """UserError if `out` is another run's folder or contains other files; returns the manifest of a finished run."""
    done = read_manifest(out, TrainManifest)
    record = out / RECORD
    if done is not None or record.is_file():
        check_key(done.key if done is not None else read_json(record), key, out)
    elif out.exists() and any(p.name[0] != "." for p in out.iterdir()):
        raise UserError(
            f"--out {out}: the folder contains files that are not from a training run; choose another folder"
        )
    return done


def _claim(out: Path, key: Mapping[str, Any], world: World) -> None:
    """Make `out` this run's folder."""
    record = out / RECORD
    world.wait()  # all processes have checked the folder before one changes it
    if world.is_main:
        out.mkdir(parents=True, exist_ok=True)
        if not record.is_file():
            write_json(record, key)
    world.wait()


def run_key(
    data: PairData, identity: Any, settings: TrainSettings, held_out: PairData | None, plan: Plan
) -> dict[str, Any]:
    """The identity of a training run. Checkpoints and folders of other runs are refused; the error names the field."""
    # Settings of logging, saving, packing and distribution may change when a run is resumed.
    incidental = {
        "logging_steps", "save_minutes", "save_steps", "save_total_limit", "eval_steps", "tokens_per_batch",
        "attention", "fsdp", "per_device_train_batch_size", "gradient_accumulation_steps", "report_to",
    }  # fmt: skip
    return {
        "data": data.fingerprint,
        "model": identity.weights_sha256,
        "tokenizer": identity.tokenizer_sha256,
        "eval_data": held_out.fingerprint if held_out else None,
        "pairs_per_step": plan.pairs_per_step,
        **{k: v for k, v in settings.model_dump().items() if k not in incidental},
    }


def _open_eval(
    folder: Path | None, data: PairData, identity: Any, settings: TrainSettings, ignore_identity: bool
) -> PairData | None:
    if folder is None:
        if settings.eval_steps:
            raise UserError("--eval-steps needs held-out pairs: give --eval-data, or leave out --eval-steps")
        return None
    held_out = open_pairs(folder)
    if not ignore_identity:
        check_identity(held_out, identity, IDENTITY_FIELDS if held_out.has_references else RENDERING_FIELDS)
    ids, prompts = len(set(held_out.ids) & set(data.ids)), len(set(held_out.groups) & set(data.groups))
    if ids or prompts:
        raise UserError(
            f"--eval-data {folder} shares {counted(ids, 'id')} and {counted(prompts, 'prompt')} with the training "
            "data; give pairs with different prompts"
        )
    return held_out


def _train_and_write(
    job: Job, model: str, state: TrainState | None, ignore_identity: bool, clock: Callable[[], float]
) -> list[str]:
    out, settings, world = job.out, job.settings, job.world
    if state is None:
        _check_start(job, model, ignore_identity)
        if world.is_main:
            _try_save(job)
    if settings.fsdp:
        shard(job.model)
    reported = settings.report_to if world.is_main else ()
    hints = Hints(job.plan.steps, referenced=job.data.has_references, max_grad_norm=settings.max_grad_norm)
    with open_trackers(reported, out, job.key, state.step if state else 0) as trackers, StopRequest() as request:
        record = Record(out, settings.logging_steps, hints=hints, trackers=trackers)
        saves = Saves(settings.save_steps, settings.save_minutes, clock=clock, told=lambda: request.heard)
        metrics = train(replace(job, record=record, saves=saves), state) or read_metrics(out)[-1]
    evaluation = run_evaluation(job) if job.eval_data is not None else None
    best = best_checkpoint(out) if settings.load_best_model_at_end else None
    if best is not None and evaluation is not None:
        kept = Evaluation.from_json(read_json(best / EVALUATION))
        best = best if kept.reward_accuracy.value >= evaluation.reward_accuracy.value else None
        evaluation = kept if best else evaluation
    if best is None:
        save_policy(job, out)
    elif world.is_main:
        take_model(best, out)
    if not world.is_main:
        return []
    trained = Trained(out, len(job.data), job.plan.steps, metrics, evaluation, best)
    _write_results(job, model, trained)
    remove_resumable(out)
    return trained_lines(trained)


def _check_start(job: Job, model: str, ignore_identity: bool) -> None:
    """Compare the untrained policy with its references, and record the difference."""
    if ignore_identity:
        say("the model is not compared with the reference log-probs (--ignore-identity)")
        return
    check = check_step_zero(job, step_zero_noise(job, model))
    say(step_zero(check))
    if check is not None and job.world.is_main:
        write_json(job.out / STEP_ZERO, asdict(check))


def _write_results(job: Job, model: str, trained: Trained) -> None:
    """Write everything except the weights, the manifest last."""
    out, data, evaluation, best = job.out, job.data, trained.evaluation, trained.best
    if evaluation is not None:
        write_json(out / EVALUATION, evaluation.as_json())
    trained_on = pa.table({"id": list(data.ids), "group": list(data.groups)}, schema=TRAINED_ON)
    part = write_table(out / "trained_on.parquet", trained_on, TRAINED_ON, out)
    card = model_card(model, data, job.settings, job.plan, trained, draw_curves(out))
    write_bytes(out / "README.md", card.encode())
    state = {"global_step": trained.steps, "best_model_checkpoint": best.name if best else None}
    write_json(out / STATE, {**state, "log_history": read_metrics(out)})
    counts = {"pairs": trained.pairs, "steps": trained.steps}
    TrainManifest(key=job.key, counts=counts, parts=(part,), model=model, allowed=flags_needed(model) or None).write(
        out
    )


def _try_save(job: Job) -> None:
    """Test the final save before the first step, to find a full disk or missing permission now, not hours later."""
    trial = job.out / ".save-test"
    try:
        save_model(job.model, job.tokenizer, trial)
    except ProcessingError as e:
        raise ProcessingError(f"{job.out}: cannot save the model there ({e}); nothing was trained") from e
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def trained_in(out: Path) -> Trained:
    """The result of a finished training run, read from `out`."""
    manifest = require_manifest(out, TrainManifest, "rmo-train run SHARDS --model MODEL --out OUT")
    evaluation = Evaluation.from_json(read_json(out / EVALUATION)) if (out / EVALUATION).is_file() else None
    best = read_json(out / STATE)["best_model_checkpoint"]
    lines = read_metrics(out)
    return Trained(
        out=out,
        pairs=manifest.counts["pairs"],
        steps=manifest.counts["steps"],
        metrics=lines[-1] if lines else {},
        evaluation=evaluation,
        best=out / best if best else None,
    )


def run_eval(
    folder: Path, model: str, *, dtype: str = "auto", tokens_per_batch: int | None = None, ignore_identity: bool = False
) -> Evaluation:
    """Evaluate `model` on a run or shard folder, and count the overlap with the model's training data."""
    data = open_pairs(folder)
    check_adapter(model)
    model_identity = identity(model)
    check_lengths(data, model)
    if not ignore_identity:
        check_identity(data, model_identity, RENDERING_FIELDS)
    overlap = (0, 0)
    trained = resolve(model)
    manifest = read_manifest(trained, TrainManifest) if (trained / "trained_on.parquet").is_file() else None
    if manifest is not None:
        seen = read_table(trained, manifest, TRAINED_ON)
        overlap = overlap_of(set(seen["id"].to_pylist()), set(seen["group"].to_pylist()), data)
        if any(overlap):
            say(overlap_warning(folder, *overlap))
    precision = data.reference.dtype or "auto" if dtype == "auto" else dtype
    reference = (data.reference.weights_sha256, data.reference.dtype)
    if (model_identity.weights_sha256, precision) == reference:
        say(own_reference(model))
        return summarise(data, reference_logps(data), overlap)
    policy = load_model(model, precision)
    layout = choose_layout(policy, Workload.of(data), tokens_per_batch=tokens_per_batch)
    return evaluate(policy, data, layout, overlap)
