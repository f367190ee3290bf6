"""The training loop: next batch, forward, loss, backward, clip, finite check, step, log, evaluate, save."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rmo_train.console.errors import ProcessingError, Stopped
from rmo_train.console.progress import progress
from rmo_train.data.pairs import PairData
from rmo_train.evaluation.evaluate import evaluate
from rmo_train.evaluation.result import Evaluation
from rmo_train.forward.distributed import ALONE, deal, full_weights
from rmo_train.forward.logps import pack_logps
from rmo_train.forward.packing import Pack, first_fit, make_pack, make_row_packs, pair_trees
from rmo_train.model.policy import save_model
from rmo_train.objective.amplify import Amplifier, amplified
from rmo_train.objective.losses import Loss, LossParameters, PairLogps, loss_named, sft
from rmo_train.report import stopped_line
from rmo_train.training.checkpoint import TrainState, remove_old_checkpoints, restore_random_state, save_checkpoint
from rmo_train.training.job import Job
from rmo_train.training.optimizer import MasterAdamW, learning_rate_at
from rmo_train.training.record import Record
from rmo_train.training.saves import Saves, Wish
from rmo_train.training.throughput import Speed


def train(job: Job, state: TrainState | None = None) -> dict[str, Any]:
    """Train to the end, from `state` if resuming; writes to `job.out` and returns the last metrics.

    Raises Stopped after saving a checkpoint if the run was asked to stop.
    """
    settings, plan, world, saves = job.settings, job.plan, job.world, job.saves or Saves()
    loss = loss_named(settings.loss)
    optimizer = MasterAdamW(job.model.parameters(), settings.peak_learning_rate, settings.weight_decay, world)
    start, tokens_seen = 0, 0
    if state is not None:
        optimizer.load_state_dict(state.optimizer)
        restore_random_state(state.random, world.rank, next(job.model.parameters()).device)
        start, tokens_seen = state.step, state.tokens
    record = job.record or Record(job.out)
    if world.is_main:
        record.rewind(start)
    speed, metrics = Speed(job.model, world.size), {}
    job.model.train()
    with progress("train", plan.steps, "step", start) as bar:
        for step in range(start, plan.steps):
            speed.start()
            epoch, at = divmod(step, plan.batches_per_epoch)
            if at == 0 or step == start:
                batches = plan.batches(settings.seed, epoch)
            rows, done = batches[at], step + 1
            mine = packed_batch(job, rows)
            with saying_of(job.data, rows):
                own = [forward_backward(job, loss, rows, packs, members) for packs, members in mine]
            turns = world.gathered([Turn(own, saves.wish())])
            parts = [part for turn in turns for part in turn.parts]
            optimizer.gather_gradients()
            grad_norm = optimizer.clip(settings.max_grad_norm)
            metrics = batch_metrics(parts, loss, plan.parameters, plan.amplifier)
            if not (np.isfinite(grad_norm) and np.isfinite(metrics["loss"])):
                raise ProcessingError(
                    f"step {done}: loss {metrics['loss']}, gradient norm {grad_norm}: not finite; the "
                    "weights were not updated. Use a lower --learning-rate, or train with --no-bf16"
                )
            lr = learning_rate_at(
                step, plan.steps, settings.peak_learning_rate, settings.lr_scheduler_type, plan.warmup_steps
            )
            optimizer.step(lr)
            tokens = sum(p.tokens for p in parts)
            tokens_seen += tokens
            metrics |= {"grad_norm": grad_norm, "learning_rate": lr, "epoch": round(done / plan.batches_per_epoch, 4)}
            metrics |= {"num_tokens": tokens_seen, **speed.stop(len(rows), tokens, sum(p.predicted for p in parts))}
            evaluation = run_evaluation(job) if _due(settings.eval_steps, done) and job.eval_data is not None else None
            metrics |= evaluation.as_metrics() if evaluation is not None else {}
            if world.is_main:
                record.add(done, metrics, due=evaluation is not None or done == plan.steps)
            if job.models_at and done in job.models_at:
                save_policy(job, job.models_at[done])
            decision = saves.decide(done, plan.steps, [turn.wish for turn in turns])
            if decision.save:
                _save(job, optimizer, done, tokens_seen, evaluation, stays=decision.stays)
                saves.saved()
            if decision.stop:
                raise Stopped(stopped_line(job.out, done, plan.steps))
            bar.advance(1, f"loss {metrics['loss']:.4f}, {metrics['pairs_per_second']:.3g} pairs/s")
    optimizer.close()
    return metrics


@contextmanager
def saying_of(data: PairData, rows: np.ndarray) -> Iterator[None]:
    """If a batch (the pairs `rows`) runs out of memory, name its longest pair and the remedies."""
    try:
        yield
    except torch.OutOfMemoryError as e:
        tokens = (data.prompt.lengths + data.chosen.lengths + data.rejected.lengths)[rows]
        at = int(tokens.argmax())
        raise ProcessingError(
            f"out of memory in training; the longest pair of the batch is {data.ids[rows[at]]}, {tokens[at]} tokens "
            "(prompt and both responses). Try a smaller --tokens-per-batch, --gradient-checkpointing, --lora, --bf16, "
            "or score with a smaller --max-length and filter again"
        ) from e


def _save(
    job: Job, optimizer: MasterAdamW, step: int, tokens: int, evaluation: Evaluation | None, *, stays: bool
) -> None:
    """Write a checkpoint and remove the old ones."""
    # Which checkpoint is best must not depend on the clock, so checkpoints saved by time are not evaluated.
    measured = evaluation.as_json() if evaluation is not None and stays else None
    save_checkpoint(job, optimizer, step, tokens, measured, stays=stays)
    if job.world.is_main:
        keep_best = job.settings.load_best_model_at_end
        remove_old_checkpoints(job.out, step, job.settings.save_total_limit, keep_best=keep_best)


def _due(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


@dataclass(frozen=True)
class Turn:
    """What a process sends to all others in a step: its part of the batch, and its wish to save or stop afterwards."""

    parts: list[Part]
    wish: Wish


@dataclass(frozen=True)
class Part:
    """Result of one pack: log-probs without gradient (on the CPU), its share of the mean loss, tokens computed."""

    logps: PairLogps
    loss: float
    tokens: int
    predicted: int  # response tokens among them


def packed_batch(job: Job, rows: np.ndarray) -> list[tuple[list[Pack], np.ndarray]]:
    """This process's pairs of the batch, in groups that fill a packed row: (packs, positions in `rows`) per group.

    A pair is never split across groups, since its loss needs both log-probs. Without shared prompts, a group has
    several packs with rows of similar length. Under FSDP2 all processes gather weights together, so all need the same
    number of groups; a process with fewer computes a dummy pair (no positions).
    """
    tokens = [job.layout.tokens([t]) for t in pair_trees(job.data, rows)]
    budget = job.layout.budget
    shares = [
        [share[g] for g in first_fit([tokens[k] for k in share], budget)] for share in deal(tokens, job.world.size)
    ]
    groups = shares[job.world.rank]
    if job.settings.fsdp:
        groups = groups + [np.array([], dtype=np.int64)] * (max(map(len, shares)) - len(groups))
    shortest = rows[[int(np.argmin(tokens))]]
    trees = [pair_trees(job.data, rows[g] if len(g) else shortest) for g in groups]
    packs = [[make_pack(t)] if job.layout.shared else make_row_packs(t, budget) for t in trees]
    return list(zip(packs, groups, strict=True))


def forward_backward(job: Job, loss: Loss, rows: np.ndarray, packs: list[Pack], members: np.ndarray) -> Part:
    """Forward and backward of one group of pairs; gradients add up to those of the mean over the batch's pairs."""
    data, chosen_rows = job.data, rows[members]
    device = next(job.model.parameters()).device
    summed: Any = sum(pack_logps(job.model, pack, max(2, 2 * len(members))) for pack in packs)
    logps = select_pairs(data, chosen_rows, summed.view(-1, 2)[: len(members)], device)
    confidence = torch.from_numpy(data.label_confidence[chosen_rows]).float().to(device)
    value = amplified(loss, logps, job.plan.parameters, confidence, job.plan.amplifier)
    weight = data.weight[chosen_rows] / (data.weight[rows].sum() or 1.0)  # a batch with total weight 0 has no gradient
    total = (value * torch.from_numpy(weight).float().to(device)).sum()
    detached = each_column(lambda column: column.detach().cpu(), logps)
    if not len(members):
        (0 * summed.sum()).backward()
        return Part(detached, 0.0, 0, 0)
    total.backward()
    return Part(detached, float(total.detach()), sum(p.size for p in packs), sum(len(p.targets) for p in packs))


