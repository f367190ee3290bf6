"""Training checkpoints: weights, optimizer, position, random state and identity, written atomically."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from rmo_train.console.errors import ProcessingError, UserError, cannot_write
from rmo_train.console.progress import say
from rmo_train.console.quiet import quiet
from rmo_train.forward.distributed import full_weights
from rmo_train.model.policy import add_lora, move_into, save_model, without_weights
from rmo_train.store.files import damaged_file, file_hashes, read_json, sync_folder, write_json
from rmo_train.store.manifests import check_key
from rmo_train.training.job import Job
from rmo_train.training.optimizer import MasterAdamW
from rmo_train.training.record import read_metrics, series

STATE = "trainer_state.json"
RECORD = "checkpoint.json"  # written last: the hashes of a checkpoint's files
TRAINING = "training.pt"
EVALUATION = "eval_results.json"
HEADLINE = "eval/reward_accuracy"  # the metric by which checkpoints are compared
RESUMABLE = 2  # number of checkpoints kept to resume from, in case the newest is damaged


def checkpoint_bytes(model: str, dtype: str, lora: int | None) -> int:
    """Size of one checkpoint on disk, from the model's configuration alone, without loading weights.

    Counts the saved weights and, for each trained weight, a float32 master and AdamW's two moments.
    """
    with torch.device("meta"), quiet():
        made: Any = without_weights(model)
        if lora is not None:
            made = add_lora(made, lora, 0)
    trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
    return trained * (getattr(torch, dtype).itemsize + 3 * torch.float32.itemsize)


class CheckpointRecord(BaseModel):
    """RECORD of a checkpoint."""

    model_config = ConfigDict(frozen=True)

    step: int
    stays: bool  # after the run has ended
    sha256: dict[str, str]  # of each file


class Progress(BaseModel):
    """STATE of a checkpoint, as far as resuming needs it."""

    model_config = ConfigDict(frozen=True)

    global_step: int
    num_input_tokens_seen: int
    key: dict[str, Any]  # identity of the run


@dataclass(frozen=True)
class TrainState:
    """What resuming needs in addition to the model: optimizer (with master weights), random state, progress."""

    step: int
    tokens: int  # computed so far
    optimizer: dict[str, Any]
    random: list[dict[str, torch.Tensor]]  # of each process, by `random_state`


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of this process's random numbers: the CPU's, and the GPU's if it trains on one."""
    of_cpu = {"cpu": torch.get_rng_state()}
    return of_cpu | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else of_cpu


def restore_random_state(states: Sequence[Mapping[str, torch.Tensor]], rank: int, device: torch.device) -> None:
    """Draw on as process `rank` did, of those whose `states` were saved.

    With more processes than then, several draw alike; a GPU that a state lacks is left as it is.
    """
    state = states[rank % len(states)]
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def save_checkpoint(
    job: Job,
    optimizer: MasterAdamW,
    step: int,
    tokens: int,
    evaluation: Mapping[str, Any] | None = None,
    *,
    stays: bool = True,
) -> None:
    """Write `checkpoint-<step>` of the job; every process takes part, the main one writes.

    `tokens`: computed so far. `stays`: keep it after the run has ended.
    """
    random = job.world.gathered([random_state(next(job.model.parameters()).device)])
    training = {"optimizer": optimizer.state_dict(), "random": random}
    weights = full_weights(job.model)
    if job.world.is_main:
        with _written_whole(job.out / f"checkpoint-{step}") as folder:
            save_model(job.model, job.tokenizer, folder, state_dict=weights)
            torch.save(training, folder / TRAINING)
            if evaluation is not None:
                write_json(folder / EVALUATION, evaluation)
            state = {"global_step": step, "num_input_tokens_seen": tokens, "key": dict(job.key)}
            write_json(folder / STATE, {**state, "log_history": read_metrics(job.out)})
            record = CheckpointRecord(step=step, stays=stays, sha256=file_hashes(folder))
            write_json(folder / RECORD, record.model_dump())
    job.world.wait()


@contextmanager
def _written_whole(final: Path) -> Iterator[Path]:
    """A folder to write into under a temporary name, then renamed to `final`; if writing fails, it is removed."""
    out, partial = final.parent, final.with_name(f".{final.name}.partial")
    _remove_partial(out)
    try:
        yield partial
    except (OSError, RuntimeError) as e:
        shutil.rmtree(partial, ignore_errors=True)
        raise ProcessingError(f"cannot write {final}: {e}; earlier checkpoints are unaffected") from e
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    sync_folder(out)


