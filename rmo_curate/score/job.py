"""`rmo-curate score` and `rmo-curate proxy`: the stages of a run in order, each done once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rmo_curate.read.sources import Pair, Source, open_source
from rmo_curate.runs.run import DEFAULT_MAX_LENGTH, MADE_BY
from rmo_curate.runs.run_lock import check_not_held
from rmo_curate.score.engines.base import Engine, StateEngine
from rmo_curate.score.engines.choice import AUTO, measured_engine, settled_engine
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.engines.vllm import VllmEngine
from rmo_curate.score.estimate import StatesFrom, cost_line, dry_run_lines
from rmo_curate.score.pairs_stage import TOO_LONG, write_pairs
from rmo_curate.score.probe import ProbeSettings, fit_probe, open_states, plan_probe, wants_states
from rmo_curate.score.proxies import (
    Family,
    ProxySettings,
    TrainedFamily,
    begin_family,
    family_stages,
    plan_family,
    train_family,
)
from rmo_curate.score.run_folder import (
    check_reference,
    check_run_folder,
    filling,
    next_order,
    recorded_reference,
    summary,
    write_run_manifest,
)
from rmo_curate.score.scoring import Assignment, ScoreStage, in_group_order, score_stage
from rmo_curate.score.settings import ScoreSettings
from rmo_train.console.errors import UserError
from rmo_train.console.progress import say
from rmo_train.data.pairs import PairData, open_pairs
from rmo_train.store.tables import (
    MANIFEST,
    canonical_json,
    check_key,
    prompt_group,
    read_json,
    read_manifest,
    reopen_if_damaged,
    require_manifest,
    sha256_text,
)

LOGS = "logs"  # in a run folder: what engines print


def run_score(
    data: Sequence[str],
    model: str,
    run: Path,
    settings: ScoreSettings,
    proxy: ProxySettings,
    *,
    probe: ProbeSettings = ProbeSettings(),
    checkpoints: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """Read, render and score `data` under the reference, the checkpoints and proxies; returns the lines to print.

    The same call again goes on where a killed one stopped, and computes nothing after a finished one. `overwrite`
    starts afresh: pairs, scores and proxies.
    """
    from rmo_train.data.rendering import Renderer
    from rmo_train.model.adapters import check_adapter
    from rmo_train.model.policy import context_length, identity, load_config, load_tokenizer

    check_run_folder(run)
    if not dry_run:
        check_not_held(run)  # `filling` holds it, later: here it is found before the data are read
    for name in (model, *checkpoints):
        check_adapter(name)
    reference = identity(model)
    others = [identity(c) for c in checkpoints]
    for other in others:
        _check_checkpoint(other, reference)
    max_length = longest_allowed(settings, model, context_length(load_config(model)))
    source = open_source(data, limit=settings.limit, columns=columns)
    for line in (source.said, *source.notes):
        say(line)
    _check_rejects(source.counts, settings)
    folds, probed = wanted_proxies(settings, proxy, checkpoints)
    proxy = proxy.model_copy(update={"folds": folds})
    _check_prompts(source, f"--proxy-folds {folds}", folds)
    _check_prompts(source, "--probe", (probe.folds or 2) if probed else 0)
    recorded = None if overwrite else recorded_reference(run)
    resolved = {**asdict(reference), "dtype": _dtype(settings, recorded)}
    resolved["engine"] = settled_engine(settings.engine, recorded)
    key = _pairs_key(source, settings, max_length, reference)
    if recorded is not None:
        begun = recorded["engine"] if recorded["engine"] != AUTO else resolved["engine"]  # killed before it was chosen
        check_reference({**recorded, "engine": begun}, resolved, run)
        check_key((read_manifest(run / "pairs") or {}).get("key", key), key, run)
    renderer = Renderer(load_tokenizer(model))
    if dry_run:
        engine = "the faster" if resolved["engine"] == AUTO else resolved["engine"]
        reference_said = {**resolved, "engine": engine}
        return dry_run_lines(source, renderer, reference_said, max_length, proxy, len(checkpoints), probed=probed)
    _check_not_inside(run, [*data, model, *checkpoints], overwrite)
    with filling(run, afresh=overwrite):
        if not overwrite and recorded_reference(run) != recorded:
            raise UserError(f"{run}: another rmo-curate has filled this folder meanwhile; run the command again")
        counts = write_pairs(source, renderer, run, key, part_size=settings.part_size, max_length=max_length)["counts"]
        _check_rendered(run, source, counts, max_length, settings)
        pairs = _open_to_score(run, model, resolved, settings)
        resolved = pairs.reference
        family = plan_family(run, pairs, proxy, _pairs_sha(run)) if folds else None
        fitted = plan_probe(run, pairs, probe, _pairs_sha(run)) if probed else None
        if (first := family or fitted) is not None:  # the probe beside trained proxies is begun after them
            begin_family(run, pairs, first)
        states = _states_from(run, fitted, resolved)
        say(cost_line(pairs, len(checkpoints), family, states))
        base = _plain_stage(run, pairs, "base", "base", reference, resolved)
        _score(run, pairs, base, settings, fitted if states == "reference" else None)
        write_run_manifest(run, resolved)
        pairs = replace(pairs, manifest=read_manifest(run) or {})  # later ones are computed as the reference was
        for name, other in zip(checkpoints, others, strict=True):
            stage = f"{_slug(name)}-{other.weights_sha256[:8]}"
            _score(run, pairs, _plain_stage(run, pairs, stage, "user", other, resolved), settings)
            write_run_manifest(run, resolved)
        if family is not None:
            _proxy_stage(run, model, family, settings)
        if probed:
            _probe_stage(run, model, probe, settings)
        return summary(run)


def run_proxy(run: Path, settings: ProxySettings, *, dry_run: bool = False) -> list[str]:
    """Train and score one proxy family on a scored run; returns the lines to print."""
    manifest = require_manifest(run, "run", MADE_BY)
    with nullcontext() if dry_run else filling(run):
        _check_base(run, manifest)
        pairs = open_pairs(run)
        family = plan_family(run, pairs, settings, _pairs_sha(run))
        if dry_run:
            return [
                f"would train {settings.folds} proxies of {family.total} steps of {family.settings.batch_size} pairs "
                f"and score steps {list(family.steps)} as {family.name}"
            ]
        begin_family(run, pairs, family)
        _proxy_stage(run, manifest["reference"]["name"], family, ScoreSettings(part_size=_part_size(run)))
        return summary(run)


def run_probe(run: Path, settings: ProbeSettings, *, dry_run: bool = False) -> list[str]:
    """Fit and score a probe on a scored run; returns the lines to print."""
    manifest = require_manifest(run, "run", MADE_BY)
    with nullcontext() if dry_run else filling(run):
        _check_base(run, manifest)
        if dry_run:
            family = plan_probe(run, open_pairs(run), settings, _pairs_sha(run))
            reading = "read hidden states in one pass and " if wants_states(run, family) else ""
            return [f"would {reading}fit {family.folds} linear probes, as {family.name}"]
        _probe_stage(run, manifest["reference"]["name"], settings, ScoreSettings(part_size=_part_size(run)))
        return summary(run)


# ---------------------------------------------------------------------------------------------------- stages


def _pairs_key(source: Source, settings: ScoreSettings, max_length: int, reference: Any) -> dict[str, Any]:
    """What the pairs' bytes depend on."""
    return {
        "inputs": [i["sha256"] for i in source.inputs],  # by content: moving a file changes nothing
        "form": source.form.name,
        "columns": dict(source.columns),
        "limit": settings.limit,
        "max_length": max_length,
        "part_size": settings.part_size,
        "tokenizer_sha256": reference.tokenizer_sha256,
        "template_sha256": reference.template_sha256,
    }


