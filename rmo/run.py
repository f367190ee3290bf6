"""Runs a recipe: score -> filter -> train -> score the held-out pairs -> evaluate -> audit.

Stages run in order and skip finished work, so running the same recipe again resumes it. With `eval.baseline`, a plain
run on all pairs (no filter, no diversification, no amplification) is also trained and evaluated, to show the gain on
the user's own data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rmo.recipe import EvalSettings, Recipe
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.score.settings import ProxySettings, ScoreSettings, WorkerSettings
from rmo_train.console.progress import say
from rmo_train.report import evaluation_lines
from rmo_train.store.manifests import MANIFEST
from rmo_train.training.settings import TrainSettings

Lines = list[str]


def run_recipe(recipe: Recipe, *, dry_run: bool = False) -> None:
    """Run every stage in order; a stage with a manifest is skipped. dry_run: only say what each would do."""
    from rmo_curate.audit.command import write_audit

    for name, needs, stage in stages(recipe):
        waiting = [folder for folder in needs if dry_run and not (folder / MANIFEST).exists()]
        lines = [f"known once {waiting[0]} exists"] if waiting else stage(dry_run)
        say("\n".join(f"[{name}] {line}" for line in lines))
    if dry_run:
        return
    for name, model, file in recipe.evaluations():
        assert recipe.eval is not None
        say("\n".join(f"[eval {name}] {line}" for line in measure(recipe.eval.run, model, file)))
    settings, filtering = recipe.audit.part(AuditSettings), recipe.filter.part(FilterSettings)
    audited = write_audit(recipe.run, recipe.audit.out, settings, filtering)
    say("\n".join(f"[audit] {line}" for line in audited.lines))
    audited.check()


def stages(recipe: Recipe) -> list[tuple[str, tuple[Path, ...], Callable[[bool], Lines]]]:
    """(name, folders that it reads, function of dry_run) of each stage up to the trained models."""
    from rmo_curate.filter.command import run_filter
    from rmo_train.training.command import run_training

    model = recipe.train.model

    def filtered(out: Path, settings: FilterSettings) -> Callable[[bool], Lines]:
        return lambda dry: run_filter(recipe.run, out, settings, dry_run=dry)

    def trained(shards: Path, out: Path, settings: TrainSettings) -> Callable[[bool], Lines]:
        return lambda dry: run_training(shards, model, out, settings, dry_run=dry)

    planned = [
        ("score", (), lambda dry: scored(recipe, dry_run=dry)),
        ("filter", (recipe.run,), filtered(recipe.shards, recipe.filter.part(FilterSettings))),
        ("train", (recipe.shards,), trained(recipe.shards, recipe.train.out, recipe.train.part(TrainSettings))),
    ]
    if recipe.eval is None:
        return planned
    evaluation = recipe.eval
    planned.append(("heldout", (), lambda dry: scored_held_out(recipe, evaluation, dry_run=dry)))
    if evaluation.baseline:
        shards, out = recipe.plain_shards, recipe.plain_trained
        planned.append(("plain", (recipe.run,), filtered(shards, FilterSettings(rule="none"))))
        planned.append(("plain", (shards,), trained(shards, out, recipe.plain_train)))
    return planned


def scored(recipe: Recipe, *, dry_run: bool) -> Lines:
    from rmo_curate.score.command import run_score

    command = recipe.score
    return run_score(
        command.data,
        command.model,
        command.out,
        command.part(ScoreSettings),
        recipe.proxy,
        checkpoints=command.checkpoint,
        columns=command.map,
        workers=command.part(WorkerSettings),
        dry_run=dry_run,
    )


def scored_held_out(recipe: Recipe, evaluation: EvalSettings, *, dry_run: bool) -> Lines:
    """Score the held-out pairs under the reference only."""
    from rmo_curate.score.command import run_score

    command = recipe.score
    settings = command.part(ScoreSettings).model_copy(update={"limit": evaluation.limit})
    return run_score(
        [str(recipe.data.heldout)],
        command.model,
        evaluation.run,
        settings,
        ProxySettings(kind="none"),
        columns=command.map,
        workers=command.part(WorkerSettings),
        dry_run=dry_run,
    )


def measure(held_out: Path, model: str, file: Path) -> Lines:
    """Evaluate `model` on the held-out run, unless `file` already has this evaluation."""
    from rmo_train.model.policy import identity
    from rmo_train.store.files import read_json, write_json
    from rmo_train.store.manifests import RunManifest, require_manifest
    from rmo_train.training.command import run_eval

    manifest = require_manifest(held_out, RunManifest, "rmo run")
    inputs = [asdict(file) for file in manifest.inputs]
    key = {"weights_sha256": identity(model).weights_sha256, "inputs": inputs}
    if file.is_file() and read_json(file).get("key") == key:
        return [f"{file}: already evaluated"]
    result = run_eval(held_out, model)
    write_json(file, {"key": key, **result.as_json()})
    return evaluation_lines(result)
