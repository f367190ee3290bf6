"""Slices of the data: pairs with the same value in one of the source's own columns (`source=math`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_curate.runs import Run
from rmo_train import tables
from rmo_train.errors import UserError, nearest

MOST_VALUES = 20  # distinct ones of a column that is reported by itself
MOST_COLUMNS = 3
SHOWN = 5  # slices of a column, those that lose most


def own_columns(run: Run) -> dict[str, pa.DataType]:
    """The source's other columns in the run's pairs."""
    stage = run.stage("pairs")
    schema = (
        tables.pq.read_schema(run.folder / "pairs" / stage["parts"][0]["file"]) if stage["parts"] else pa.schema([])
    )
    return {f.name: f.type for f in schema if f.name not in tables.PAIR_SCHEMA.names}


def column(run: Run, name: str) -> pa.Array:
    """One of the source's columns, whole: [pairs], dictionary-encoded where it is text."""
    parts = tables.iter_parts(run.folder / "pairs", run.stage("pairs"), [name])
    found = pa.chunked_array([chunk for part in parts for chunk in part[name].chunks])
    if pa.types.is_string(found.type):
        found = found.dictionary_encode().unify_dictionaries()
    return found.combine_chunks()


def protected(run: Run, asked: Sequence[str]) -> np.ndarray:
    """Which pairs are of a slice of --protect COLUMN=VALUE: bool [pairs]."""
    have = own_columns(run)
    found: np.ndarray | None = None
    for text in asked:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--protect {text}: expected COLUMN=VALUE, as source=math")
        if name not in have:
            columns = f"its own columns are {', '.join(have)}" if have else "the data have no columns of their own"
            raise UserError(f"--protect {text}: no column {name!r} in the data; {columns}{nearest(name, have)}")
        values = np.array([None if v is None else str(v) for v in column(run, name).to_pylist()], dtype=object)
        here = values == value
        if not here.any():
            known = sorted({str(v) for v in values})
            shown = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise UserError(
                f"--protect {text}: no pair has it; the values of {name!r} are {shown}{nearest(value, known)}"
            )
        found = here if found is None else found | here
    assert found is not None
    return found


def removal_lines(run: Run, removed: np.ndarray) -> list[str]:
    """A line for each column of few values: the share that is removed of its slices, those that lose most first."""
    lines: list[str] = []
    for name, kind in own_columns(run).items():
        if not pa.types.is_string(kind) or len(lines) == MOST_COLUMNS:
            continue
        values = column(run, name)
        names = values.dictionary.to_pylist()
        if not 2 <= len(names) <= MOST_VALUES:
            continue
        known = np.asarray(values.is_valid())
        code = values.indices.fill_null(0).to_numpy(False)[known]
        size, gone = np.bincount(code, minlength=len(names)), np.bincount(code, removed[known], len(names))
        share = gone / np.maximum(size, 1)
        worst = np.argsort(-share, kind="stable")[:SHOWN]
        parts = [f"{names[i]} {share[i]:.0%} of {size[i]:,}" for i in worst if size[i]]
        more = f", {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"removed by {name}: {', '.join(parts)}{more}")
    return lines


GENERATOR_NAMES = ("model", "generator", "model_name", "policy", "source_model")  # looked for where none is given
Generators = tuple[np.ndarray, np.ndarray]  # names of the models that wrote the chosen and the rejected answers [pairs]


def generators_of(run: Run, name: str | None = None) -> Generators | None:
    """Who wrote the answers of a run's pairs, by two columns of its data; None where none is named and none found.

    name: what two columns share, chosen_NAME and rejected_NAME, or NAME_chosen and NAME_rejected.
    """
    have = own_columns(run)
    texts = {n for n, kind in have.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)}
    both = generator_columns(texts, name, str(run.folder))
    if both is None:
        return None
    chosen, rejected = (np.array(column(run, n).cast(pa.string()).fill_null("").to_pylist()) for n in both)
    return chosen, rejected


def generators_among(columns: Mapping[str, Sequence[Any]], name: str | None, where: str) -> Generators | None:
    """`generators_of` columns in memory, name -> values [pairs]; where: what the data are called in an error."""
    texts = {n for n, values in columns.items() if all(v is None or isinstance(v, str) for v in values)}
    both = generator_columns(texts, name, where)
    if both is None:
        return None
    chosen, rejected = (np.array([v or "" for v in columns[n]]) for n in both)
    return chosen, rejected


def generator_columns(texts: Iterable[str], name: str | None, where: str) -> tuple[str, str] | None:
    """The two columns of text that say who wrote the answers; a UserError where `name` is given and not there."""
    both = two_columns(texts, (name,) if name else GENERATOR_NAMES)
    if both is None and name is not None:
        raise UserError(
            f"--generator-column {name}: {where} has no columns of text chosen_{name} and rejected_{name}, or "
            f"{name}_chosen and {name}_rejected; its columns of text are {', '.join(sorted(texts)) or 'none'}"
        )
    return both


def two_columns(have: Iterable[str], names: Sequence[str]) -> tuple[str, str] | None:
    """The columns of the chosen and the rejected answer, of the first of `names` that there are two of."""
    for name in names:
        for both in ((f"chosen_{name}", f"rejected_{name}"), (f"{name}_chosen", f"{name}_rejected")):
            if set(both) <= set(have):
                return both
    return None
