"""The one command to run after another, with its real paths and an --out that does not exist yet; None if no command is
certain to fit. For the command after an audit, see `audit.next_step`, which puts it on the page."""

from __future__ import annotations

from pathlib import Path

from rmo_curate.audit.next_step import filter_command, free, proxy, quoted, step_of_data
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs.run import open_run
from rmo_curate.score.settings import InspectCommand
from rmo_train.console.settings import Sections
from rmo_train.console.trust import FLAGS, flags_given
from rmo_train.store.manifests import ShardsManifest, read_manifest


def after_inspect(settings: InspectCommand) -> str:
    """Score the data."""
    score = step_of_data(settings.data, dict(settings.map), settings.max_length, settings.model).command
    return " ".join([score, *flags_given()])


def after_score(run: Path, recipe: Sections) -> str:
    """Audit the pairs, or first fit a probe if only the reference has scored them; with a recipe, its own commands."""
    if open_run(run).trajectory(None).end is None:
        return " ".join([proxy(run), *flags_given()])
    if "audit" in recipe and recipe.get("score", {}).get("out") == str(run):
        return "rmo-curate audit"
    return f"rmo-curate audit {quoted(run)} --out {quoted(free(run.with_name(f'{run.resolve().name}-report')))}"


def after_rules(run: Path, recipe: Sections, asked: FilterSettings) -> str:
    """Filter by all evidence, of the columns and the checkpoint that were `asked` for; with a recipe, as it says."""
    if "filter" in recipe and recipe.get("score", {}).get("out") == str(run):
        return "rmo-curate filter"
    return filter_command(run, asked)


def after_filter(shards: Path, recipe: Sections) -> str | None:
    """Train the model that scored the pairs on the kept ones."""
    if "train" in recipe and recipe.get("filter", {}).get("out") == str(shards):
        return "rmo-train run"
    manifest = read_manifest(shards, ShardsManifest)
    if manifest is None or not manifest.reference.name:
        return None
    flags = [flag for flag in FLAGS if flag in (manifest.reference.allowed or ())]
    out = free(shards.with_name(f"{shards.resolve().name}-model"))
    model = quoted(Path(manifest.reference.name))
    run = f"rmo-train run {quoted(shards)} --model {model} --out {quoted(out)} --lora 16"
    return " ".join([run, *flags])