def _open_to_score(run: Path, model: str, reference: dict[str, Any], settings: ScoreSettings) -> PairData:
    """The rendered pairs, with the reference in the run's manifest; an engine that is not chosen yet is measured."""
    write_run_manifest(run, reference)
    reopen_if_damaged(run / "scores" / "base")  # which `open_pairs` would refuse to read
    pairs = open_pairs(run)
    if reference["engine"] != AUTO:
        return pairs
    log = run / LOGS / "vllm-measured.log"
    engine = measured_engine(model, reference["dtype"], pairs, settings.tokens_per_batch, log)
    write_run_manifest(run, {**reference, "engine": engine})
    return open_pairs(run)


def _proxy_stage(run: Path, model: str, family: TrainedFamily, settings: ScoreSettings) -> None:
    """Train the family with the reference log-probs of the run, and score its steps."""
    pairs = open_pairs(run)
    train_family(run, pairs, model, family)
    for stage in family_stages(run, pairs, family):
        _score(run, pairs, stage, settings)
        write_run_manifest(run, pairs.reference)


def _probe_stage(run: Path, model: str, probe: ProbeSettings, settings: ScoreSettings) -> None:
    """Fit the probe on the reference's hidden states, which are read where they are not there, and write its scores."""
    pairs = open_pairs(run)
    family = plan_probe(run, pairs, probe, _pairs_sha(run))

    def load() -> StateEngine:
        return TransformersEngine(model, pairs.reference["dtype"], pairs, settings.tokens_per_batch, settings.attention)

    fit_probe(run, pairs, family, settings.part_size, load)
    write_run_manifest(run, pairs.reference)


