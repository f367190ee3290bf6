"""Proxies: short DPO runs on the data itself. Cross-fitted (K >= 2), no proxy scores a pair whose prompt it saw."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_curate.runs.manifests import ProbeManifest, TrainedManifest
from rmo_curate.score.scoring import Assignment, ScoreStage, in_group_order
from rmo_curate.score.settings import ProxySettings
from rmo_train.console.errors import UserError, cannot_write
from rmo_train.console.progress import say
from rmo_train.data.pairs import PairData
from rmo_train.store.files import canonical_json, damaged_file, file_hashes, read_json, sha256_text, write_json
from rmo_train.store.id_hash import draw_bits
from rmo_train.store.manifests import PartFile, read_manifest, read_one_of
from rmo_train.store.tables import SPLIT_SCHEMA, write_table

FAMILY = "family.json"  # a family's key, written before its training
TRAINED = "trained.json"  # in a proxy's model folder: its training ran to the end; the hashes of the model's files


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
    names = list(sizes)
    drawn = draw_bits("fold", seed, pa.array(names, pa.string()))
    for _, group in sorted(zip(drawn.tolist(), names, strict=True)):
        fold_of[group] = load.index(min(load))
        load[fold_of[group]] += sizes[group]
    return np.array([fold_of[g] for g in groups], dtype=np.int16)


def total_steps(folds_of: np.ndarray, settings: ProxySettings) -> int:
    """Optimizer steps of every proxy of a family: those of the largest training part."""
    n = len(folds_of)
    largest = n if settings.trained_folds == 1 else n - int(np.bincount(folds_of).min())
    return max(1, math.ceil(math.ceil(largest / settings.batch_size) * settings.epochs))


def steps_of(settings: ProxySettings, total: int) -> tuple[int, ...]:
    """The steps to save and score, ascending; the last is always one of them."""
    beyond = [s for s in settings.steps if not 1 <= s <= total]
    if beyond:
        raise UserError(
            f"--steps {beyond[0]}: a proxy trains {total} steps on this data; choose 1 to {total}, or more --epochs"
        )
    return tuple(sorted({*settings.steps, total}))


@dataclass(frozen=True)
class Family:
    """Proxies, or probes, made alike on the folds of one split: what is decided before anything is learned."""

    name: str
    order: int  # among the run's families
    key: dict[str, Any]
    folds_of: np.ndarray  # int16 [pairs]

    @property
    def folds(self) -> int:
        found: int = self.key["folds"]
        return found

    @property
    def cross_fitted(self) -> bool:
        return self.folds > 1


@dataclass(frozen=True)
class TrainedFamily(Family):
    """Proxies that are trained."""

    settings: ProxySettings
    total: int  # optimizer steps of every proxy
    steps: tuple[int, ...]  # those saved and scored

    def model(self, run: Path, fold: int, step: int) -> Path:
        return run / "proxies" / self.name / f"fold-{fold}" / f"step-{step}"

    def models(self, run: Path) -> list[Path]:
        """Every model folder of the family."""
        return [self.model(run, fold, step) for fold in range(self.folds) for step in self.steps]

    def training_rows(self, fold: int) -> np.ndarray:
        """The pairs that the proxy of `fold` is trained on: all but the fold's own; in-sample, all."""
        return np.flatnonzero(self.folds_of != fold) if self.cross_fitted else np.arange(len(self.folds_of))


def plan_family(run: Path, data: PairData, settings: ProxySettings, pairs_sha: str) -> TrainedFamily:
    """Everything about a family that is known before training; writes nothing. UserError where it cannot be trained."""
    folds = settings.trained_folds
    folds_of = assign_folds(data.groups, folds, settings.seed)
    least = len(data) - (int(np.bincount(folds_of).max()) if folds > 1 else 0)
    if least < settings.batch_size:  # data of a few pairs: steps of all that a proxy may see
        settings = settings.model_copy(update={"batch_size": least})
    total = total_steps(folds_of, settings)
    steps = steps_of(settings, total)
    training = settings.training(total)
    key = {
        **settings.model_dump(mode="json"),
        "folds": folds,
        "lora": training.lora,
        "learning_rate": training.learning_rate,
        "steps": list(steps),
        "pairs": pairs_sha,
        "reference": reference_key(data),
    }
    name, order = family_of(run, key)
    return TrainedFamily(name, order, key, folds_of, settings, total, steps)


def reference_key(data: PairData) -> dict[str, Any]:
    """The reference in a family's key: the same model wherever it lies, by whatever attention it was computed."""
    return data.reference.model_dump(exclude={"name", "attention", "device"})


def family_of(run: Path, key: Mapping[str, Any]) -> tuple[str, int]:
    """Name and number of the proxy family with this key: the existing one, or the next to be made.

    A family of which nothing was trained yet (another command was stopped before) does not count.
    """
    kind = ("oof" if key["folds"] >= 2 else "insample") + ("-probe" if key["kind"] == "probe" else "")
    known = planned_families(run)
    for folder, family in known.items():
        if family["key"] == key:
            return folder.name, family["order"]
    begun = {folder.name: f["order"] for folder, f in known.items() if _is_begun(folder)}
    name = f"{kind}-{sha256_text(canonical_json(key))[:8]}" if kind in begun else kind
    return name, max(begun.values(), default=-1) + 1


def planned_families(run: Path) -> dict[Path, dict[str, Any]]:
    """Folder of every family that was begun or finished -> its key and its order."""
    return {file.parent: read_json(file) for file in sorted((run / "proxies").glob(f"*/{FAMILY}"))}


