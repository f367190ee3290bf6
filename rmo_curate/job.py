"""`rmo-curate score` and `rmo-curate proxy`: the stages of a run in order, each done once, and the run's manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rmo_curate.engines.transformers import TransformersEngine
from rmo_curate.pairs_stage import TOO_LONG, write_pairs
from rmo_curate.proxies import ProxySettings, assign_folds, steps_of, total_steps, train_family
from rmo_curate.runs import Checkpoint
from rmo_curate.scoring import Assignment, ScoreStage, in_group_order, score_stage
from rmo_curate.sources import Source, open_source
from rmo_train.errors import ProcessingError, UserError
from rmo_train.pairs import PairData, open_pairs
from rmo_train.progress import say
from rmo_train.settings import Settings
from rmo_train.tables import (
    MANIFEST,
    SCHEMA_VERSION,
    canonical_json,
    check_key,
    read_json,
    read_manifest,
    require_manifest,
    sha256_text,
    versions,
    write_json,
)

DEFAULT_MAX_LENGTH = 1024
KINDS = ("base", "user", "proxy")


class ScoreSettings(Settings):
    """How pairs are read and scored."""

    engine: Literal["auto", "transformers"] = Field("auto", description="Engine of the forward passes")
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the machine has it")
    max_length: int | None = Field(
        None, ge=8, description="Tokens of prompt + longer response (default: 1024, or the model's context)"
    )
    limit: int | None = Field(None, ge=1, description="Use the first N input records, rejects included")
    part_size: int = Field(1024, ge=1, description="Least pairs of a part file: what a kill can lose")
    tokens_per_batch: int | None = Field(None, ge=16, description="Tokens of one packed row (default: by device)")
    max_rejects: float | None = Field(None, ge=0, le=1, description="Share of rejected records that is an error")
    proxy_folds: int | None = Field(
        None,
        ge=0,
        description="Proxies: 2 or more cross-fitted, 1 in-sample, 0 none (default: 2 without --checkpoint, else 0)",
    )


def run_score(
    data: Sequence[str],
    model: str,
    run: Path,
    settings: ScoreSettings,
    proxy: ProxySettings,
    *,
    checkpoints: Sequence[str] = (),
    overwrite: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """Read, render and score `data` under the reference, the checkpoints and proxies; returns the lines to print.

    The same call again goes on where a killed one stopped, and computes nothing after a finished one.
    """
    from rmo_train.policy import context_length, identity, load_config, load_tokenizer
    from rmo_train.rendering import Renderer

    if run.exists() and not run.is_dir():
        raise UserError(f"--out {run}: a file; expected a folder")
    reference = identity(model)
    others = [identity(c) for c in checkpoints]
    for other in others:
        _check_checkpoint(other, reference)
    source = open_source(data, limit=settings.limit)
    for line in (source.said, *source.notes):
        say(line)
    _check_rejects(source, settings)
    folds = settings.proxy_folds if settings.proxy_folds is not None else (0 if checkpoints else proxy.folds)
    context = context_length(load_config(model))
    max_length = min(settings.max_length or DEFAULT_MAX_LENGTH, context)
    if settings.max_length and settings.max_length > context:
        raise UserError(f"--max-length {settings.max_length}: the context of {model} is {context} tokens")
    recorded = _recorded_reference(run) if not overwrite else None
    resolved = {**asdict(reference), "dtype": _dtype(settings, recorded), "engine": "transformers"}
    if dry_run:
        return _dry_run(source, resolved, max_length, folds, len(checkpoints))
    key = {
        "inputs": [i["sha256"] for i in source.inputs],  # by content: moving a file changes nothing
        "form": source.form.name,
        "limit": settings.limit,
        "max_length": max_length,
        "part_size": settings.part_size,
        "tokenizer_sha256": reference.tokenizer_sha256,
        "template_sha256": reference.template_sha256,
    }
    if recorded is not None:
        check_key(recorded, resolved, run)
    renderer = Renderer(load_tokenizer(model))
    write_pairs(source, renderer, run, key, part_size=settings.part_size, max_length=max_length, overwrite=overwrite)
    write_run_manifest(run, resolved)
    pairs = open_pairs(run)
    say(_cost(pairs, folds, len(checkpoints), proxy))
    stages = [_plain_stage(pairs, "base", "base", reference, resolved, 0)]
    stages += [
        _plain_stage(pairs, f"{_slug(name)}-{other.weights_sha256[:8]}", "user", other, resolved, order)
        for order, (name, other) in enumerate(zip(checkpoints, others, strict=True))
    ]
    for stage in stages:
        _score(run, pairs, stage, settings, overwrite)
        write_run_manifest(run, resolved)
    if folds:
        _proxy_stage(run, model, resolved, settings, proxy.model_copy(update={"folds": folds}))
    return _summary(run)


def run_proxy(run: Path, settings: ProxySettings, *, dry_run: bool = False) -> list[str]:
    """Train and score one proxy family on a scored run; returns the lines to print."""
    manifest = require_manifest(run, "run", "rmo-curate score DATA --model REF --out RUN")
    if "base" not in [c["name"] for c in manifest["checkpoints"]]:
        raise UserError(f"{run}: the reference is not scored yet; run `rmo-curate score` to the end first")
    reference = manifest["reference"]
    if dry_run:
        pairs = open_pairs(run)
        folds_of = assign_folds(pairs.groups, settings.folds, settings.seed)
        total = total_steps(folds_of, settings)
        return [
            f"would train {settings.folds} proxies of {total} steps and score steps {list(steps_of(settings, total))}"
        ]
    score = ScoreSettings(part_size=read_json(run / "pairs" / MANIFEST)["key"]["part_size"])
    _proxy_stage(run, reference["name"], reference, score, settings)
    return _summary(run)


def _proxy_stage(
    run: Path, model: str, reference: dict[str, Any], settings: ScoreSettings, proxy: ProxySettings
) -> None:
    pairs = open_pairs(run)
    _, stages = train_family(run, pairs, model, proxy, _pairs_sha(run))
    for stage in stages:
        _score(run, pairs, stage, settings, overwrite=False)
        write_run_manifest(run, reference)


def _score(run: Path, pairs: PairData, stage: ScoreStage, settings: ScoreSettings, overwrite: bool) -> None:
    def engine(model: str) -> TransformersEngine:
        return TransformersEngine(model, stage.key["dtype"], pairs.longest(), settings.tokens_per_batch)

    key = {**stage.key, "pairs": _pairs_sha(run), "part_size": settings.part_size}
    keyed = ScoreStage(**{**vars(stage), "key": key})
    manifest = score_stage(run, pairs, keyed, engine, settings.part_size, overwrite=overwrite)
    work = manifest["work"]
    if work["sequences"]:
        say(
            f"{stage.name}: {work['sequences']:,} sequences asked, {work['distinct']:,} distinct; "
            f"{work['tokens_computed']:,} of {work['tokens_asked']:,} tokens computed ({work['saved']:.0%} saved); "
            f"{manifest['layout']}"
        )


def _plain_stage(
    pairs: PairData, name: str, kind: str, identity: Any, reference: dict[str, Any], order: int
) -> ScoreStage:
    key = {"weights_sha256": identity.weights_sha256, "dtype": reference["dtype"], "engine": reference["engine"]}
    rows = in_group_order(pairs.groups)
    return ScoreStage(name, key, kind, order, [Assignment(identity.name, rows)])


def _slug(name: str) -> str:
    """A checkpoint's folder name, safe as a file name."""
    return "".join(c if c.isalnum() or c in "._" else "-" for c in Path(name).name).strip("-.") or "checkpoint"


