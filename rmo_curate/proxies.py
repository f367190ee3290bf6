"""Proxies: short DPO runs on the data itself. Cross-fitted (K >= 2), no proxy scores a pair whose prompt it saw."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from rmo_curate.scoring import Assignment, ScoreStage, in_group_order
from rmo_train.config import TrainSettings
from rmo_train.errors import UserError
from rmo_train.pairs import PairData
from rmo_train.progress import say
from rmo_train.settings import Settings
from rmo_train.tables import (
    SPLIT_SCHEMA,
    canonical_json,
    fraction_of_hash,
    make_manifest,
    read_json,
    read_manifest,
    sha256_text,
    write_json,
    write_table,
)

LORA_RANK = 16
PAIRS_PER_DEVICE = 4
LEARNING_RATE = {"lora": 2e-4, "full": 5e-6}


class ProxySettings(Settings):
    """How proxies are trained: plain DPO, no diversification, no amplification."""

    folds: int = Field(2, ge=1, description="Proxies, each trained without one fold; 1 = in-sample, as the paper")
    steps: tuple[int, ...] = Field((), description="Optimizer steps saved and scored, as 8,16 (default: the last)")
    lora: int | None = Field(None, ge=1, description=f"LoRA rank of a proxy (default: {LORA_RANK})")
    full: bool = Field(False, description="Train all weights of a proxy instead of LoRA")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate (default: 2e-4 LoRA, 5e-6 full)")
    epochs: float = Field(1.0, gt=0, description="Passes over a proxy's training part")
    batch_size: int = Field(16, ge=1, description="Pairs an optimizer step")
    beta: float = Field(0.1, gt=0, description="DPO's beta")
    seed: int = Field(42, ge=0, description="Seed of the split, the order and the initialisation")

    @field_validator("steps", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str | int):
            value = [value]
        return tuple(part.strip() for item in value for part in str(item).split(",") if part.strip())

    @model_validator(mode="after")
    def _lora_or_full(self) -> Self:
        if self.full and self.lora is not None:
            raise ValueError("--full trains all weights and --lora an adapter: give one of them")
        return self

    def training(self, total_steps: int) -> TrainSettings:
        """The trainer's settings of one proxy."""
        micro = math.gcd(self.batch_size, PAIRS_PER_DEVICE)
        return TrainSettings(
            loss="dpo",
            beta=self.beta,
            amplify=0,
            diversify=False,
            lora=None if self.full else (self.lora or LORA_RANK),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=self.batch_size // micro,
            max_steps=total_steps,
            learning_rate=self.learning_rate or LEARNING_RATE["full" if self.full else "lora"],
            seed=self.seed,
        )


