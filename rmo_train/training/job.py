"""Builds and checks the inputs of the training loop: the policy, its layout, its references."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rmo_train.console.errors import UserError
from rmo_train.console.progress import say
from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData
from rmo_train.forward.attention import use_attention
from rmo_train.forward.distributed import ALONE, World
from rmo_train.forward.layout import Layout, Workload, choose_layout
from rmo_train.forward.logps import margin_sd, pair_logps
from rmo_train.model.policy import load_for_training, load_model, load_tokenizer, resolve_dtype
from rmo_train.objective.losses import loss_named
from rmo_train.store.files import read_json, write_json
from rmo_train.training.plan import Plan
from rmo_train.training.record import Record
from rmo_train.training.references import with_references
from rmo_train.training.saves import Saves
from rmo_train.training.settings import TrainSettings

LAYOUT = "layout.json"
STEP_ZERO_PAIRS = 16


@dataclass(frozen=True)
class Job:
    """All inputs of the loop, checked."""

    model: Any
    tokenizer: Any
    data: PairData
    settings: TrainSettings
    plan: Plan
    layout: Layout
    out: Path
    key: Mapping[str, Any]  # identity of the run: checkpoints of other runs are refused
    eval_data: PairData | None = None
    models_at: Mapping[int, Path] | None = None  # step -> folder in which its model is kept
    world: World = ALONE
    record: Record | None = None  # default: metrics.jsonl in `out`, every step
    saves: Saves | None = None  # default: no checkpoints


@dataclass(frozen=True)
class StepZero:
    """Difference between the untrained policy and the reference columns, nats."""

    mean_margin: float
    tolerance: float


def build_job(
    data: PairData,
    plan: Plan,
    model_name: str,
    out: Path,
    settings: TrainSettings,
    key: Mapping[str, Any],
    *,
    eval_data: PairData | None = None,
    models_at: Mapping[int, Path] | None = None,
    world: World = ALONE,
    record: Record | None = None,
) -> Job:
    """Load the policy and choose its layout."""
    torch.manual_seed(settings.seed)
    tokenizer = load_tokenizer(model_name)
    model: Any = load_for_training(
        model_name,
        training_dtype(settings, data),
        lora=settings.lora,
        gradient_checkpointing=settings.gradient_checkpointing,
        seed=settings.seed,
    )
    remembered = out / LAYOUT  # a resumed run uses the same attention, to be bit-identical
    attention = read_json(remembered)["attention"] if remembered.is_file() else settings.attention
    layout = world.agreed(
        choose_layout(model, Workload.of(data), attention=attention, tokens_per_batch=settings.tokens_per_batch)
    )
    use_attention(model, layout.path)
    if world.is_main:
        write_json(remembered, {"attention": layout.path, "gap_nats_per_token": layout.gap})
    say(f"{layout.reason}; {layout.budget:,} tokens per row, {training_dtype(settings, data)}")
    return Job(model, tokenizer, data, settings, plan, layout, out, key, eval_data, models_at, world, record)


def training_dtype(settings: TrainSettings, data: PairData) -> str:
    """The precision of the references (if there are none, of the device), unless --bf16 or --no-bf16 is given."""
    if settings.bf16 is not None:
        return "bfloat16" if settings.bf16 else "float32"
    scored_in = data.reference.dtype if data.has_references else None
    return scored_in or str(resolve_dtype("auto")).removeprefix("torch.")


def with_all_references(job: Job, model: str) -> Job:
    """The job with reference log-probs, if its loss or evaluation needs them."""
    about = {
        "name": model,
        "weights_sha256": job.key["model"],
        "dtype": training_dtype(job.settings, job.data),
    }

    def complete(data: PairData, name: str) -> PairData:
        return with_references(data, job.model, job.layout, job.out / "references" / name, about, job.world)

    if loss_named(job.settings.loss).needs_reference:
        job = replace(job, data=complete(job.data, "train"))
    return replace(job, eval_data=complete(job.eval_data, "eval")) if job.eval_data is not None else job


def check_step_zero(job: Job, noise_sd: float) -> StepZero | None:
    """Check that the untrained policy reproduces the reference columns: |mean margin| within the noise of scoring.

    Otherwise raises a UserError with the likely causes; None if there are no such columns. `noise_sd`: sd of the
    difference in D between two packings, in nats.
    """
    data = job.data
    if data.ref_chosen is None or data.ref_rejected is None:
        return None
    rows = data.spread(STEP_ZERO_PAIRS)
    job.model.eval()
    logps = pair_logps(job.model, data, rows, job.layout)
    margins = (logps[:, 0] - logps[:, 1]) - (data.ref_chosen - data.ref_rejected)[rows]
    tolerance = max(1e-3, 4 * noise_sd)
    mean = float(margins.mean())
    if abs(mean) > tolerance:
        raise UserError(
            "step 0: before any training, the model's margins differ from the reference log-probs of the data by "
            f"{mean:+.4f} nats on average over {counted(len(rows), 'pair')}; rounding explains at most "
            f"{tolerance:.4f}. Likely causes: --model is not the model that scored the pairs, or its chat template, "
            "tokenizer, precision (--bf16/--no-bf16) or engine differs. Score the pairs again with this "
            "model."
        )
    return StepZero(mean, tolerance)


def step_zero_noise(job: Job, model_name: str) -> float:
    """Noise of the reference columns, as sd of D in nats: the recorded noise of scoring, plus that of the precision.

    If the policy's precision differs from the references', the model is also run in theirs on the same pairs.
    """
    recorded = (job.data.manifest.noise_sd.get("base") if job.data.manifest else None) or 0.0
    scored_in = job.data.reference.dtype
    if scored_in is None or next(job.model.parameters()).dtype == getattr(torch, scored_in):
        return recorded
    rows = job.data.spread(STEP_ZERO_PAIRS)
    scored = []
    for model in (job.model, load_model(model_name, scored_in)):
        model.eval()
        use_attention(model, job.layout.path)
        scored.append(pair_logps(model, job.data, rows, job.layout))
    return float(np.hypot(recorded, margin_sd(*scored)))
