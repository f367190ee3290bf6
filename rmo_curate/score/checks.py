"""What can be wrong with what `score` is asked: found before anything is computed, and said with the flag to change."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rmo_curate.read.sources import Pair, Source
from rmo_curate.runs.columns import category_column, text_names
from rmo_curate.score.placement import Placement
from rmo_curate.score.settings import ProxySettings, ScoreSettings, WorkerSettings
from rmo_train.console.errors import UserError
from rmo_train.console.progress import say
from rmo_train.console.wording import counted
from rmo_train.store.manifests import InputFile, RunManifest
from rmo_train.store.tables import TOO_LONG, prompt_group

if TYPE_CHECKING:
    from rmo_train.model.models import Identity


def check_base(run: Path, manifest: RunManifest) -> None:
    if "base" not in [c.name for c in manifest.checkpoints]:
        raise UserError(f"{run}: the reference is not scored yet; run `rmo-curate score` to the end first")


def check_workers(workers: WorkerSettings, gpus_each: int) -> None:
    """More workers than fit this machine, before anything is read. Of a cluster, Ray tells later what it has.

    gpus_each: that one model is split over. Ray may count fewer cores, as a container's limits; it is asked again then.
    """
    if workers.workers is None or workers.ray is not None:
        return
    cores = os.cpu_count() or 1
    if gpus_each == 1 and (workers.workers == "auto" or workers.workers <= cores):
        return  # known without the seconds that torch takes to import
    import torch

    machine = {"GPU": torch.cuda.device_count(), "CPU": cores}
    Placement.of([machine], workers.workers, gpus_each, one_machine=True)


def check_tensor_parallel(gpus: int, engine: str, workers: WorkerSettings, models: Sequence[str]) -> None:
    """Models over `gpus` GPUs: only under vLLM, where they can be cut so, and where there are so many GPUs.

    Of workers, see `check_workers`.
    """
    if gpus == 1:
        return
    if engine != "vllm":
        raise UserError(
            f"--tensor-parallel-size {gpus}: the engine here is {engine}, which cannot split a model; add --engine "
            "vllm (with --overwrite on a run that was started without it), or leave the flag out: --workers auto puts "
            "a copy of the model on every GPU"
        )
    for model in models:
        _check_heads(gpus, model)
    if workers.hires:
        return
    import torch

    if (there := torch.cuda.device_count()) < gpus:
        raise UserError(
            f"--tensor-parallel-size {gpus}: {counted(there, 'GPU')} found on this machine; give at most that many, or "
            "--ray ADDRESS of a cluster whose machines have more (CUDA_VISIBLE_DEVICES may hide some)"
        )


def _check_heads(gpus: int, model: str) -> None:
    """vLLM gives every GPU the same number of a model's attention heads."""
    from rmo_train.model.policy import load_config

    config = load_config(model).get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    shared = getattr(config, "num_key_value_heads", None) or heads  # fewer than GPUs: each is copied to several
    if heads and shared and (heads % gpus or (shared % gpus and gpus % shared)):
        raise UserError(
            f"--tensor-parallel-size {gpus}: {model} has {counted(heads, 'attention head')} and "
            f"{counted(shared, 'key-value head')}, which {gpus} GPUs cannot share evenly; give a number that divides "
            "both, or leave the flag out"
        )


def check_checkpoint(other: Identity, reference: Identity) -> None:
    for field in ("tokenizer_sha256", "template_sha256"):
        if getattr(other, field) != getattr(reference, field):
            what = field.removesuffix("_sha256").replace("template", "chat template")
            raise UserError(
                f"--checkpoint {other.name}: its {what} differs from that of --model {reference.name}, so their "
                "log-probs cannot be compared. Save the checkpoint with the reference's tokenizer."
            )
    if other.weights_sha256 == reference.weights_sha256:
        raise UserError(
            f"--checkpoint {other.name}: the same weights as --model {reference.name}, so every reward margin "
            "would be 0; give a trained checkpoint, or leave --checkpoint out to fit a proxy"
        )


