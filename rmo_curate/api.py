"""Curation from Python: the functions that the commands of `rmo-curate` call, with typed results.

`import rmo_curate` provides these names; models and frames are loaded when one of them is called. Settings are keyword
arguments, named like the flags but with underscores. Without `out`, a folder goes to ~/.cache/rmo (RMO_CACHE) under a
name derived from its content, so that the same call finds it again; a line says where.

A user's mistake raises UserError, a failure during the work ProcessingError, and Ctrl-C Stopped, which says what is
kept. Progress and notes go to standard error, nothing to standard output.
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
    """Settings of scoring and its workers, and what models may do."""


class ProxyKeywords(ProxySettings, TrustSettings):
    """Settings of a proxy, and what its base may do."""


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
    """Compute every pair's log-probs under a reference and a proxy, like `rmo-curate score`.

    data: paths, a list of dicts, a datasets.Dataset, a polars or pandas DataFrame or an Arrow table, in any form that
    is read from files. model: a folder, a Hub name or smollm2-135m. out: the run folder; the same call resumes an
    interrupted run, and computes nothing after a finished one. proxy: probe (the default), lora or none, or settings as
    in a recipe's section `proxy`, such as {"kind": "lora", "folds": 2}. checkpoint: trained checkpoints to score, too.
    map: columns with other names in the data, such as {"prompt": "question"}. overwrite: replace `out`.

    UserError: no usable pair in the data, a model that cannot be loaded, an `out` made from other data or settings.
    ProcessingError: out of memory, a full disk.
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
    """The run folder that `score` made at `path`; UserError if there is none, or if it is not finished."""
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
    """Report problems in preference data, like `rmo-curate audit`: writes report.html and audit.json to `out`.

    data: a run, or the same data as for `score`, audited without a model. map: as for `score`. filtering (of a run
    only): settings of `Run.filter`; the page shows what they drop (default: what `filter` drops by default).

    In a notebook, the result shows the page. Its `numbers` are those of audit.json; `tripped` lists the conditions of
    `fail_on` that are met.

    UserError: no usable pair in the data, a run that is not finished.
    """
    from rmo_curate.audit.command import write_audit, write_data_audit

    own = from_keywords(AuditSettings, settings, "audit()")
    if (run := _run_in(data)) is not None:
        if map:
            raise UserError("--map is for data; a run keeps the columns it was scored with: leave --map out")
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
    """A scored run folder. It can be passed wherever a run's path can."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}: {self.counts['pairs']:,} pairs scored by {', '.join(self.checkpoints)})"

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of records, pairs, rejects, over-long pairs and scorable pairs."""
        return self._folder.manifest.counts

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Names of the models that scored the pairs, the reference (`base`) first."""
        return tuple(checkpoint.name for checkpoint in self._folder.checkpoints)

    @takes(EvidenceColumns)
    def pairs(self, *, reasons: bool = True, **settings: Any) -> pl.DataFrame:
        """All pairs, one row each, in the order of the data.

        The columns of the data are kept; `prompt`, `chosen` and `rejected` are texts (several messages are separated by
        an empty line). `margin_<checkpoint>`: log-prob of the chosen answer minus that of the rejected one, nats, null
        for a pair that is too long. `label_confidence`: P(label right), given all evidence. `reasons`: sentences, the
        strongest reason against the label first; reasons=False leaves them out, which is faster on large runs.
        """
        from rmo_curate.evidence.judged import judged_pairs

        names = from_keywords(EvidenceColumns, settings, "pairs()")
        return judged_pairs(self._folder, names, with_reasons=reasons)

    def rejects(self) -> pl.DataFrame:
        """All rejected records, with source, line, reason, detail and text."""
        import polars as pl

        return pl.DataFrame(self._folder.rejects())

    @takes(ProxyKeywords)
    def proxy(self, **settings: Any) -> Self:
        """Make and score one family of proxies, like `rmo-curate proxy`; `checkpoints` then includes them."""
        from rmo_curate.score.command import run_proxy

        asked = from_keywords(ProxyKeywords, settings, "proxy()")
        with asked.in_force():
            run_proxy(self.path, asked.part(ProxySettings))
        return self

    @takes(FilterSettings)
    def filter(self, out: AnyPath | None = None, *, overwrite: bool = False, **settings: Any) -> Shards:
        """Soften labels or drop pairs, and write what stays as shards, like `rmo-curate filter`.

        out: the shard folder; kept as it is if it was made with the same settings. overwrite: make it again.
        UserError: conflicting settings, a rule without its proxy, an `out` made with other settings, no pair left.
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
        """The report of `audit` on this run; in a notebook, it shows the page."""
        return audit(self, out, filtering=filtering, **settings)

    @property
    def _folder(self) -> Folder:
        return open_folder(self.path)


@dataclass(frozen=True, repr=False)
class Shards:
    """A shard folder: the kept pairs, to be read by `rmo_train.train`, and the dropped ones. It can be passed wherever
    a shard folder's path can."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Shards({str(self.path)!r}: {self.counts['kept']:,} of {self.counts['pairs']:,} pairs kept)"

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of pairs, of kept pairs, and of pairs dropped for each reason."""
        return self._manifest.counts

    def kept(self) -> pl.DataFrame:
        """The pairs to train on, with margins, suspicion, weight and label_confidence."""
        return self._read(self._manifest)

    def dropped(self) -> pl.DataFrame:
        """The dropped pairs, with the same columns and `drop_reason`."""
        return self._read(self._manifest.dropped)

    def export(self, to: str, out: AnyPath) -> Path:
        """Write the kept pairs in another trainer's format, like `rmo-curate export`; README.md says what is lost.

        to: trl, llama-factory, axolotl or openrlhf. Returns the folder `out`.
        """
        from rmo_curate.export.command import run_export
        from rmo_curate.export.formats import Trainer

        if to not in list(Trainer):
            raise UserError(f"to={to!r}: no such trainer; expected one of {', '.join(Trainer)}")
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
    """The run folder if `data` is a run or a run's path, else None."""
    if isinstance(data, Run):
        return data.path
    return Path(data) if isinstance(data, str | PathLike) and is_run(Path(data)) else None


def _paths(several: AnyPath | Sequence[AnyPath]) -> tuple[str, ...]:
    return tuple(os.fspath(path) for path in ([several] if isinstance(several, str | PathLike) else several))


def _fingerprints(parts: Sequence[str | InMemory]) -> list[str]:
    from rmo_curate.read.files import find_files

    return [part.identity().sha256 for part in find_files(parts).files]


def _models(*names: str) -> list[dict[str, str]]:
    """The identity of each model, independent of its name."""
    from rmo_train.model.models import identity

    return [asdict(identity(name)) | {"name": ""} for name in names]


def _dumped(settings: Settings) -> dict[str, Any]:
    dumped: dict[str, Any] = settings.model_dump(mode="json")
    return dumped
