"""`rmo-curate score` and `rmo-curate proxy`: a run's stages in order, each done once.

resolve -> pairs -> scores of the reference and of checkpoints -> proxies. The pairs are opened once, after their stage,
and handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rmo_curate.read.memory import InMemory
from rmo_curate.read.sources import Source, open_source
from rmo_curate.runs.run import MADE_BY
from rmo_curate.runs.run_lock import check_not_held
from rmo_curate.score import checks
from rmo_curate.score.cost import StatesFrom, cost_line, dry_run_lines
from rmo_curate.score.crew import Crew
from rmo_curate.score.engines.choice import AUTO, measured_engine, settled_engine
from rmo_curate.score.engines.spec import EngineSpec
from rmo_curate.score.families import Family, begin_family
from rmo_curate.score.length_limit import LengthLimit, length_limit, sum_line
from rmo_curate.score.pairs_stage import write_pairs
from rmo_curate.score.probe import fit_probe, open_states, plan_probe, wants_states
from rmo_curate.score.proxies import TrainedFamily, family_stages, plan_family, train_family
from rmo_curate.score.run_folder import (
    check_reference,
    check_run_folder,
    filling,
    next_order,
    recorded_reference,
    summary,
    write_run_manifest,
)
from rmo_curate.score.scoring import Assignment, ScoreStage, SpecFor, in_group_order, score_share, score_stage
from rmo_curate.score.settings import ProxySettings, ScoreSettings, WorkerSettings
from rmo_curate.score.shares import Share, check_none_at_work, remove_shares
from rmo_curate.score.states import StateWriter
from rmo_curate.score.workers import LOGS, hired, require_ray
from rmo_train.console.errors import UserError
from rmo_train.console.progress import say
from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData, open_pairs, with_references
from rmo_train.store.files import canonical_json, sha256_text
from rmo_train.store.manifests import (
    PairsManifest,
    Reference,
    RunManifest,
    ScoresManifest,
    check_key,
    read_manifest,
    require_manifest,
)
from rmo_train.store.tables import reopen_if_damaged

if TYPE_CHECKING:
    from rmo_train.data.rendering import Renderer
    from rmo_train.model.models import Identity

SLUG = 60  # characters, of at most four bytes each
USUAL_PARTS, LEAST_IN_PART, MOST_IN_PART = 64, 16, 1024


def run_score(
    data: Sequence[str | InMemory],
    model: str,
    run: Path,
    settings: ScoreSettings,
    proxy: ProxySettings,
    *,
    checkpoints: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    workers: WorkerSettings | None = None,
    share: Share | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> list[str]:
    """Read, render and score `data` under the reference, the checkpoints and a proxy; returns the lines to print.

    The same call again goes on where a killed one stopped, and computes nothing after a finished one. `overwrite`
    starts afresh: pairs, scores and proxies. `share`: only what is its own of that, see `shares`.
    """
    workers = workers or WorkerSettings()
    require_ray(workers)
    check_run_folder(run)
    if not dry_run:
        check_not_held(run)  # `filling` holds it, later: here it is found before the data are read
    job = resolve(data, model, run, settings, proxy.resolved(checkpoints), checkpoints, columns, afresh=overwrite)
    if dry_run:
        return dry_run_lines(job.source, job.renderer, job.reference, job.limit, job.proxy, len(job.checkpoints))
    if share is not None:
        return run_share(job, share)
    check_none_at_work(run)
    checks.check_not_inside(run, [*(d for d in data if isinstance(d, str)), model, *checkpoints], overwrite)
    with filling(run, afresh=overwrite):
        if not overwrite and recorded_reference(run) != job.recorded:
            raise UserError(f"{run}: another rmo-curate process has written to this folder; run the command again")
        pairs = pairs_stage(job)
        family = plan(job, pairs)
        with hired(workers, run) as crew:
            pairs = reference_stage(job, pairs, family, crew)
            checkpoint_stages(job, pairs, crew)
            if family is not None:
                proxy_stage(run, pairs, family, job.settings, crew)
        remove_shares(run)
        return summary(run)


def run_share(job: ScoreJob, share: Share) -> list[str]:
    """The pairs (share 0), or one share's parts of the reference's and the checkpoints' scores."""
    if share.number == 0:
        with filling(job.run):
            pairs = pairs_stage(job)
            plan(job, pairs)
        return [f"{len(pairs):,} pairs are ready: start --shard 1/{share.of} to {share.of}/{share.of}"]
    if job.recorded is None:
        raise UserError(f"--shard {share}: {job.run} has no pairs yet; run the same command with --shard 0/{share.of}")
    with filling(share.folder(job.run)):
        pairs = open_pairs(job.run)
        check_key(require_manifest(job.run / "pairs", PairsManifest, MADE_BY).key, job.key, job.run / "pairs")
        family = planned(job.run, pairs, job.proxy) if job.proxy.kind != "none" else None
        probe = family if states_from(job.run, family, pairs.reference) == "reference" else None
        stages = [(base_stage(job, pairs), probe), *((stage, None) for stage in user_stages(job, pairs))]
        done = 0
        for stage, probed in stages:
            key, spec_for, states = stage_parts(job.run, pairs, stage, job.settings, probed)
            keyed = replace(stage, key=key)
            done += score_share(job.run, share, pairs, keyed, spec_for, job.settings.part_size, states)
    return [f"--shard {share}: {counted(done, 'part')} done; when all are, run the same command without --shard"]


