"""Families of proxies: their names, their folds, and the folder RUN/proxies/<family> that says what was planned."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from rmo_curate.runs.manifests import ProbeManifest, TrainedManifest
from rmo_train.console.errors import UserError
from rmo_train.data.pairs import PairData
from rmo_train.store.files import canonical_json, read_json, sha256_text, write_json
from rmo_train.store.id_hash import draw_bits
from rmo_train.store.manifests import PartFile, read_one_of
from rmo_train.store.tables import SPLIT_SCHEMA, write_table

PLAN = "family.json"


class FamilyPlan(BaseModel):
    """PLAN of a family's folder, written before anything is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: dict[str, Any]  # exactly the settings that make the family what it is
    order: int  # among the run's families

    def checkpoints(self, name: str) -> list[str]:
        """The checkpoints that a family of this `name` is scored as."""
        return [name] if self.key["kind"] == "probe" else [f"{name}-{step}" for step in self.key["steps"]]


@dataclass(frozen=True)
class Family:
    """Proxies, or probes, made alike on the folds of one split: what is decided before anything is learned."""

    name: str
    order: int  # among the run's families
    key: dict[str, Any]
    folds_of: np.ndarray  # int16 [pairs]

    @property
    def folds(self) -> int:
        return int(self.key["folds"])

    @property
    def cross_fitted(self) -> bool:
        return self.folds > 1


def assign_folds(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of each pair, int16 [n]: whole prompt groups, in hashed order, each to the fold with the fewest pairs."""
    sizes: dict[str, int] = {}
    for group in groups:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) < folds:
        raise UserError(
            f"{folds} folds need at least {folds} distinct prompts, the data has {len(sizes)}; use fewer --folds"
        )
    load = [0] * folds
    fold_of: dict[str, int] = {}
    names = list(sizes)
    drawn = draw_bits("fold", seed, pa.array(names, pa.string()))
    for _, group in sorted(zip(drawn.tolist(), names, strict=True)):
        fold_of[group] = load.index(min(load))
        load[fold_of[group]] += sizes[group]
    return np.array([fold_of[g] for g in groups], dtype=np.int16)


def reference_key(data: PairData) -> dict[str, Any]:
    """The reference in a family's key: the same model wherever it lies, by whatever attention it was computed."""
    return data.reference.model_dump(exclude={"name", "attention", "device", "allowed"})


def family_of(run: Path, key: Mapping[str, Any]) -> tuple[str, int]:
    """Name and number of the proxy family with this key: the existing one, or the next to be made.

    A family of which nothing was trained yet (another command was stopped before) does not count.
    """
    kind = ("oof" if key["folds"] >= 2 else "insample") + ("-probe" if key["kind"] == "probe" else "")
    known = planned_families(run)
    for folder, family in known.items():
        if family.key == key:
            return folder.name, family.order
    begun = {folder.name: family.order for folder, family in known.items() if _is_begun(folder)}
    name = f"{kind}-{sha256_text(canonical_json(key))[:8]}" if kind in begun else kind
    return name, max(begun.values(), default=-1) + 1


def planned_families(run: Path) -> dict[Path, FamilyPlan]:
    """Folder of every family that was begun or finished -> its plan."""
    return {f.parent: FamilyPlan.model_validate(read_json(f)) for f in sorted((run / "proxies").glob(f"*/{PLAN}"))}


def is_family(folder: Path) -> bool:
    """Whether the proxies, or the probe, of this folder are finished."""
    return read_one_of(folder, ProbeManifest, TrainedManifest) is not None


def _is_begun(family: Path) -> bool:
    return is_family(family) or any(family.glob("fold-*"))


def begin_family(run: Path, data: PairData, family: Family) -> None:
    """Write a family's key and its split, before anything is trained; what another stopped command began is gone."""
    folder = run / "proxies" / family.name
    for other in (run / "proxies").glob("*"):
        if other != folder and other.is_dir() and not _is_begun(other):
            shutil.rmtree(other)
    if not is_family(folder):
        write_split(folder, data, family)
        write_json(folder / PLAN, FamilyPlan(key=family.key, order=family.order).model_dump(mode="json"))


def write_split(folder: Path, data: PairData, family: Family) -> PartFile:
    split = pa.table(
        {"id": [str(i) for i in data.ids], "group": [str(g) for g in data.groups], "fold": family.folds_of},
        schema=SPLIT_SCHEMA,
    )
    return write_table(folder / "split.parquet", split, SPLIT_SCHEMA, folder)
