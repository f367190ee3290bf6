"""`rmo-curate score` and `rmo-curate proxy`: which stages, in which order.

resolve -> pairs -> scores of the reference and of checkpoints -> proxies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from rmo_curate.read.memory import InMemory
from rmo_curate.runs.run import MADE_BY
from rmo_curate.runs.run_lock import check_not_held
from rmo_curate.score import checks
from rmo_curate.score.cost import dry_run_lines
from rmo_curate.score.families import Family, begin_family
from rmo_curate.score.job import ScoreJob, resolve
from rmo_curate.score.probe import wants_states
from rmo_curate.score.proxies import TrainedFamily
from rmo_curate.score.run_folder import check_run_folder, filling, recorded_reference, scored_already, summary
from rmo_curate.score.scoring import score_share
from rmo_curate.score.settings import ProxySettings, ScoreSettings, WorkerSettings
from rmo_curate.score.shares import Share, check_none_at_work, remove_shares
from rmo_curate.score.stages import (
    base_stage,
    checkpoint_stages,
    pairs_stage,
    plan,
    planned,
    proxy_stage,
    recorded_part_size,
    reference_stage,
    stage_parts,
    states_from,
    user_stages,
)
from rmo_curate.score.workers import hired, require_ray
from rmo_train.console.errors import UserError
from rmo_train.console.wording import counted
from rmo_train.data.pairs import open_pairs
from rmo_train.store.manifests import PairsManifest, RunManifest, check_key, require_manifest


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
    checks.check_workers(workers, settings.tensor_parallel_size)
    check_run_folder(run)
    if not dry_run:
        check_not_held(run)  # `filling` holds it, later: here it is found before the data are read
    proxy = proxy.resolved(checkpoints)
    job = resolve(data, model, run, settings, proxy, checkpoints, columns, workers, afresh=overwrite)
    if dry_run:
        foreseen = dry_run_lines(job.source, job.renderer, job.reference, job.limit, job.proxy, len(job.checkpoints))
        return [*([] if overwrite else scored_already(run)), *foreseen]
    if share is not None:
        return run_share(job, share)
    check_none_at_work(run)
    checks.check_not_inside(run, [*(d for d in data if isinstance(d, str)), model, *checkpoints], overwrite)
    with filling(run, afresh=overwrite):
        if not overwrite and recorded_reference(run) != job.recorded:
            raise UserError(f"{run}: another rmo-curate process has written to this folder; run the command again")
        pairs = pairs_stage(job)
        family = plan(job, pairs)
        with hired(workers, run, job.settings.tensor_parallel_size) as crew:
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
        return [f"pairs prepared: {len(pairs):,}; now start --shard 1/{share.of} to {share.of}/{share.of}"]
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
            keyed, spec_for, states = stage_parts(job.run, pairs, stage, job.settings, probed)
            done += score_share(job.run, share, pairs, keyed, spec_for, job.settings.part_size, states)
    return [f"--shard {share}: {counted(done, 'part')} done; after all shares, run the same command without --shard"]


def run_proxy(
    run: Path,
    settings: ProxySettings,
    *,
    workers: WorkerSettings | None = None,
    tensor_parallel_size: int = 1,
    dry_run: bool = False,
) -> list[str]:
    """Make and score one family of proxies on a scored run; returns the lines to print."""
    settings = settings.resolved()
    if settings.kind == "none":
        raise UserError("--kind none adds no proxy; expected probe or lora")
    workers = workers or WorkerSettings()
    require_ray(workers)
    checks.check_workers(workers, tensor_parallel_size)
    manifest = require_manifest(run, RunManifest, MADE_BY)
    reference = manifest.reference
    checks.check_tensor_parallel(tensor_parallel_size, reference.engine or "", workers, (str(reference.name),))
    with nullcontext() if dry_run else filling(run):
        checks.check_base(run, manifest)
        pairs = open_pairs(run)
        family = planned(run, pairs, settings)
        if dry_run:
            return [planned_line(run, family)]
        begin_family(run, pairs, family)
        scoring = ScoreSettings(part_size=recorded_part_size(run), tensor_parallel_size=tensor_parallel_size)
        with hired(workers, run, tensor_parallel_size) as crew:
            proxy_stage(run, pairs, family, scoring, crew)
        return summary(run)


def planned_line(run: Path, family: Family) -> str:
    """What making a family will take."""
    if isinstance(family, TrainedFamily):
        return (
            f"would train {counted(family.folds, 'proxy', 'proxies')}, {counted(family.total, 'step')} of "
            f"{counted(family.settings.batch_size, 'pair')} each, and score steps {list(family.steps)} as {family.name}"
        )
    reading = "read hidden states in one pass and " if wants_states(run, family) else ""
    return f"would {reading}fit {counted(family.folds, 'linear probe')} as {family.name}"
