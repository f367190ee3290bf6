"""Curation from Python: the functions that the commands of `rmo-curate` call, with typed results.

`import rmo_curate` has these names; models and frames are loaded when one of them is called. Settings are keyword
arguments, called as the flags are, with underscores. Where no `out` is given, folders go to ~/.cache/rmo (RMO_CACHE)
under a name made of their content, so that the same call finds what it made before; a line says where.

A mistake raises UserError, what fails in the middle ProcessingError, a Ctrl-C Stopped with what is kept. Progress and
notes go to standard error, nothing to standard output.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rmo_curate.audit.settings import AuditSettings
from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.read.memory import AnyPath, Data, InMemory, given
from rmo_curate.runs.places import place_of
from rmo_curate.runs.run import Run as Folder
from rmo_curate.runs.run import open_run as open_folder
from rmo_curate.score.run_folder import is_run
from rmo_curate.score.settings import ProxySettings, ScoreSettings, WorkerSettings
from rmo_train.console.errors import ProcessingError, RmoError, Stopped, UserError
from rmo_train.console.keywords import from_keywords, in_keywords, takes
from rmo_train.console.progress import say
from rmo_train.console.settings import Settings
from rmo_train.console.trust import TrustSettings
from rmo_train.store import tables
from rmo_train.store.manifests import Parts, ShardsManifest, require_manifest

if TYPE_CHECKING:
    import polars as pl

    from rmo_curate.audit.command import AuditSummary

__all__ = ["ProcessingError", "RmoError", "Run", "Shards", "Stopped", "UserError", "audit", "open_run", "score"]


class ScoreKeywords(ScoreSettings, WorkerSettings, TrustSettings):
    """How pairs are scored, by whom, and what models may do."""


class ProxyKeywords(ProxySettings, TrustSettings):
    """A proxy, and what its base may do."""


@takes(ScoreKeywords)
def score(
    data: Data,
    model: AnyPath,
    out: AnyPath | None = None,
    *,
    proxy: str | Mapping[str, Any] | None = None,
    checkpoint: AnyPath | Sequence[AnyPath] = (),
    map: Mapping[str, str] | None = None,
    overwrite: bool = False,
    **settings: Any,
) -> Run:
    """Record every pair's log-probs under a reference and a proxy, as `rmo-curate score` does.

    data: paths, a list of dicts, a datasets.Dataset, a polars or pandas DataFrame or an Arrow table, in any form that
    files have. model: a folder, a hub name or smollm2-135m. out: the run folder; scoring goes on where an earlier
    call stopped, and computes nothing after a finished one. proxy: probe (the default), lora or none, or the settings
    of a recipe's section `proxy`, as {"kind": "lora", "folds": 2}. checkpoint: trained checkpoints to score too.
    map: columns that are called otherwise in the data, as {"prompt": "question"}. overwrite: start `out` afresh.

    UserError: data without one usable pair, a model that cannot be loaded, an `out` made of other data or settings.
    ProcessingError: no memory, a full disk.
    """
    from rmo_curate.score.command import run_score

    asked = from_keywords(ScoreKeywords, settings, "score()")
    own, workers = asked.part(ScoreSettings), asked.part(WorkerSettings)
    of_proxy = from_keywords(ProxySettings, {"kind": proxy} if isinstance(proxy, str) else proxy or {}, "proxy")
    parts, name, checkpoints = given(data), os.fspath(model), _paths(checkpoint)
    columns = dict(map or {})
    with asked.in_force():
        place = place_of(
            out,
            "runs",
            lambda: [_fingerprints(parts), _models(name, *checkpoints), columns, _dumped(own), _dumped(of_proxy)],
        )
        run_score(
            parts,
            name,
            place,
            own,
            of_proxy,
            checkpoints=checkpoints,
            columns=columns,
            workers=workers,
            overwrite=overwrite,
        )
    return Run(place)


def open_run(path: AnyPath) -> Run:
    """The run folder that `score` made at `path`; UserError where there is none, or one that is not finished."""
    with in_keywords():
        return Run(open_folder(Path(path)).folder)


@takes(AuditSettings)
def audit(
    data: Data | Run,
    out: AnyPath | None = None,
    *,
    map: Mapping[str, str] | None = None,
    filtering: Mapping[str, Any] | None = None,
    **settings: Any,
) -> AuditSummary:
    """Say what is wrong with preference data, as `rmo-curate audit` does: report.html and audit.json in `out`.

    data: a run, or data as `score` takes them, which then needs no model. map: as for `score`. filtering: settings of
    `Run.filter`, of a run; the page shows what they drop (default: what `filter` drops by default).

    The result shows the page in a notebook; `numbers` has what is in audit.json, `tripped` the `fail_on` that trip.
    UserError: data without one usable pair, a run that is not finished.
    """
    from rmo_curate.audit.command import write_audit, write_data_audit

    own = from_keywords(AuditSettings, settings, "audit()")
    if (run := _run_in(data)) is not None:
        if map:
            raise UserError("--map is for data; a run was read with its own")
        filters = None if filtering is None else from_keywords(FilterSettings, filtering, "filtering")
        place = place_of(out, "reports", lambda: [str(run.resolve()), _dumped(own), filters and _dumped(filters)])
        return write_audit(run, place, own, filters)
    if filtering is not None:
        raise UserError("filtering: only a run can be filtered; score the data first")
    parts = given(data)
    place = place_of(out, "reports", lambda: [_fingerprints(parts), dict(map or {}), _dumped(own)])
    return write_data_audit(parts, place, own, columns=map)


@dataclass(frozen=True, repr=False)
class Run:
    """A scored run folder. It stands for its path, so whatever takes a run's path takes it."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.counts['pairs']:,} pairs scored by {', '.join(self.checkpoints)})"

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of records, pairs, rejects, pairs that are too long and scorable ones."""
        return self._folder.manifest.counts

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Names of the models that scored the pairs, the reference (`base`) first."""
        return tuple(checkpoint.name for checkpoint in self._folder.checkpoints)

    @takes(EvidenceColumns)
    def pairs(self, *, reasons: bool = True, **settings: Any) -> pl.DataFrame:
        """Every pair, a row each, in the order of the data.

        The columns of the data go along; `prompt`, `chosen` and `rejected` are texts (of several messages, with an
        empty line between). `margin_<checkpoint>`: log-prob of the chosen answer less that of the rejected one, nats,
        null for a pair that is too long. `label_confidence`: P(the label is right) by all evidence. `reasons`: in
        words, what speaks loudest against the label first; without them (False) large runs are read faster.
        """
        from rmo_curate.evidence.judged import judged_pairs

        names = from_keywords(EvidenceColumns, settings, "pairs()")
        return judged_pairs(self._folder, names, with_reasons=reasons)

    def rejects(self) -> pl.DataFrame:
        """Every record that is no pair: its source, line, reason, detail and text."""
        import polars as pl

        return pl.DataFrame(self._folder.rejects())

    @takes(ProxyKeywords)
    def proxy(self, **settings: Any) -> Self:
        """Make and score one family of proxies, as `rmo-curate proxy` does; `checkpoints` then has them, too."""
        from rmo_curate.score.command import run_proxy

        asked = from_keywords(ProxyKeywords, settings, "proxy()")
        with asked.in_force():
            run_proxy(self.path, asked.part(ProxySettings))
        return self

    @takes(FilterSettings)
    def filter(self, out: AnyPath | None = None, *, overwrite: bool = False, **settings: Any) -> Shards:
        """Drop noisy and ambiguous pairs and write the rest as shards, as `rmo-curate filter` does.

        out: the shard folder, which stays as it is if it was made so already. overwrite: make it again.
        UserError: settings that exclude each other, a rule without its proxy, an `out` of other settings, no pair left.
        """
        from rmo_curate.filter.command import run_filter
        from rmo_curate.filter.shards import shards_key

        own = from_keywords(FilterSettings, settings, "filter()")
        folder = self._folder
        place = place_of(out, "shards", lambda: shards_key(folder, folder.trajectory(own.end), own))
        for line in run_filter(self.path, place, own, overwrite=overwrite):
            say(line)
        return Shards(place)

    @takes(AuditSettings)
    def report(
        self, out: AnyPath | None = None, *, filtering: Mapping[str, Any] | None = None, **settings: Any
    ) -> AuditSummary:
        """What is wrong with these pairs, as `audit` says it; in a notebook the page is shown."""
        return audit(self, out, filtering=filtering, **settings)

    @property
    def _folder(self) -> Folder:
        return open_folder(self.path)