def run_proxy(
    run: Path, settings: ProxySettings, *, workers: WorkerSettings | None = None, dry_run: bool = False
) -> list[str]:
    """Make and score one family of proxies on a scored run; returns the lines to print."""
    settings = settings.resolved()
    if settings.kind == "none":
        raise UserError("--kind none adds no proxy; expected probe or lora")
    require_ray(workers or WorkerSettings())
    manifest = require_manifest(run, RunManifest, MADE_BY)
    with nullcontext() if dry_run else filling(run):
        checks.check_base(run, manifest)
        pairs = open_pairs(run)
        family = planned(run, pairs, settings)
        if dry_run:
            return [planned_line(run, family)]
        begin_family(run, pairs, family)
        with hired(workers or WorkerSettings(), run) as crew:
            proxy_stage(run, pairs, family, ScoreSettings(part_size=_part_size(run)), crew)
        return summary(run)


def planned_line(run: Path, family: Family) -> str:
    """What making a family will take."""
    if isinstance(family, TrainedFamily):
        return (
            f"would train {family.folds} proxies of {family.total} steps of {family.settings.batch_size} pairs "
            f"and score steps {list(family.steps)} as {family.name}"
        )
    reading = "read hidden states in one pass and " if wants_states(run, family) else ""
    return f"would {reading}fit {family.folds} linear probes, as {family.name}"


# ---------------------------------------------------------------------------------------------------- resolving


@dataclass(frozen=True)
class ScoreJob:
    """What `score` was asked to do, resolved: the data looked through, `auto` settled, nothing written yet."""

    run: Path
    source: Source
    model: str
    checkpoints: tuple[Identity, ...]
    settings: ScoreSettings
    proxy: ProxySettings  # with its kind
    limit: LengthLimit  # of a pair
    identity: Identity  # of the reference
    reference: Reference  # its identity, dtype and engine
    recorded: Reference | None  # the reference that the folder was begun with
    key: dict[str, Any]  # of the pairs

    @property
    def renderer(self) -> Renderer:
        from rmo_train.data.rendering import Renderer
        from rmo_train.model.policy import load_tokenizer

        return Renderer(load_tokenizer(self.model))


def resolve(
    data: Sequence[str | InMemory],
    model: str,
    run: Path,
    settings: ScoreSettings,
    proxy: ProxySettings,
    checkpoints: Sequence[str],
    columns: Mapping[str, str] | None,
    *,
    afresh: bool,
) -> ScoreJob:
    """Look everything through that can be wrong before anything is written."""
    from rmo_train.model.adapters import check_adapter
    from rmo_train.model.policy import identity

    for name in (model, *checkpoints):
        check_adapter(name)
    own, others = identity(model), tuple(identity(c) for c in checkpoints)
    for other in others:
        checks.check_checkpoint(other, own)
    recorded = None if afresh else recorded_reference(run)
    dtype, engine = _dtype(settings, recorded), settled_engine(settings.engine, recorded)
    limit = length_limit(settings, model, dtype, engine, None if afresh else run)
    source = open_source(data, limit=settings.limit, columns=columns)
    settings = settings.model_copy(update={"part_size": settings.part_size or usual_part_size(source)})
    for line in (source.said, *source.notes):
        say(line)
    checks.check_rejects(source.counts, settings)
    checks.warn_of_rejects(source)
    checks.check_prompts(source, proxy)
    reference = Reference(**asdict(own), dtype=dtype, engine=engine)
    key = _pairs_key(source, settings, limit.tokens, own)
    if recorded is not None:
        begun = recorded.engine if recorded.engine != AUTO else engine  # killed before it was chosen
        check_reference(recorded.model_copy(update={"engine": begun}), reference, run)
        if (pairs := read_manifest(run / "pairs", PairsManifest)) is not None:
            check_key(pairs.key, key, run)
    return ScoreJob(run, source, model, others, settings, proxy, limit, own, reference, recorded, key)