def _states_from(run: Path, probe: Family | None, reference: dict[str, Any]) -> StatesFrom | None:
    """The pass that the hidden states of a probe come from: the reference's, or one of their own where that is done
    already or vLLM makes it; None where no states are to be read.
    """
    if probe is None or not wants_states(run, probe):
        return None
    scored = read_manifest(run / "scores" / "base") is not None
    return "own" if scored or reference["engine"] == "vllm" else "reference"


def _score(run: Path, pairs: PairData, stage: ScoreStage, settings: ScoreSettings, probe: Family | None = None) -> None:
    """Score a stage; `probe`: the family of probes whose states are kept of the same pass."""
    states = partial(open_states, run, probe, settings.part_size) if probe is not None else None

    def engine(model: str) -> Engine:
        dtype, budget = stage.key["dtype"], settings.tokens_per_batch
        if stage.key["engine"] == "vllm":
            return VllmEngine(model, dtype, pairs.longest(), budget, log=run / LOGS / f"vllm-{stage.name}.log")
        return TransformersEngine(model, dtype, pairs, budget, settings.attention)

    key = {**stage.key, "pairs": _pairs_sha(run), "part_size": settings.part_size}
    score_stage(run, pairs, replace(stage, key=key), engine, settings.part_size, states)


def _plain_stage(
    run: Path, pairs: PairData, name: str, kind: str, identity: Any, reference: dict[str, Any]
) -> ScoreStage:
    key = {"weights_sha256": identity.weights_sha256, "dtype": reference["dtype"], "engine": reference["engine"]}
    assignments = [Assignment(identity.name, in_group_order(pairs.groups))]
    return ScoreStage(name, key, kind, next_order(run, kind, name), assignments)


def _slug(name: str) -> str:
    """A checkpoint's folder name, safe as a file name."""
    return "".join(c if c.isalnum() or c in "._" else "-" for c in Path(name).name).strip("-.") or "checkpoint"


def _pairs_sha(run: Path) -> str:
    manifest = read_manifest(run / "pairs")
    assert manifest is not None
    return sha256_text(canonical_json([p["sha256"] for p in manifest["parts"]]))


def _part_size(run: Path) -> int:
    size: int = read_json(run / "pairs" / MANIFEST)["key"]["part_size"]
    return size


def _dtype(settings: ScoreSettings, recorded: dict[str, Any] | None) -> str:
    """`auto` is resolved once per run folder: later calls take what its manifest records."""
    from rmo_train.model.policy import resolve_dtype

    if settings.dtype == "auto" and recorded is not None:
        return recorded["dtype"]
    return str(resolve_dtype(settings.dtype)).removeprefix("torch.")


