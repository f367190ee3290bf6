"""What `rmo-curate score` was asked to do, resolved: all that can be wrong is found before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmo_curate.read.files import find_files
from rmo_curate.read.memory import InMemory
from rmo_curate.read.sources import Source, open_source
from rmo_curate.score import checks
from rmo_curate.score.engines.choice import AUTO, settled_engine
from rmo_curate.score.length_limit import LengthLimit, length_limit
from rmo_curate.score.run_folder import check_reference, recorded_reference
from rmo_curate.score.settings import ProxySettings, ScoreSettings, WorkerSettings
from rmo_train.console.progress import say
from rmo_train.store.manifests import PairsManifest, Reference, check_key, read_manifest

if TYPE_CHECKING:
    from rmo_train.data.rendering import Renderer
    from rmo_train.model.models import Identity

USUAL_PARTS, LEAST_IN_PART, MOST_IN_PART = 64, 16, 1024


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
    workers: WorkerSettings,
    *,
    afresh: bool,
) -> ScoreJob:
    """Look everything through that can be wrong before anything is written, what is seen at once first."""
    from rmo_train.model.adapters import check_adapter
    from rmo_train.model.policy import identity
    from rmo_train.model.policy import resolve as resolve_model

    find_files(data)
    for name in (model, *checkpoints):
        resolve_model(name)
    recorded = None if afresh else recorded_reference(run)
    engine = settled_engine(settings.engine, recorded, settings.tensor_parallel_size)
    checks.check_tensor_parallel(settings.tensor_parallel_size, engine, workers, (model, *checkpoints))
    source = open_source(data, limit=settings.limit, columns=columns)
    for name in (model, *checkpoints):
        check_adapter(name)
    own, others = identity(model), tuple(identity(c) for c in checkpoints)
    for other in others:
        checks.check_checkpoint(other, own)
    dtype = _dtype(settings, recorded)
    limit = length_limit(settings, model, dtype, engine, None if afresh else run)
    settings = settings.model_copy(update={"part_size": settings.part_size or usual_part_size(source)})
    for line in (source.said, *source.notes):
        say(line)
    checks.check_rejects(source.counts, settings)
    checks.warn_of_rejects(source)
    checks.check_prompts(source, proxy)
    checks.check_category(source, proxy)
    reference = Reference(**asdict(own), dtype=dtype, engine=engine)
    key = _pairs_key(source, settings, limit.tokens, own)
    if recorded is not None:
        begun = recorded.engine if recorded.engine != AUTO else engine  # killed before it was chosen
        check_reference(recorded.model_copy(update={"engine": begun}), reference, run)
        if (pairs := read_manifest(run / "pairs", PairsManifest)) is not None:
            checks.check_inputs(pairs.inputs, source.inputs, run)
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