def usual_part_size(source: Source) -> int:
    """Pairs of a part where nobody asks for a number: about 64 parts, so that an interruption loses little."""
    return min(MOST_IN_PART, max(LEAST_IN_PART, source.counts["pairs"] // USUAL_PARTS))


def _dtype(settings: ScoreSettings, recorded: Reference | None) -> str:
    """`auto` is resolved once per run folder: later calls take what its manifest records."""
    from rmo_train.model.policy import resolve_dtype

    if settings.dtype == "auto" and recorded is not None and recorded.dtype is not None:
        return recorded.dtype
    return str(resolve_dtype(settings.dtype)).removeprefix("torch.")


def _pairs_key(source: Source, settings: ScoreSettings, max_length: int, reference: Identity) -> dict[str, Any]:
    """What the pairs' bytes depend on."""
    return {
        "inputs": [i.sha256 for i in source.inputs],  # by content: moving a file changes nothing
        "form": source.form.name,
        "columns": dict(source.columns),
        "limit": settings.limit,
        "max_length": max_length,
        "part_size": settings.part_size,
        "tokenizer_sha256": reference.tokenizer_sha256,
        "template_sha256": reference.template_sha256,
    }


# ---------------------------------------------------------------------------------------------------- stages


def pairs_stage(job: ScoreJob) -> PairData:
    """Read, render and write the pairs, and open them. An engine that is not chosen yet is measured on them."""
    run, settings = job.run, job.settings
    size, limit = settings.part_size, job.limit
    made = write_pairs(
        job.source, job.renderer, run, job.key, part_size=size, max_length=limit.tokens, context=limit.context
    )
    checks.check_rendered(run, job.source, made.counts, limit.tokens, settings)
    if made.longest is not None:
        say(sum_line(limit, made.longest))
    write_run_manifest(run, job.reference)
    reopen_if_damaged(run / "scores" / "base", ScoresManifest)  # which `open_pairs` would refuse to read
    pairs = open_pairs(run)
    if job.reference.engine != AUTO:
        return pairs
    log = run / LOGS / "vllm-measured.log"
    engine = measured_engine(job.model, str(job.reference.dtype), pairs, settings.tokens_per_batch, log)
    write_run_manifest(run, job.reference.model_copy(update={"engine": engine}))
    return replace(pairs, manifest=require_manifest(run, RunManifest, MADE_BY))


def plan(job: ScoreJob, pairs: PairData) -> Family | None:
    """The proxy family that is asked for, begun; and a word on what is about to be computed."""
    family = planned(job.run, pairs, job.proxy) if job.proxy.kind != "none" else None
    if family is not None:
        begin_family(job.run, pairs, family)
    trained = family if isinstance(family, TrainedFamily) else None
    say(cost_line(pairs, len(job.checkpoints), trained, states_from(job.run, family, pairs.reference)))
    return family


def planned(run: Path, pairs: PairData, settings: ProxySettings) -> Family:
    """The family that these settings name; nothing is written."""
    make = plan_probe if settings.kind == "probe" else plan_family
    return make(run, pairs, settings, _pairs_sha(run))


def states_from(run: Path, family: Family | None, reference: Reference) -> StatesFrom | None:
    """The pass that the hidden states of a probe come from: the reference's, or one of their own where that is done
    already or vLLM makes it; None where no states are to be read.
    """
    if family is None or isinstance(family, TrainedFamily) or not wants_states(run, family):
        return None
    scored = read_manifest(run / "scores" / "base", ScoresManifest) is not None
    return "own" if scored or reference.engine == "vllm" else "reference"


def reference_stage(job: ScoreJob, pairs: PairData, family: Family | None, crew: Crew) -> PairData:
    """Score the reference, with a probe's states from the same pass; returns the pairs with its log-probs."""
    base = base_stage(job, pairs)
    probe = family if states_from(job.run, family, pairs.reference) == "reference" else None
    _score(job.run, pairs, base, job.settings, crew, probe)
    write_run_manifest(job.run, pairs.reference)
    return with_references(pairs)


def base_stage(job: ScoreJob, pairs: PairData) -> ScoreStage:
    return _plain_stage(job.run, pairs, "base", "base", job.identity)


def user_stages(job: ScoreJob, pairs: PairData) -> Iterator[ScoreStage]:
    """One a checkpoint of the user's; its place among them is told when it is asked for."""
    for other in job.checkpoints:
        name = f"{_slug(other.name)}-{other.weights_sha256[:8]}"
        yield _plain_stage(job.run, pairs, name, "user", other)


def checkpoint_stages(job: ScoreJob, pairs: PairData, crew: Crew) -> None:
    """Score the user's own checkpoints, in the order given."""
    for stage in user_stages(job, pairs):
        _score(job.run, pairs, stage, job.settings, crew)
        write_run_manifest(job.run, pairs.reference)


def proxy_stage(run: Path, pairs: PairData, family: Family, settings: ScoreSettings, crew: Crew) -> None:
    """Train the family on the reference's log-probs and score its steps; or fit a probe and write its scores.

    A probe's hidden states are read where they are not there.
    """
    model = str(pairs.reference.name)
    if isinstance(family, TrainedFamily):
        train_family(run.resolve(), pairs, model, family, crew)
        for stage in family_stages(run, pairs, family):
            _score(run, pairs, stage, settings, crew)
            write_run_manifest(run, pairs.reference)
        return

    spec = _spec(run, pairs, "transformers", str(pairs.reference.dtype), settings, "states")(model)
    fit_probe(run, pairs, family, settings.part_size, spec, crew)
    write_run_manifest(run, pairs.reference)


def _score(
    run: Path, pairs: PairData, stage: ScoreStage, settings: ScoreSettings, crew: Crew, probe: Family | None = None
) -> None:
    """Score a stage; `probe`: the family of probes whose states are kept of the same pass."""
    key, spec_for, states = stage_parts(run, pairs, stage, settings, probe)
    score_stage(run, pairs, replace(stage, key=key), spec_for, settings.part_size, states, crew)


def stage_parts(
    run: Path, pairs: PairData, stage: ScoreStage, settings: ScoreSettings, probe: Family | None
) -> tuple[dict[str, Any], SpecFor, Callable[[Path], StateWriter] | None]:
    """The whole key of a stage, what its engines are made of, and what opens the states that are kept beside it."""
    states = partial(open_states, probe, settings.part_size) if probe is not None else None
    spec_for = _spec(run, pairs, stage.key["engine"], stage.key["dtype"], settings, stage.name)
    return {**stage.key, "pairs": _pairs_sha(run), "part_size": settings.part_size}, spec_for, states


def _spec(
    run: Path, pairs: PairData, engine: str, dtype: str, settings: ScoreSettings, stage: str
) -> Callable[[str], EngineSpec]:
    """What the engine of a model is made of."""
    from rmo_train.forward.layout import Workload

    workload, log = Workload.of(pairs), run.resolve() / LOGS / f"vllm-{stage}.log"

    def spec(model: str) -> EngineSpec:
        path = str(Path(model).resolve()) if Path(model).exists() else model  # a worker has another working folder
        return EngineSpec(engine, path, dtype, workload, settings.tokens_per_batch, settings.attention, log)

    return spec


def _plain_stage(
    run: Path, pairs: PairData, name: str, kind: Literal["base", "user"], identity: Identity
) -> ScoreStage:
    reference = pairs.reference
    key = {"weights_sha256": identity.weights_sha256, "dtype": reference.dtype, "engine": reference.engine}
    assignments = [Assignment(identity.name, in_group_order(pairs.groups))]
    return ScoreStage(name, key, kind, next_order(run, kind, name), assignments)


def _slug(name: str) -> str:
    """A checkpoint's folder name, safe as a part of a file name and short enough for one."""
    safe = "".join(c if c.isalnum() or c in "._" else "-" for c in Path(name).name)
    return safe.strip("-.")[:SLUG].rstrip("-.") or "checkpoint"


def _pairs_sha(run: Path) -> str:
    manifest = require_manifest(run / "pairs", PairsManifest, MADE_BY)
    return sha256_text(canonical_json([part.sha256 for part in manifest.parts]))


def _part_size(run: Path) -> int:
    size: int = require_manifest(run / "pairs", PairsManifest, MADE_BY).key["part_size"]
    return size