def warn_of_rejects(source: Source) -> None:
    """Say it where so many records are no pairs that the data are perhaps not read as they are meant."""
    if (warning := source.warning()) is not None:
        say(warning)


def check_rejects(counts: Mapping[str, int], settings: ScoreSettings) -> None:
    """Say what is rejected; `counts` has "pairs" and the number of rejects by reason."""
    total = sum(counts.values())
    rejects = total - counts.get("pairs", 0)
    if not rejects:
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()) if reason != "pairs")
    if settings.max_rejects is not None and rejects > settings.max_rejects * total:
        raise UserError(
            f"{rejects:,} of {counted(total, 'record')} rejected ({reasons}), more than --max-rejects "
            f"{settings.max_rejects:g} allows; fix the data or raise --max-rejects"
        )
    kept = f"see rejects/ for {'the record and its reason' if rejects == 1 else 'the records and their reasons'}"
    say(f"warning: {rejects:,} of {counted(total, 'record')} rejected ({reasons}); {kept}")


def check_inputs(recorded: Sequence[InputFile], given: Sequence[InputFile], run: Path) -> None:
    """Refuse a run folder that was made from other data, by content: a file that was moved or renamed is the same."""
    if [file.sha256 for file in recorded] == [file.sha256 for file in given]:
        return
    before, now = (", ".join(file.name for file in files) for files in (recorded, given))
    changed = "; its content has changed since" if before == now else ""
    raise UserError(
        f"{run} was made from other data: the folder has {before}, you gave {now}{changed}. Use another --out, or "
        "--overwrite to replace this folder."
    )


def check_prompts(source: Source, proxy: ProxySettings) -> None:
    """More folds than prompts: found before anything is computed."""
    folds = proxy.trained_folds or (proxy.folds or 2 if proxy.kind == "probe" else 0)
    if folds < 2:
        return
    prompts: set[str] = set()
    for record in source.records():
        if isinstance(record, Pair):
            prompts.add(prompt_group(record.prompt, record.tools))
        if len(prompts) == folds:
            return
    raise UserError(
        f"--proxy {proxy.kind}: {folds} folds need at least {folds} distinct prompts, the data has "
        f"{len(prompts)}; use fewer --folds, --folds 1 (in-sample), or --proxy none (reference only)"
    )


def check_category(source: Source, proxy: ProxySettings) -> None:
    """A category column that the data do not have."""
    types = {field.name: field.type for field in source.extra_fields()}
    category_column(text_names(types), proxy.category_column, "the data")


def check_not_inside(run: Path, places: Sequence[str], overwrite: bool) -> None:
    """--overwrite removes the stages of the run: nothing that this command reads may lie there."""
    inside = [p for p in places if Path(p).exists() and Path(p).resolve().is_relative_to(run.resolve())]
    if overwrite and inside:
        raise UserError(f"--overwrite would remove {inside[0]}, which this command reads; copy it out of {run} first")


def check_rendered(
    run: Path, source: Source, counts: Mapping[str, int], max_length: int, settings: ScoreSettings
) -> None:
    """What only rendering shows: pairs that the chat template refuses, and pairs that are too long."""
    if counts["pairs"] < source.counts["pairs"]:
        reasons = {k.removeprefix("rejects/"): n for k, n in counts.items() if k.startswith("rejects/")}
        check_rejects({"pairs": counts["pairs"], **reasons}, settings)
    if not counts["pairs"]:
        raise UserError(
            f"{run}: the model's chat template cannot render any of the pairs; {run / 'rejects'} gives the reasons"
        )
    if counts[TOO_LONG] == counts["pairs"]:
        raise UserError(
            f"all {counts['pairs']} pairs are longer than {max_length} tokens (prompt + the longer response); give a "
            "larger --max-length, with --overwrite for this folder, or a model with a longer context"
        )
