"""Proxies: short DPO runs on the data itself. Cross-fitted (K >= 2), no proxy scores a pair whose prompt it saw."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmo_curate.runs.manifests import TrainedManifest
from rmo_curate.score.crew import Crew
from rmo_curate.score.families import Family, assign_folds, family_of, reference_key, write_split
from rmo_curate.score.scoring import Assignment, ScoreStage, in_group_order
from rmo_curate.score.settings import ProxySettings
from rmo_train.console.errors import UserError, cannot_write
from rmo_train.console.progress import say
from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData
from rmo_train.store.files import damaged_file, file_hashes, write_json
from rmo_train.store.manifests import read_manifest

TRAINED = "trained.json"  # in a proxy's model folder: its training ran to the end; the hashes of the model's files


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
            f"--steps {beyond[0]}: a proxy trains {counted(total, 'step')} on this data; choose 1 to {total}, "
            "or more --epochs"
        )
    return tuple(sorted({*settings.steps, total}))


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
        **settings.model_dump(mode="json", exclude={"category_column"}),
        "folds": folds,
        "lora": training.lora,
        "learning_rate": training.learning_rate,
        "steps": list(steps),
        "pairs": pairs_sha,
        "reference": reference_key(data),
    }
    name, order = family_of(run, key)
    return TrainedFamily(name, order, key, folds_of, settings, total, steps)


def train_family(run: Path, data: PairData, reference: str, family: TrainedFamily, crew: Crew) -> None:
    """Train the family's proxies; those that are there already are not trained again.

    A model whose files are not those that its training recorded is trained again. Where that gives other weights (on
    another machine), what the old ones scored goes too: a score part has one model.
    """
    folder = run / "proxies" / family.name
    manifest = read_manifest(folder, TrainedManifest)
    recorded = manifest.models if manifest else {}
    folds = range(family.folds)
    crew.each(train_proxy, ((run, data.subset(family.training_rows(k)), reference, family, k) for k in folds))
    if absent := [path for path in family.models(run) if not path.is_dir()]:
        raise UserError(
            f"{absent[0]}: a worker trained this model, but it is missing here; workers must share the run folder: "
            "put --out on a file system that all machines share, or leave out --ray"
        )
    models = {f"{p.parent.name}/{p.name}": recorded_files(p) for p in family.models(run)}
    if models == recorded:
        say(f"{family.name}: proxies already trained")
        return
    if recorded:
        say(f"{family.name}: retraining gave different weights, so its pairs will be scored again")
        for step in family.steps:
            shutil.rmtree(run / "scores" / f"{family.name}-{step}", ignore_errors=True)
    counts = {"folds": family.folds, "steps": family.total}
    split = write_split(folder, data, family)
    TrainedManifest(key=family.key, counts=counts, parts=(split,), models=models).write(folder)


def recorded_files(model: Path) -> dict[str, str]:
    """File -> sha256 of a trained proxy, as its training recorded them; empty where it did not run to the end."""
    path = model / TRAINED
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["sha256"] if path.is_file() else {}
    except (ValueError, KeyError, TypeError):  # damaged
        recorded = {}
    return recorded


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
        say(f"{path}: {said}; this proxy will be retrained")
    if not damaged and all(recorded.values()):
        return
    from rmo_train.report import step_zero
    from rmo_train.training.job import build_job, check_step_zero, step_zero_noise
    from rmo_train.training.loop import train
    from rmo_train.training.plan import make_plan

    folder = run / "proxies" / family.name / f"fold-{fold}"
    training = family.settings.training(family.total)
    say(
        f"proxy {family.name}/{folder.name}: {counted(len(data), 'pair')}, {counted(family.total, 'step')} "
        f"of {family.settings.batch_size}"
    )
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