def _pairs_sha(run: Path) -> str:
    manifest = read_manifest(run / "pairs")
    assert manifest is not None
    return sha256_text(canonical_json([p["sha256"] for p in manifest["parts"]]))


def _check_checkpoint(other: Any, reference: Any) -> None:
    for field in ("tokenizer_sha256", "template_sha256"):
        if getattr(other, field) != getattr(reference, field):
            what = field.removesuffix("_sha256").replace("template", "chat template")
            raise UserError(
                f"--checkpoint {other.name}: its {what} is not that of --model {reference.name}; log-probs of other "
                "tokens cannot be compared. Save the checkpoint with the reference's tokenizer."
            )
    if other.weights_sha256 == reference.weights_sha256:
        raise UserError(
            f"--checkpoint {other.name}: the same weights as --model {reference.name}, so every margin would move by "
            "0; give a trained checkpoint, or none to let proxies be trained"
        )


def _check_rejects(source: Source, settings: ScoreSettings) -> None:
    total = sum(source.counts.values())
    rejects = total - source.counts.get("pairs", 0)
    if not rejects:
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(source.counts.items()) if reason != "pairs")
    say(f"warning: {rejects} of {total} records are no pairs ({reasons}); they are kept in rejects/ with their reasons")
    if settings.max_rejects is not None and rejects > settings.max_rejects * total:
        raise UserError(
            f"{rejects} of {total} records rejected, more than --max-rejects {settings.max_rejects} allows ({reasons})"
        )


def _recorded_reference(run: Path) -> dict[str, Any] | None:
    manifest = read_manifest(run)
    return manifest["reference"] if manifest else None


def _dtype(settings: ScoreSettings, recorded: dict[str, Any] | None) -> str:
    """`auto` is resolved once per run folder: later calls take what its manifest records."""
    from rmo_train.policy import resolve_dtype

    if settings.dtype == "auto" and recorded is not None:
        return recorded["dtype"]
    return str(resolve_dtype(settings.dtype)).removeprefix("torch.")


def _tokens(pairs: PairData) -> int:
    return int((pairs.prompt.lengths + pairs.chosen.lengths + pairs.rejected.lengths).sum())


def _cost(pairs: PairData, folds: int, checkpoints: int, proxy: ProxySettings) -> str:
    """What is about to be computed, in tokens and in forward passes over the data (a training pass counts three)."""
    seen = 0.0 if not folds else (1.0 if folds == 1 else folds - 1.0) * proxy.epochs
    line = f"{len(pairs):,} pairs, at most {_tokens(pairs):,} tokens a pass; passes: 1 reference"
    if checkpoints:
        line += f" + {checkpoints} checkpoints"
    if folds:
        line += f" + 1 proxies + about {3 * seen:.0f} to train {folds} of them"
    return line


def _dry_run(source: Source, reference: dict[str, Any], max_length: int, folds: int, checkpoints: int) -> list[str]:
    pairs = source.counts.get("pairs", 0)
    return [
        f"{sum(source.counts.values())} records, {pairs} pairs; max length {max_length}",
        f"reference {reference['name']}, {reference['engine']} engine, {reference['dtype']}",
        f"{1 + checkpoints + bool(folds)} scoring passes over {pairs} pairs; {folds} proxies to train",
    ]
