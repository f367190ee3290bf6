"""Columns of the user's data that are evidence: which model wrote an answer, and what kind of prompt a pair is of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from rmo_curate.runs.columns import category_column, category_setting
from rmo_curate.runs.manifests import ProbeManifest
from rmo_curate.runs.run import Run, two_columns
from rmo_train.console.errors import UserError
from rmo_train.console.settings import Settings
from rmo_train.store.manifests import read_manifest

# Names to look for if none is given, in this order.
GENERATOR_NAMES = ("model", "generator", "model_name", "policy", "source_model")


class EvidenceColumns(Settings):
    """Columns used as evidence: settings of every command that weighs evidence."""

    generator_column: str | None = Field(
        None,
        description="NAME in chosen_NAME and rejected_NAME, the columns that say which model wrote each answer "
        "(default: model, generator or similar, if present)",
    )
    category_column: str | None = category_setting("the one that the run's probe used; otherwise ")


@dataclass(frozen=True)
class Columns:
    """Values of the columns for n pairs, "" if empty; None: there is no such column."""

    generators: tuple[np.ndarray, np.ndarray] | None = None  # names of the models of chosen and rejected, str [n] each
    category: np.ndarray | None = None  # str [n]


def columns_of(run: Run, names: EvidenceColumns) -> Columns:
    """The columns of a run's pairs."""
    if names.category_column is None:
        names = names.model_copy(update={"category_column": _known_to_the_probe(run)})
    return _found(run.text_columns(), names, str(run.folder), run.texts)


def _known_to_the_probe(run: Run) -> str | None:
    """The category column that `score` was given, or found, for the run's probe."""
    if run.probe is None:
        return None
    manifest = read_manifest(run.folder / "proxies" / str(run.probe.family), ProbeManifest)
    return None if manifest is None else manifest.key.get("category_column")


def columns_among(columns: Mapping[str, Sequence[Any]], names: EvidenceColumns, where: str) -> Columns:
    """The same from columns in memory, name -> values [pairs]; where: the name of the data in an error."""
    texts = [n for n, values in columns.items() if all(v is None or isinstance(v, str) for v in values)]
    return _found(texts, names, where, lambda name: np.array([v or "" for v in columns[name]]))


def _found(texts: Sequence[str], names: EvidenceColumns, where: str, read: Callable[[str], np.ndarray]) -> Columns:
    both = generator_columns(texts, names.generator_column, where)
    category = category_column(texts, names.category_column, where)
    return Columns(
        None if both is None else (read(both[0]), read(both[1])), None if category is None else read(category)
    )


def generator_columns(texts: Collection[str], name: str | None, where: str) -> tuple[str, str] | None:
    """The two text columns with the models that wrote the answers; a UserError if `name` is given but missing."""
    both = two_columns(texts, (name,) if name else GENERATOR_NAMES)
    if both is None and name is not None:
        raise UserError(
            f"--generator-column {name}: {where} has no text columns chosen_{name} and rejected_{name}, or "
            f"{name}_chosen and {name}_rejected; its text columns are {', '.join(sorted(texts)) or 'none'}"
        )
    return both
