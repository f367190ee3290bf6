"""Reads a finished run folder: pairs, checkpoints, and their log-probs joined by id.

`rmo-curate score` writes the folder; later commands (filter, audit, eval) open it with `open_run`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rmo_curate.runs.columns import text_names
from rmo_curate.runs.manifests import RejectsManifest
from rmo_train.console.errors import UserError, nearest
from rmo_train.console.wording import counted
from rmo_train.store import manifests, tables
from rmo_train.store.id_hash import Strings, places
from rmo_train.store.manifests import Checkpoint, PairsManifest, RunManifest, ScoresManifest

if TYPE_CHECKING:
    import polars as pl

    from rmo_curate.evidence.posterior import Posterior

MADE_BY = "rmo-curate score DATA --model REF --out RUN"
LONGEST_NAME = 100  # characters
SCORED_COLUMNS = ("id", "flags", "chosen_tokens", "rejected_tokens")  # columns of a pair that scores are joined to


@dataclass(frozen=True)
class Trajectory:
    """The sequence of checkpoints along which margins are compared; `end` is T, or None if only the base was scored."""

    checkpoints: tuple[Checkpoint, ...]
    end: Checkpoint | None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.checkpoints)


@dataclass(frozen=True)
class Scores:
    """Log-probs (nats, summed over response tokens) of every pair under every checkpoint, in the order of the pairs."""

    names: tuple[str, ...]
    chosen_logp: np.ndarray  # [pairs, checkpoints], NaN if a pair is not scorable
    rejected_logp: np.ndarray  # [pairs, checkpoints]
    chosen_tokens: np.ndarray  # [pairs]
    rejected_tokens: np.ndarray  # [pairs]
    held_out: np.ndarray  # [pairs] of True, False or None: was this pair unseen by the last checkpoint?
    fold: np.ndarray | None = (
        None  # int16 [pairs]: the fold whose proxy scored the pair at the last checkpoint; None or all -1: one model
    )
    ids: Strings | None = None  # [pairs]
    groups: np.ndarray | None = None  # [pairs]: the same for pairs of one prompt
    posterior: Posterior | None = None  # of their labels, see `rmo_curate.evidence`; sets `groups` as well
    external: np.ndarray | None = None  # [pairs] the user's own margin (--score-column), higher = chosen is better
    of_probe: bool = False  # T is a probe: its reward margin is a log-odds, not a sum over tokens


def adding_a_proxy(run: Path) -> str:
    """The command that adds a T to a run with the base only."""
    return f"run `rmo-curate proxy {run}` first (a probe, at the cost of one forward pass; --kind lora trains proxies)"


@dataclass(frozen=True)
class Run:
    """A finished run folder."""

    folder: Path
    manifest: RunManifest

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        return self.manifest.checkpoints

    @property
    def pairs_manifest(self) -> PairsManifest:
        return manifests.require_manifest(self.folder / "pairs", PairsManifest, MADE_BY)

    def scores_manifest(self, checkpoint: str) -> ScoresManifest:
        return manifests.require_manifest(self.folder / "scores" / checkpoint, ScoresManifest, MADE_BY)

    def pairs(self, columns: Sequence[str] | None = None) -> pa.Table:
        return tables.read_table(self.folder / "pairs", self.pairs_manifest, tables.PAIR_SCHEMA, columns)

    def pair_parts(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The pairs part by part, verified, in the order of `pairs()`."""
        return tables.iter_parts(self.folder / "pairs", self.pairs_manifest, columns)

    def rejects(self) -> pa.Table:
        folder = self.folder / "rejects"
        return tables.read_table(
            folder, manifests.require_manifest(folder, RejectsManifest, MADE_BY), tables.REJECT_SCHEMA
        )

    def trajectory(self, end_name: str | None = None) -> Trajectory:
        """The base, the user's checkpoints as given, then the steps of one proxy family.

        Its end T is `end_name` if given; otherwise the last step of the first family (cross-fitted before in-sample),
        otherwise the last user checkpoint, otherwise None.
        """
        base, users = self.checkpoints[:1], [c for c in self.checkpoints if c.kind == "user"]
        end = self._named(end_name) if end_name else self._default_end()
        if end is None:
            return Trajectory(base, None)
        if end.kind == "user":
            return Trajectory((*base, *users[: users.index(end) + 1]), end)
        family = [c for c in self.checkpoints if c.family == end.family]
        return Trajectory((*base, *users, *family[: family.index(end) + 1]), end)

    def _default_end(self) -> Checkpoint | None:
        proxies = [c for c in self.checkpoints if c.kind == "proxy"]
        candidates = [c for c in proxies if c.cross_fitted] or proxies
        if candidates:
            return [c for c in candidates if c.family == candidates[0].family][-1]
        users = [c for c in self.checkpoints if c.kind == "user"]
        return users[-1] if users else None

    @property
    def probe(self) -> Checkpoint | None:
        """The probe that is evidence: the newest held-out one, since all of them read the same states."""
        return next((c for c in reversed(self.checkpoints) if c.is_probe and c.held_out), None)

    def _named(self, name: str) -> Checkpoint:
        known = {c.name: c for c in self.checkpoints if c.kind != "base"}
        if name in known:
            return known[name]
        have = f"the run has {', '.join(known)}" if known else "the run has scores of the base only"
        raise UserError(
            f"--end {name}: {self.folder} has no checkpoint of that name that can end a trajectory; {have}"
            f"{nearest(name, known)}"
        )

    def scores(self, trajectory: Trajectory, pairs: pa.Table | None = None) -> Scores:
        """The log-probs of the trajectory's checkpoints, joined to the pairs by id. Pass `pairs` if already read."""
        pairs = self.pairs(SCORED_COLUMNS) if pairs is None else pairs
        scorable = ~tables.flagged(pairs, tables.TOO_LONG)
        shape = (pairs.num_rows, len(trajectory.checkpoints))
        chosen, rejected = np.full(shape, np.nan), np.full(shape, np.nan)
        held_out = np.full(pairs.num_rows, None, dtype=object)
        fold = np.full(pairs.num_rows, -1, dtype=np.int16)
        joined: pa.ChunkedArray | None = None  # the ids that `at` belongs to: most checkpoints have the same order
        at = np.empty(0, dtype=np.int32)
        for column, checkpoint in enumerate(trajectory.checkpoints):
            folder = self.folder / "scores" / checkpoint.name
            table = tables.read_table(folder, self.scores_manifest(checkpoint.name), tables.SCORE_SCHEMA)
            if joined is None or not table["id"].equals(joined):
                joined = table["id"]
                at = places(pairs["id"], joined)
                self._check_join(folder, pairs, scorable, at, table.num_rows)
                at = at[scorable]
            for values, name in ((chosen, "chosen_logp"), (rejected, "rejected_logp")):
                values[scorable, column] = table[name].to_numpy()[at]
            if not np.isfinite(chosen[scorable, column] + rejected[scorable, column]).all():
                bad = ~np.isfinite(chosen[:, column] + rejected[:, column]) & scorable
                raise UserError(
                    f"{folder}: a log-prob is missing or not finite in {counted(int(bad.sum()), 'pair')}, the first "
                    f"{pairs['id'][int(bad.argmax())].as_py()!r}; score this checkpoint again "
                    "(with --dtype float32 if it overflowed)"
                )
            if column == shape[1] - 1:
                known = pc.fill_null(table["held_out"].cast(pa.int8()), 2).to_numpy()
                held_out[scorable] = np.array([False, True, None], dtype=object)[known[at]]
                fold[scorable] = table["fold"].to_numpy()[at]
        tokens = [pairs[name].to_numpy() for name in ("chosen_tokens", "rejected_tokens")]
        return Scores(
            trajectory.names,
            chosen,
            rejected,
            tokens[0],
            tokens[1],
            held_out,
            fold,
            pairs["id"],
            of_probe=trajectory.checkpoints[-1].is_probe,
        )

    def own_columns(self) -> dict[str, pa.DataType]:
        """Names of the data's additional columns."""
        parts = self.pairs_manifest.parts
        schema = tables.pq.read_schema(self.folder / "pairs" / parts[0].file) if parts else pa.schema([])
        return {f.name: f.type for f in schema if f.name not in tables.PAIR_SCHEMA.names}

    def text_columns(self) -> list[str]:
        """Names of the data's additional columns of texts."""
        return text_names(self.own_columns())

    def texts(self, name: str) -> np.ndarray:
        """The names in one of the data's additional columns of texts: str [pairs], "" for null.

        Cut at `LONGEST_NAME` characters, since an array of texts takes the space of its longest for each.
        """
        return np.array(self.column(name).fill_null("").str.slice(0, LONGEST_NAME).to_list(), dtype=str)

    def column(self, name: str) -> pl.Series:
        """One of the data's additional columns: [pairs]."""
        import polars as pl

        parts = list(tables.intact_parts(self.folder / "pairs", self.pairs_manifest))
        return pl.scan_parquet(parts, glob=False).select(name).collect().to_series()

    def external_margin(self, name: str) -> np.ndarray:
        """The user's own margin, from additional columns of the data: [pairs], higher = the chosen response is better.

        NAME is a column of margins, or the common part of two columns of scores: chosen_NAME and rejected_NAME, or
        NAME_chosen and NAME_rejected.
        """
        numbers = {
            n: kind for n, kind in self.own_columns().items() if pa.types.is_integer(kind) or pa.types.is_floating(kind)
        }

        def values(column: str) -> np.ndarray:
            return self.column(column).cast(float).to_numpy()

        if both := two_columns(numbers, (name,)):
            return values(both[0]) - values(both[1])
        if name in numbers:
            return values(name)
        have = f"its numeric columns are {', '.join(numbers)}" if numbers else "it has no numeric column"
        raise UserError(
            f"--score-column {name}: {self.folder} has no numeric column of that name, nor chosen_{name} and "
            f"rejected_{name}; {have}{nearest(name, numbers)}"
        )

    def _check_join(self, folder: Path, pairs: pa.Table, scorable: np.ndarray, at: np.ndarray, rows: int) -> None:
        missing = scorable & (at < 0)
        if missing.any():
            first = pairs["id"][int(missing.argmax())].as_py()
            raise UserError(
                f"{folder}: no scores for {missing.sum()} of the run's {scorable.sum()} scorable pairs, the first "
                f"{first!r}; finish them with `{MADE_BY}`"
            )
        if rows != scorable.sum():
            raise UserError(
                f"{folder}: {rows} rows for {scorable.sum()} scorable pairs, so it was made from other pairs; score "
                "this checkpoint again (--overwrite)"
            )


def two_columns(have: Collection[str], names: Sequence[str]) -> tuple[str, str] | None:
    """The columns for the chosen and the rejected answer, for the first of `names` that has both among `have`."""
    for name in names:
        for both in ((f"chosen_{name}", f"rejected_{name}"), (f"{name}_chosen", f"{name}_rejected")):
            if all(column in have for column in both):
                return both
    return None


def open_run(folder: Path) -> Run:
    """Open a finished run folder; a UserError that names `rmo-curate score` if it is not one."""
    run = Run(folder, manifests.require_manifest(folder, RunManifest, MADE_BY))
    if not run.checkpoints or run.checkpoints[0].kind != "base":
        raise UserError(
            f"{folder}: the scores of the reference model are not complete; run `{MADE_BY}` until it finishes"
        )
    return run