@dataclass(frozen=True, repr=False)
class Shards:
    """A shard folder: what the filter kept, as `rmo_train.train` reads it, and what it dropped; stands for its path."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Shards({str(self.path)!r}: {self.counts['kept']:,} of {self.counts['pairs']:,} pairs kept)"

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of pairs, of kept ones, and of those dropped for each reason."""
        return self._manifest.counts

    def kept(self) -> pl.DataFrame:
        """The pairs to train on, with margins, suspicion, weight and label_confidence."""
        return self._read(self._manifest)

    def dropped(self) -> pl.DataFrame:
        """The other pairs, with the same columns and `drop_reason`."""
        return self._read(self._manifest.dropped)

    def export(self, to: str, out: AnyPath) -> Path:
        """Write the kept pairs for another trainer, as `rmo-curate export` does; its README.md says what is lost.

        to: trl, llama-factory, axolotl or openrlhf. Returns the folder `out`.
        """
        from rmo_curate.export.command import run_export
        from rmo_curate.export.formats import Trainer

        if to not in list(Trainer):
            raise UserError(f"to={to!r}: no trainer of that name; expected {', '.join(Trainer)}")
        with in_keywords():
            run_export(self.path, Trainer(to), Path(out))
        return Path(out)

    @property
    def _manifest(self) -> ShardsManifest:
        return require_manifest(self.path, ShardsManifest, "rmo-curate filter RUN --out SHARDS")

    def _read(self, parts: Parts) -> pl.DataFrame:
        import polars as pl

        return pl.concat([pl.DataFrame(part) for part in tables.iter_parts(self.path, parts)])


def _run_in(data: Any) -> Path | None:
    """The run folder that `data` is or names."""
    if isinstance(data, Run):
        return data.path
    return Path(data) if isinstance(data, str | PathLike) and is_run(Path(data)) else None


def _paths(several: AnyPath | Sequence[AnyPath]) -> tuple[str, ...]:
    return tuple(os.fspath(path) for path in ([several] if isinstance(several, str | PathLike) else several))


def _fingerprints(parts: Sequence[str | InMemory]) -> list[str]:
    from rmo_curate.read.files import find_files

    return [part.identity().sha256 for part in find_files(parts).files]


def _models(*names: str) -> list[dict[str, str]]:
    """What each model is, whatever it is called."""
    from rmo_train.model.models import identity

    return [asdict(identity(name)) | {"name": ""} for name in names]


def _dumped(settings: Settings) -> dict[str, Any]:
    dumped: dict[str, Any] = settings.model_dump(mode="json")
    return dumped