# ---------------------------------------------------------------------------------------------------- checks


def wanted_proxies(settings: ScoreSettings, proxy: ProxySettings, checkpoints: Sequence[str]) -> tuple[int, bool]:
    """(folds of trained proxies, whether to fit a probe): a probe unless something else is asked for.

    A recipe's section `proxy` asks for trained proxies by being there, whatever it sets.
    """
    folds = settings.proxy_folds
    if folds is None:
        folds = proxy.folds if proxy.model_fields_set and not checkpoints else 0
    by_default = settings.proxy_folds is None and not folds and not checkpoints
    return folds, settings.probe if settings.probe is not None else by_default


def longest_allowed(settings: ScoreSettings, model: str, context: int) -> int:
    """`max_length` as it is used: tokens of prompt + longer response, at most the model's `context`."""
    if settings.max_length and settings.max_length > context:
        raise UserError(
            f"--max-length {settings.max_length}: the context of {model} is {context} tokens; give at most that"
        )
    return settings.max_length or min(DEFAULT_MAX_LENGTH, context)


def _check_base(run: Path, manifest: dict[str, Any]) -> None:
    if "base" not in [c["name"] for c in manifest["checkpoints"]]:
        raise UserError(f"{run}: the reference is not scored yet; run `rmo-curate score` to the end first")


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


def _check_rejects(counts: Mapping[str, int], settings: ScoreSettings) -> None:
    """Say what is rejected; `counts` has "pairs" and the number of rejects by reason."""
    total = sum(counts.values())
    rejects = total - counts.get("pairs", 0)
    if not rejects:
        return
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()) if reason != "pairs")
    if settings.max_rejects is not None and rejects > settings.max_rejects * total:
        raise UserError(
            f"{rejects} of {total} records rejected ({reasons}), more than --max-rejects {settings.max_rejects:g} "
            "allows; correct the data, or allow more"
        )
    say(f"warning: {rejects} of {total} records are no pairs ({reasons}); they are kept in rejects/ with their reasons")


def _check_prompts(source: Source, flag: str, folds: int) -> None:
    """More folds than prompts: found before anything is computed."""
    if folds < 2:
        return
    prompts: set[str] = set()
    for record in source.records():
        if isinstance(record, Pair):
            prompts.add(prompt_group(record.prompt, record.tools))
        if len(prompts) == folds:
            return
    raise UserError(
        f"{flag}: {folds} folds need as many distinct prompts, the data has {len(prompts)}; use fewer, "
        "--proxy-folds 1 (in-sample) or 0 (reference only)"
    )


def _check_not_inside(run: Path, places: Sequence[str], overwrite: bool) -> None:
    """--overwrite removes the stages of the run: nothing that this command reads may lie there."""
    inside = [p for p in places if Path(p).exists() and Path(p).resolve().is_relative_to(run.resolve())]
    if overwrite and inside:
        raise UserError(f"--overwrite would remove {inside[0]}, which this command reads; copy it out of {run} first")


def _check_rendered(
    run: Path, source: Source, counts: Mapping[str, int], max_length: int, settings: ScoreSettings
) -> None:
    """What only rendering shows: pairs that the chat template refuses, and pairs that are too long."""
    if counts["pairs"] < source.counts["pairs"]:
        reasons = {k.removeprefix("rejects/"): n for k, n in counts.items() if k.startswith("rejects/")}
        _check_rejects({"pairs": counts["pairs"], **reasons}, settings)
    if not counts["pairs"]:
        raise UserError(
            f"{run}: the model's chat template renders none of the pairs; {run / 'rejects'} has the reason of each"
        )
    if counts[TOO_LONG] == counts["pairs"]:
        raise UserError(
            f"all {counts['pairs']} pairs are longer than {max_length} tokens (prompt + the longer response); give a "
            "larger --max-length, with --overwrite for this folder"
        )