def is_family(folder: Path) -> bool:
    """Whether the proxies, or the probe, of this folder are finished."""
    return read_one_of(folder, ProbeManifest, TrainedManifest) is not None


def _is_begun(family: Path) -> bool:
    return is_family(family) or any(family.glob("fold-*"))


def begin_family(run: Path, data: PairData, family: Family) -> None:
    """Write a family's key and its split, before anything is trained; what another stopped command began is gone."""
    folder = run / "proxies" / family.name
    for other in (run / "proxies").glob("*"):
        if other != folder and other.is_dir() and not _is_begun(other):
            shutil.rmtree(other)
    if not is_family(folder):
        write_split(folder, data, family)
        write_json(folder / FAMILY, {"key": family.key, "order": family.order})


def checkpoints_of(name: str, key: Mapping[str, Any]) -> list[str]:
    """The checkpoints that a family of this key is scored as."""
    return [name] if key["kind"] == "probe" else [f"{name}-{step}" for step in key["steps"]]


def write_split(folder: Path, data: PairData, family: Family) -> PartFile:
    split = pa.table(
        {"id": [str(i) for i in data.ids], "group": [str(g) for g in data.groups], "fold": family.folds_of},
        schema=SPLIT_SCHEMA,
    )
    return write_table(folder / "split.parquet", split, SPLIT_SCHEMA, folder)


def train_family(run: Path, data: PairData, reference: str, family: TrainedFamily) -> None:
    """Train the family's proxies; those that are there already are not trained again.

    A model whose files are not those that its training recorded is trained again. Where that gives other weights (on
    another machine), what the old ones scored goes too: a score part has one model.
    """
    folder = run / "proxies" / family.name
    manifest = read_manifest(folder, TrainedManifest)
    recorded = manifest.models if manifest else {}
    for fold in range(family.folds):
        train_proxy(run, data.subset(family.training_rows(fold)), reference, family, fold)
    models = {f"{p.parent.name}/{p.name}": recorded_files(p) for p in family.models(run)}
    if models == recorded:
        say(f"{family.name}: proxies already trained")
        return
    if recorded:
        say(f"{family.name}: training again gave other weights; the family is scored again")
        for step in family.steps:
            shutil.rmtree(run / "scores" / f"{family.name}-{step}", ignore_errors=True)
    counts = {"folds": family.folds, "steps": family.total}
    split = write_split(folder, data, family)
    TrainedManifest(key=family.key, counts=counts, parts=(split,), models=models).write(folder)


def recorded_files(model: Path) -> dict[str, str]:
    """File -> sha256 of a trained proxy, as its training recorded them; empty where it did not run to the end."""
    path = model / TRAINED
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["sha256"] if path.is_file() else {}
    except (ValueError, KeyError, TypeError):  # damaged
        found = {}
    return found


def family_stages(run: Path, data: PairData, family: TrainedFamily) -> list[ScoreStage]:
    """The score stages of the family's steps; cross-fitted, each pair by the proxy that did not see its prompt."""
    rows = in_group_order(data.groups)
    folds_of = family.folds_of[rows]
    stages = []
    for step in family.steps:
        if family.cross_fitted:
            assignments = [
                Assignment(str(family.model(run, k, step)), rows[folds_of == k], k) for k in range(family.folds)
            ]
        else:
            assignments = [Assignment(str(family.model(run, 0, step)), rows)]
        stages.append(
            ScoreStage(
                name=f"{family.name}-{step}",
                key={
                    "family": family.key,
                    "step": step,
                    "dtype": data.reference.dtype,
                    "engine": data.reference.engine,
                },
                kind="proxy",
                order=family.order,
                assignments=assignments,
                held_out=family.cross_fitted,
                family=family.name,
                step=step,
                folds=family.folds,
            )
        )
    return stages


def train_proxy(run: Path, data: PairData, reference: str, family: TrainedFamily, fold: int) -> None:
    """Train one proxy with DPO on `data` and keep its model at the family's steps.

    A model counts as there when all steps are: what a killed training left is trained again and written over, and so
    is a model of which a file is damaged.
    """
    wanted = {step: family.model(run, fold, step) for step in family.steps}
    recorded = {path: recorded_files(path) for path in wanted.values()}
    damaged = {path: said for path, files in recorded.items() if (said := damaged_file(path, files)) is not None}
    for path, said in damaged.items():
        say(f"{path}: {said}; this proxy is trained again")
    if not damaged and all(recorded.values()):
        return
    from rmo_train.report import step_zero
    from rmo_train.training.job import build_job, check_step_zero, step_zero_noise
    from rmo_train.training.loop import train
    from rmo_train.training.plan import make_plan

    folder = run / "proxies" / family.name / f"fold-{fold}"
    training = family.settings.training(family.total)
    say(f"proxy {family.name}/{folder.name}: {len(data)} pairs, {family.total} steps of {family.settings.batch_size}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise cannot_write(folder, e) from e
    job = build_job(data, make_plan(data, training), reference, folder, training, {}, models_at=wanted)
    say(step_zero(check_step_zero(job, step_zero_noise(job, reference))))
    train(job)
    for path in wanted.values():
        files = file_hashes(path)
        files.pop(TRAINED, None)  # of the training before
        write_json(path / TRAINED, {"pairs": len(data), "steps": family.total, "sha256": files})
