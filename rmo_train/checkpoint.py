"""Training checkpoints: weights, optimizer, position, random state and identity, written whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rmo_train.distributed import full_weights
from rmo_train.errors import ProcessingError, UserError
from rmo_train.optimizer import MasterAdamW
from rmo_train.policy import save_model
from rmo_train.progress import say
from rmo_train.tables import (
    append_line,
    check_key,
    damaged_file,
    file_hashes,
    read_json,
    sync_folder,
    write_bytes,
    write_json,
)

METRICS = "metrics.jsonl"
STATE = "trainer_state.json"
RECORD = "checkpoint.json"  # written last: the hashes of a checkpoint's files


@dataclass(frozen=True)
class TrainState:
    """What resuming needs besides the model: optimizer (with the master weights), random state, finished steps."""

    step: int
    optimizer: dict[str, Any]
    rng: torch.Tensor


def save_checkpoint(
    out: Path,
    model: Any,
    tokenizer: Any,
    optimizer: MasterAdamW,
    step: int,
    key: Mapping[str, Any],
    keep: int | None,
) -> None:
    """Write `out/checkpoint-<step>` under a temporary name, then rename it; `keep`: newest ones that stay.

    Every process takes part, the main one writes.
    """
    state, weights = optimizer.state_dict(), full_weights(model)
    if optimizer.world.is_main:
        _write_checkpoint(out, model, tokenizer, state, weights, step, key, keep)
    optimizer.world.wait()


def _write_checkpoint(
    out: Path,
    model: Any,
    tokenizer: Any,
    state: dict[str, Any],
    weights: Mapping[str, torch.Tensor] | None,
    step: int,
    key: Mapping[str, Any],
    keep: int | None,
) -> None:
    final, partial = out / f"checkpoint-{step}", out / f".checkpoint-{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        save_model(model, tokenizer, partial, state_dict=weights)
        torch.save({"optimizer": state, "rng": torch.get_rng_state()}, partial / "training.pt")
        write_json(partial / STATE, {"global_step": step, "key": dict(key), "log_history": read_metrics(out)})
        write_json(partial / RECORD, {"step": step, "sha256": file_hashes(partial)})
    except (OSError, RuntimeError) as e:
        shutil.rmtree(partial, ignore_errors=True)
        raise ProcessingError(f"cannot write {final}: {e}; checkpoints before it are untouched") from e
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    sync_folder(out)
    if keep is not None:
        for old in checkpoints(out)[:-keep]:
            shutil.rmtree(old)


def checkpoints(out: Path) -> list[Path]:
    """The checkpoint folders of `out`, oldest first."""
    found = [(int(m[1]), p) for p in out.glob("checkpoint-*") if (m := re.fullmatch(r"checkpoint-(\d+)", p.name))]
    return [p for _, p in sorted(found)]


def newest_checkpoint(out: Path) -> Path | None:
    """The newest checkpoint whose files match their hashes; damaged ones are named and passed over."""
    for folder in reversed(checkpoints(out)):
        said = damage(folder)
        if said is None:
            return folder
        say(f"{folder}: {said}; using the checkpoint before it")
    return None


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    if not (folder / RECORD).is_file():
        return f"incomplete (no {RECORD})"
    return damaged_file(folder, read_json(folder / RECORD)["sha256"])


def load_state(folder: Path, key: Mapping[str, Any]) -> TrainState:
    """The state of a checkpoint; raises UserError naming each field in which it is another run's."""
    if said := damage(folder):
        raise UserError(f"{folder}: {said}; choose another checkpoint")
    state = read_json(folder / STATE)
    check_key(state["key"], key, folder)
    saved = torch.load(folder / "training.pt", weights_only=True, map_location="cpu")
    return TrainState(step=state["global_step"], optimizer=saved["optimizer"], rng=saved["rng"])


def append_metrics(out: Path, line: Mapping[str, Any]) -> None:
    append_line(out / METRICS, json.dumps(line))


def read_metrics(out: Path) -> list[dict[str, Any]]:
    """The logged lines, without one that a kill cut short."""
    path = out / METRICS
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def rewind_metrics(out: Path, step: int) -> None:
    """Forget lines after `step`, so that no step is ever logged twice."""
    kept = [line for line in read_metrics(out) if line["step"] <= step]
    write_bytes(out / METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode())
