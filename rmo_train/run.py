"""`rmo-train run` and `rmo-train eval`: open the data, check identities, build the job, train, write the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from rmo_train.checkpoint import STATE, TrainState, load_state, newest_checkpoint, read_metrics
from rmo_train.config import TrainSettings
from rmo_train.errors import ProcessingError, UserError
from rmo_train.pairs import PairData, open_pairs
from rmo_train.plan import Plan, make_plan
from rmo_train.progress import say
from rmo_train.tables import (
    MANIFEST,
    check_key,
    make_manifest,
    read_json,
    read_manifest,
    write_bytes,
    write_json,
    write_table,
)

if TYPE_CHECKING:
    from rmo_train.distributed import World

IDENTITY_FIELDS = ("weights_sha256", "tokenizer_sha256", "template_sha256")
LAYOUT = "layout.json"
TRAINED_ON = pa.schema([("id", pa.string()), ("group", pa.string())])


def check_identity(data: PairData, identity: Any, fields: tuple[str, ...] = IDENTITY_FIELDS) -> None:
    """Refuse a model that is not the one whose log-probs the data carries, naming the field."""
    for field in fields:
        expected, found = data.reference.get(field), getattr(identity, field)
        if expected != found:
            raise UserError(
                f"{field.removesuffix('_sha256')}: {data.folder} was scored with {data.reference.get('name')!r} "
                f"({expected!s:.12}), but {identity.name!r} has {found!s:.12}. Give the scored model as --model, score "
                "again with this one, or pass --ignore-identity if you know that they fit."
            )


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
) -> list[str]:
    """Train `model` on the kept pairs of `shards`; the model, its card and its metrics are written to `out`.

    Returns the lines to print. The same call again resumes an interrupted run, and does nothing after a finished one.
    """
    from rmo_train.distributed import joined

    with joined() as world:
        return _run_training(
            shards, model, out, settings, world, eval_data, resume_from_checkpoint, ignore_identity, overwrite, dry_run
        )


def _run_training(
    shards: Path,
    model: str,
    out: Path,
    settings: TrainSettings,
    world: World,
    eval_data: Path | None,
    resume_from_checkpoint: Path | None,
    ignore_identity: bool,
    overwrite: bool,
    dry_run: bool,
) -> list[str]:
    from rmo_train.policy import identity

    data = open_pairs(shards)
    plan = make_plan(data, settings, world.size)
    found = identity(model)
    if not ignore_identity:
        check_identity(data, found)
    held_out = _open_eval(eval_data, data, found, ignore_identity)
    if dry_run:
        return [f"would train {model} on {shards} into {out}", *plan.lines(settings)]
    key = run_key(data, found, settings, held_out, plan)
    if overwrite and world.is_main and out.exists():
        shutil.rmtree(out)
    world.wait()
    done = read_manifest(out)
    if done is not None:
        check_key(done["key"], key, out)
        return [f"{out}: already trained with these settings; nothing to do (--overwrite trains again)"]
    if out.exists() and any(p.name[0] != "." for p in out.iterdir()) and not (out / "run.json").is_file():
        raise UserError(f"--out {out}: the folder has files that are no training run; choose another folder")
    if (out / "run.json").is_file():
        check_key(json.loads((out / "run.json").read_text(encoding="utf-8")), key, out)
    world.wait()  # all have looked at the folder before one changes it
    if world.is_main:
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "run.json").is_file():
            write_json(out / "run.json", key)
    world.wait()
    checkpoint = resume_from_checkpoint or newest_checkpoint(out)
    state = load_state(checkpoint, key) if checkpoint else None
    if checkpoint:
        say(f"resuming from {checkpoint}")
    return _train_and_write(data, plan, model, out, settings, held_out, key, state, ignore_identity, world)


def run_key(
    data: PairData, identity: Any, settings: TrainSettings, held_out: PairData | None, plan: Plan
) -> dict[str, Any]:
    """What makes a training run this one: a checkpoint or a folder of another run is refused by name of the field."""
    # What is logged or kept, and how pairs are packed and dealt: a run may go on with other values of these.
    incidental = {
        "logging_steps", "save_steps", "save_total_limit", "eval_steps", "tokens_per_batch", "attention", "fsdp",
        "per_device_train_batch_size", "gradient_accumulation_steps",
    }  # fmt: skip
    return {
        "data": data.fingerprint,
        "model": identity.weights_sha256,
        "tokenizer": identity.tokenizer_sha256,
        "eval_data": held_out.fingerprint if held_out else None,
        "pairs_per_step": plan.pairs_per_step,
        **{k: v for k, v in settings.model_dump().items() if k not in incidental},
    }


def _open_eval(folder: Path | None, data: PairData, identity: Any, ignore_identity: bool) -> PairData | None:
    if folder is None:
        return None
    held_out = open_pairs(folder)
    if not ignore_identity:
        check_identity(held_out, identity)
    ids, prompts = len(set(held_out.ids) & set(data.ids)), len(set(held_out.groups) & set(data.groups))
    if ids or prompts:
        raise UserError(
            f"--eval-data {folder} shares {ids} ids and {prompts} prompts with the training data; "
            "evaluate on pairs of other prompts"
        )
    return held_out


def training_dtype(settings: TrainSettings, data: PairData) -> str:
    """The precision that the references were scored in, unless --bf16 or --no-bf16."""
    if settings.bf16 is None:
        return data.reference.get("dtype", "float32")
    return "bfloat16" if settings.bf16 else "float32"


def build_job(
    data: PairData, plan: Plan, model_name: str, out: Path, settings: TrainSettings, key: dict[str, Any], **more: Any
) -> Any:
    """Load the policy and choose its layout."""
    import torch

    from rmo_train.attention import use_attention
    from rmo_train.distributed import World
    from rmo_train.layout import choose_layout
    from rmo_train.loop import Job
    from rmo_train.policy import context_length, load_for_training, load_tokenizer

    torch.manual_seed(settings.seed)
    tokenizer = load_tokenizer(model_name)
    model: Any = load_for_training(
        model_name,
        training_dtype(settings, data),
        lora=settings.lora,
        gradient_checkpointing=settings.gradient_checkpointing,
        seed=settings.seed,
    )
    longest = data.longest()
    if longest > context_length(model.config):
        raise UserError(
            f"{data.folder}: a pair has {longest} tokens, the model's context is {context_length(model.config)}; "
            "score again with --max-length of at most that"
        )
    world: World = more.get("world") or World()
    remembered = out / LAYOUT  # an interrupted run goes on with the attention it began with: to the last bit
    attention = read_json(remembered)["attention"] if remembered.is_file() else settings.attention
    layout = world.agreed(choose_layout(model, data, attention=attention, tokens_per_batch=settings.tokens_per_batch))
    use_attention(model, layout.path)
    if world.is_main:
        write_json(remembered, {"attention": layout.path})
    say(f"{layout.reason}; {layout.budget} tokens a row, {training_dtype(settings, data)}")
    return Job(model, tokenizer, data, settings, plan, layout, out, key, **more)


def _train_and_write(
    data: PairData,
    plan: Plan,
    model: str,
    out: Path,
    settings: TrainSettings,
    held_out: PairData | None,
    key: dict[str, Any],
    state: TrainState | None,
    ignore_identity: bool,
    world: World,
) -> list[str]:
    from rmo_train.card import model_card
    from rmo_train.distributed import shard
    from rmo_train.loop import check_step_zero, run_evaluation, save_policy, train

    for line in plan.lines(settings):
        say(line)
    job = build_job(data, plan, model, out, settings, key, eval_data=held_out, world=world)
    if state is None:
        say("the reference check is skipped (--ignore-identity)" if ignore_identity else
            check_step_zero(job, step_zero_noise(job, model)))  # fmt: skip
        if world.is_main:
            _try_save(job)
    if settings.fsdp:
        shard(job.model, world)
    metrics = train(job, state)
    evaluation = run_evaluation(job) if held_out is not None else None
    save_policy(job, out)
    if not world.is_main:
        return []
    if evaluation is not None:
        write_json(out / "eval_results.json", evaluation.as_json())
    trained_on = pa.table({"id": list(data.ids), "group": list(data.groups)}, schema=TRAINED_ON)
    part = write_table(out / "trained_on.parquet", trained_on, TRAINED_ON, out)
    card = model_card(model, data, settings, plan, metrics, evaluation)
    write_bytes(out / "README.md", card.encode())
    write_json(out / STATE, {"global_step": plan.steps, "log_history": read_metrics(out)})
    write_json(
        out / MANIFEST, make_manifest("train", key, {"pairs": len(data), "steps": plan.steps}, [part], model=model)
    )
    lines = [f"trained {plan.steps} steps on {len(data)} pairs; model in {out}"]
    return [*lines, *(evaluation.lines() if evaluation else [])]


def step_zero_noise(job: Any, model_name: str) -> float:
    """sd of D (nats) that the reference columns may differ by: scoring's recorded noise, and that of another precision.

    Where the policy's precision is not the references', the model is also run in theirs on the same pairs.
    """
    import torch

    from rmo_train.attention import use_attention
    from rmo_train.logps import margin_sd, pair_logps
    from rmo_train.loop import STEP_ZERO_PAIRS
    from rmo_train.policy import load_model

    recorded = float((job.data.manifest.get("noise_sd") or {}).get("base") or 0.0)
    scored_in = job.data.reference.get("dtype")
    if scored_in is None or next(job.model.parameters()).dtype == getattr(torch, scored_in):
        return recorded
    rows = job.data.spread(STEP_ZERO_PAIRS)
    found = []
    for model in (job.model, load_model(model_name, scored_in)):
        model.eval()
        use_attention(model, job.layout.path)
        found.append(pair_logps(model, job.data, rows, job.layout))
    return float(np.hypot(recorded, margin_sd(*found)))


def _try_save(job: Any) -> None:
    """The final save, tried before the first step: a full disk or a missing right is found now, not hours later."""
    from rmo_train.policy import save_model

    trial = job.out / ".save-test"
    try:
        save_model(job.model, job.tokenizer, trial)
    except ProcessingError as e:
        raise ProcessingError(f"{job.out}: the model cannot be saved there ({e}); nothing was trained") from e
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def run_eval(
    folder: Path, model: str, *, dtype: str = "auto", tokens_per_batch: int | None = None, ignore_identity: bool = False
) -> Any:
    """The Evaluation of `model` on a run or shard folder, with how far that overlaps what the model was trained on."""
    from rmo_train.evaluate import evaluate, overlap_of, reference_logps, summarise
    from rmo_train.layout import choose_layout
    from rmo_train.policy import identity, load_model, resolve
    from rmo_train.tables import read_table

    data = open_pairs(folder)
    found = identity(model)
    if not ignore_identity:
        check_identity(data, found, ("tokenizer_sha256", "template_sha256"))
    overlap = (0, 0)
    trained = resolve(model)
    manifest = read_manifest(trained) if (trained / "trained_on.parquet").is_file() else None
    if manifest is not None:
        seen = read_table(trained, manifest, TRAINED_ON)
        overlap = overlap_of(set(seen["id"].to_pylist()), set(seen["group"].to_pylist()), data)
        if any(overlap):
            say(f"warning: {overlap[0]} pairs and {overlap[1]} prompts of {folder} were in this model's training data")
    precision = data.reference.get("dtype", "auto") if dtype == "auto" else dtype
    if found.weights_sha256 == data.reference.get("weights_sha256") and precision == data.reference.get("dtype"):
        say(f"{model} is the reference itself: its log-probs are read from the data, nothing is computed")
        return summarise(data, reference_logps(data), overlap)
    policy = load_model(model, precision)
    layout = choose_layout(policy, data, tokens_per_batch=tokens_per_batch)
    return evaluate(policy, data, layout, overlap)
