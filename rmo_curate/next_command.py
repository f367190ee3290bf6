"""The one command that comes after another, with its real paths and with an --out that is not there yet. None where
nothing certain follows. What comes after an audit is on its page (`audit.next_step`)."""

from __future__ import annotations

from pathlib import Path

from rmo_curate.audit.next_step import free, proxy, quoted, step_of_data
from rmo_curate.runs.run import open_run
from rmo_curate.score.settings import InspectCommand
from rmo_train.console.settings import Sections
from rmo_train.console.trust import FLAGS, flags_given
from rmo_train.store.manifests import ShardsManifest, read_manifest

LORA_RATE = "2e-4"  # of LoRA, as in the demo: the trainer's own default of 1e-5 barely moves a small model


def after_inspect(settings: InspectCommand) -> str:
    """Score the data."""
    score = step_of_data(settings.data, dict(settings.map), settings.max_length, settings.model).command
    return " ".join([score, *flags_given()])


def after_score(run: Path, recipe: Sections) -> str:
    """Look at the pairs; a probe first, where there is only the reference to tell from. With a recipe, its commands."""
    if open_run(run).trajectory(None).end is None:
        return " ".join([proxy(run), *flags_given()])
    if "audit" in recipe and recipe.get("score", {}).get("out") == str(run):
        return "rmo-curate audit"
    return f"rmo-curate audit {quoted(run)} --out {quoted(free(run.with_name(f'{run.resolve().name}-report')))}"


def after_filter(shards: Path, recipe: Sections) -> str | None:
    """Train on what is left, with the model that scored it."""
    if "train" in recipe and recipe.get("filter", {}).get("out") == str(shards):
        return "rmo-train run"
    manifest = read_manifest(shards, ShardsManifest)
    if manifest is None or not manifest.reference.name:
        return None
    flags = [flag for flag in FLAGS if flag in (manifest.reference.allowed or ())]
    out = free(shards.with_name(f"{shards.resolve().name}-model"))
    model = quoted(Path(manifest.reference.name))
    run = f"rmo-train run {quoted(shards)} --model {model} --out {quoted(out)} --lora 16 --learning-rate {LORA_RATE}"
    return " ".join([run, *flags])