def select_pairs(data: PairData, rows: np.ndarray, summed: torch.Tensor, device: torch.device) -> PairLogps:
    """Log-probs of the pairs `rows`: the policy's from `summed` [n, 2], the reference's from the data's columns."""

    def column(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values[rows]).float().to(device)

    return PairLogps(
        chosen=summed[:, 0],
        rejected=summed[:, 1],
        ref_chosen=None if data.ref_chosen is None else column(data.ref_chosen),
        ref_rejected=None if data.ref_rejected is None else column(data.ref_rejected),
        chosen_tokens=column(data.chosen.lengths),
        rejected_tokens=column(data.rejected.lengths),
    )


def each_column(change: Callable[..., torch.Tensor], *logps: PairLogps) -> PairLogps:
    """`change` applied to every column of one or several PairLogps; a missing column stays None."""
    columns: Any = {
        field.name: None if getattr(logps[0], field.name) is None else change(*(getattr(x, field.name) for x in logps))
        for field in fields(PairLogps)
    }
    return PairLogps(**columns)


def batch_metrics(
    parts: list[Part], loss: Loss, parameters: LossParameters, amplifier: Amplifier | None
) -> dict[str, Any]:
    """The batch's metrics under TRL's names; rewards are beta x log-ratio to the reference (or beta x log-prob)."""

    logps = each_column(lambda *columns: torch.cat(columns), *(p.logps for p in parts))
    base_chosen = 0 if logps.ref_chosen is None else logps.ref_chosen
    base_rejected = 0 if logps.ref_rejected is None else logps.ref_rejected
    chosen = parameters.beta * (logps.chosen - base_chosen)
    rejected = parameters.beta * (logps.rejected - base_rejected)
    metrics = {
        "loss": sum(p.loss for p in parts),
        "rewards/chosen": float(chosen.mean()),
        "rewards/rejected": float(rejected.mean()),
        "rewards/margins": float((chosen - rejected).mean()),
        "rewards/accuracies": float((chosen > rejected).float().mean()),
        "logps/chosen": float(logps.chosen.mean()),
        "logps/rejected": float(logps.rejected.mean()),
    }
    right = (chosen > rejected).float()
    for name, pairs in (
        ("longer", logps.chosen_tokens > logps.rejected_tokens),
        ("shorter", logps.chosen_tokens < logps.rejected_tokens),
    ):
        if pairs.any():  # over the pairs whose chosen answer is longer, or shorter
            metrics[f"rewards/accuracies_{name}"] = float(right[pairs].mean())
    if parameters.sft_weight:
        metrics["nll_loss"] = float(sft(logps).mean())
    if amplifier is not None:
        metrics["amplify/reach"] = float(amplifier.reach(amplifier.margin(loss, logps, parameters)))
    return metrics


def run_evaluation(job: Job) -> Evaluation:
    assert job.eval_data is not None
    job.model.eval()
    # All processes gather sharded weights together, but their parts of the data would have different numbers of packs;
    # so each process computes all of it.
    result = evaluate(job.model, job.eval_data, job.layout, world=ALONE if job.settings.fsdp else job.world)
    job.model.train()
    return result


def save_policy(job: Job, out: Path) -> None:
    """Write the current model; every process takes part."""
    weights = full_weights(job.model)
    if job.world.is_main:
        save_model(job.model, job.tokenizer, out, state_dict=weights)
    job.world.wait()
