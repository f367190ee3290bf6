"""The stages of a run, each done once: pairs, scores of the reference and of checkpoints, proxies.

The pairs are opened once, after their stage, and handed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rmo_curate.runs.run import MADE_BY
from rmo_curate.score import checks
from rmo_curate.score.cost import StatesFrom, cost_line
from rmo_curate.score.crew import Crew
from rmo_curate.score.engines.choice import AUTO, measured_engine
from rmo_curate.score.engines.spec import EngineSpec
from rmo_curate.score.families import Family, begin_family
from rmo_curate.score.job import ScoreJob
from rmo_curate.score.length_limit import sum_line
from rmo_curate.score.pairs_stage import write_pairs
from rmo_curate.score.probe import fit_probe, open_states, plan_probe, wants_states
from rmo_curate.score.proxies import TrainedFamily, family_stages, plan_family, train_family
from rmo_curate.score.run_folder import next_order, write_run_manifest
from rmo_curate.score.scoring import Assignment, ScoreStage, SpecFor, in_group_order, score_stage
from rmo_curate.score.settings import ProxySettings, ScoreSettings
from rmo_curate.score.states import StateWriter
from rmo_curate.score.workers import LOGS
from rmo_train.console.progress import say
from rmo_train.data.pairs import PairData, open_pairs, with_references
from rmo_train.store.files import canonical_json, sha256_text
from rmo_train.store.manifests import (
    PairsManifest,
    Reference,
    RunManifest,
    ScoresManifest,
    read_manifest,
    require_manifest,
)
from rmo_train.store.tables import reopen_if_damaged

SLUG = 60  # characters, of at most four bytes each

if TYPE_CHECKING:
    from rmo_train.model.models import Identity


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
    keyed, spec_for, states = stage_parts(run, pairs, stage, settings, probe)
    score_stage(run, pairs, keyed, spec_for, settings.part_size, states, crew)


def stage_parts(
    run: Path, pairs: PairData, stage: ScoreStage, settings: ScoreSettings, probe: Family | None
) -> tuple[ScoreStage, SpecFor, Callable[[Path], StateWriter] | None]:
    """A stage with its whole key, what its engines are made of, and what opens the states that are kept beside it."""
    states = partial(open_states, probe, settings.part_size) if probe is not None else None
    spec_for = _spec(run, pairs, stage.key["engine"], stage.key["dtype"], settings, stage.name)
    key = {**stage.key, "pairs": _pairs_sha(run), "part_size": settings.part_size}
    return replace(stage, key=key), spec_for, states


def _spec(
    run: Path, pairs: PairData, engine: str, dtype: str, settings: ScoreSettings, stage: str
) -> Callable[[str], EngineSpec]:
    """What the engine of a model is made of."""
    from rmo_train.forward.layout import Workload

    workload, log = Workload.of(pairs), run.resolve() / LOGS / f"vllm-{stage}.log"

    def spec(model: str) -> EngineSpec:
        path = str(Path(model).resolve()) if Path(model).exists() else model  # a worker has another working folder
        gpus = settings.tensor_parallel_size
        return EngineSpec(engine, path, dtype, workload, settings.tokens_per_batch, settings.attention, log, gpus)

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


def recorded_part_size(run: Path) -> int:
    size: int = require_manifest(run / "pairs", PairsManifest, MADE_BY).key["part_size"]
    return size