def _remove_partial(out: Path) -> None:
    """Remove partial saves of interrupted runs. A new run may save at other steps, so it would not overwrite them."""
    for partial in out.glob(".checkpoint-*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def remove_old_checkpoints(out: Path, step: int, limit: int | None, *, keep_best: bool) -> None:
    """Remove old checkpoints. Of those that stay after the run, keeps the newest `limit` (None: all) and, with
    `keep_best`, the best. Of the others, keeps the newest two, or `limit` if that is less.

    Checkpoints after `step`, and those without a readable record, are neither counted nor removed: the run did not
    resume from them.
    """
    best = best_checkpoint(out) if keep_best else None
    staying: list[Path] = []
    going: list[Path] = []
    for folder in (f for f in checkpoints(out) if step_of(f) <= step):
        if (record := _record(folder)) is not None:
            (staying if record.stays else going).append(folder)
    old = [*(staying[:-limit] if limit else ()), *going[: -min(RESUMABLE, limit or RESUMABLE)]]
    for folder in old:
        if folder != best:
            shutil.rmtree(folder)


def remove_resumable(out: Path) -> None:
    """Remove checkpoints that were kept only for resuming, since the run has ended."""
    _remove_partial(out)
    for folder in checkpoints(out):
        record = _record(folder)
        if record is not None and not record.stays:  # one without a readable record is never removed
            shutil.rmtree(folder)


def _record(folder: Path) -> CheckpointRecord | None:
    """A checkpoint's record; None if it has no readable one."""
    try:
        return CheckpointRecord.model_validate(read_json(folder / RECORD))
    except (UserError, ValidationError):
        return None


def best_checkpoint(out: Path) -> Path | None:
    """The checkpoint with the highest held-out reward accuracy (the earliest at a tie); None if there is none."""
    accuracy = {f"checkpoint-{step}": value for step, value in series(read_metrics(out), HEADLINE)}
    measured = [p for p in checkpoints(out) if p.name in accuracy and (p / EVALUATION).is_file()]
    undamaged = (p for p in sorted(measured, key=lambda p: accuracy[p.name], reverse=True) if damage(p) is None)
    return next(undamaged, None)


def take_model(checkpoint: Path, out: Path) -> None:
    """Copy a checkpoint's model and tokenizer into `out`."""
    temporary = out / ".taking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(checkpoint, temporary, ignore=shutil.ignore_patterns(TRAINING, STATE, RECORD, EVALUATION))
        move_into(temporary, out)
    except OSError as e:
        raise cannot_write(out, e) from e
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def checkpoints(out: Path) -> list[Path]:
    """The checkpoint folders of `out`, oldest first."""
    return sorted((p for p in out.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)), key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def newest_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint that can be resumed from; damaged ones are reported and skipped."""
    left = checkpoints(out)
    while left:
        folder = left.pop()
        said = damage(folder)
        if said is None:
            return folder
        then = "using the previous checkpoint" if left else "there is no earlier one, so training starts at step 0"
        say(f"{folder}: {said}; {then}")
    return None


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    if not (folder / RECORD).is_file():
        return f"incomplete (no {RECORD})"
    record = _record(folder)
    if record is None:
        return f"{RECORD} is damaged"
    return damaged_file(folder, record.sha256) or _unreadable(folder)


def _unreadable(folder: Path) -> str | None:
    """Which file of a checkpoint, though as it was recorded, is not what a training has written, or None."""
    try:
        Progress.model_validate(read_json(folder / STATE))
    except (UserError, ValidationError):
        return f"{STATE} is damaged"
    try:
        saved = torch.load(folder / TRAINING, weights_only=True, map_location="cpu", mmap=True)  # reads no weights yet
        missing = {"optimizer", "random"} - saved.keys()
    except (OSError, MemoryError):
        raise
    except Exception:  # of many kinds, with advice that would be dangerous to follow
        return f"{TRAINING} is damaged"
    return f"{TRAINING} is damaged" if missing else None


def load_state(folder: Path, key: Mapping[str, Any]) -> TrainState:
    """The state of a checkpoint; a UserError names each field in which it belongs to another run."""
    if said := damage(folder):
        raise UserError(
            f"--resume-from-checkpoint {folder}: {said}; give another checkpoint, or leave the flag out to resume from "
            "the newest undamaged one in --out"
        )
    progress = Progress.model_validate(read_json(folder / STATE))
    check_key(progress.key, key, folder)
    saved = torch.load(folder / TRAINING, weights_only=True, map_location="cpu")
    return TrainState(progress.global_step, progress.num_input_tokens_seen, saved["optimizer"], saved["random"])