def assign_folds(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of each pair, int16 [n]: whole prompt groups, in hashed order, each to the fold with the fewest pairs."""
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < folds:
        raise UserError(
            f"{folds} folds need at least {folds} distinct prompts, the data has {len(sizes)}; use fewer --folds"
        )
    load = [0] * folds
    fold_of: dict[str, int] = {}
    for group in sorted(sizes, key=lambda g: (fraction_of_hash("fold", seed, g), g)):
        fold_of[group] = load.index(min(load))
        load[fold_of[group]] += sizes[group]
    return np.array([fold_of[g] for g in groups], dtype=np.int16)


def total_steps(folds_of: np.ndarray, settings: ProxySettings) -> int:
    """Optimizer steps of every proxy of a family: those of the largest training part."""
    n = len(folds_of)
    largest = n if settings.folds == 1 else n - int(np.bincount(folds_of).min())
    return max(1, math.ceil(math.ceil(largest / settings.batch_size) * settings.epochs))


def steps_of(settings: ProxySettings, total: int) -> tuple[int, ...]:
    """The steps to save and score, ascending; the last is always one of them."""
    beyond = [s for s in settings.steps if not 1 <= s <= total]
    if beyond:
        raise UserError(
            f"--steps {beyond[0]}: a proxy trains {total} steps on this data; choose 1 to {total}, or more --epochs"
        )
    return tuple(sorted({*settings.steps, total}))


def family_of(run: Path, key: Mapping[str, Any], folds: int) -> tuple[str, int]:
    """Name and number of the proxy family with this key: the existing one, or the next to be made."""
    kind = "oof" if folds >= 2 else "insample"
    known = {f.parent.name: read_json(f) for f in sorted((run / "proxies").glob("*/family.json"))}
    for name, family in known.items():
        if family["key"] == key:
            return name, family["order"]
    taken = [name for name in known if name == kind]
    name = f"{kind}-{sha256_text(canonical_json(key))[:8]}" if taken else kind
    return name, len(known)


def train_family(
    run: Path, data: PairData, reference: str, settings: ProxySettings, pairs_sha: str
) -> tuple[str, list[ScoreStage]]:
    """Train the family's proxies where they are not there yet; returns its name and the score stages of its steps."""
    folds_of = assign_folds(data.groups, settings.folds, settings.seed)
    total = total_steps(folds_of, settings)
    steps = steps_of(settings, total)
    key = {**settings.model_dump(mode="json"), "steps": list(steps), "pairs": pairs_sha, "reference": data.reference}
    family, order = family_of(run, key, settings.folds)
    folder = run / "proxies" / family
    write_json(folder / "family.json", {"key": key, "order": order})
    split = pa.table(
        {"id": [str(i) for i in data.ids], "group": [str(g) for g in data.groups], "fold": folds_of},
        schema=SPLIT_SCHEMA,
    )
    part = write_table(folder / "split.parquet", split, SPLIT_SCHEMA, folder)
    if read_manifest(folder) is None:
        for fold in range(settings.folds):
            rows = np.flatnonzero(folds_of != fold) if settings.folds > 1 else np.arange(len(data))
            train_proxy(folder / f"fold-{fold}", data.subset(rows), reference, settings, total, steps)
        write_json(
            folder / "manifest.json", make_manifest("proxies", key, {"folds": settings.folds, "steps": total}, [part])
        )
    else:
        say(f"{family}: proxies already trained")
    order_rows = in_group_order(data.groups)
    stages = []
    for step in steps:
        models = [str(folder / f"fold-{k}" / f"step-{step}") for k in range(settings.folds)]
        cross_fitted = settings.folds > 1
        assignments = [
            Assignment(models[k], order_rows[folds_of[order_rows] == k], k) for k in range(settings.folds)
        ] if cross_fitted else [Assignment(models[0], order_rows)]  # fmt: skip
        stages.append(
            ScoreStage(
                name=f"{family}-{step}",
                key={"family": key, "step": step, "dtype": data.reference["dtype"], "engine": data.reference["engine"]},
                kind="proxy",
                order=order,
                assignments=assignments,
                held_out=cross_fitted,
                family=family,
                step=step,
                folds=settings.folds,
            )
        )
    return family, stages


def train_proxy(
    folder: Path, data: PairData, reference: str, settings: ProxySettings, total: int, steps: tuple[int, ...]
) -> None:
    """Train one proxy with DPO and keep its model at `steps` as `folder/step-<n>`; what is there is not trained again.

    The models are written to a folder of the run's own first: a proxy is there with all of its steps or not at all.
    """
    wanted = {step: folder / f"step-{step}" for step in steps}
    if all((path / "trained.json").is_file() for path in wanted.values()):
        return
    from rmo_train.loop import check_step_zero, train
    from rmo_train.plan import make_plan
    from rmo_train.run import build_job, step_zero_noise

    training = settings.training(total)
    say(f"proxy {folder.parent.name}/{folder.name}: {len(data)} pairs, {total} steps")
    folder.mkdir(parents=True, exist_ok=True)
    job = build_job(data, make_plan(data, training), reference, folder, training, {}, models_at=wanted)
    say(check_step_zero(job, step_zero_noise(job, reference)))
    train(job)
    for path in wanted.values():
        write_json(path / "trained.json", {"pairs": len(data), "steps": total})
