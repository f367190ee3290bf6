"""Pairs as text: what every check without a model reads. From raw data, or from a run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_curate.read.memory import InMemory
from rmo_curate.read.messages import Message
from rmo_curate.read.sources import Pair, Reject, Source, open_source
from rmo_curate.runs.run import Run
from rmo_train.console.progress import progress
from rmo_train.store.tables import PAIR_SCHEMA, REJECT_SCHEMA, SOURCE_COLUMNS, TOO_LONG, flagged

EXAMPLES_KEPT = 50  # rejects of one reason held in memory with their text


@dataclass
class Texts:
    """Pairs in the order of the data; all lists are [pairs]. `columns`: the source's others, flat values only."""

    ids: list[str] = field(default_factory=list)
    prompt_messages: list[list[Message]] = field(default_factory=list)
    chosen_messages: list[list[Message]] = field(default_factory=list)
    rejected_messages: list[list[Message]] = field(default_factory=list)
    prompt: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    files: list[str | None] = field(default_factory=list)  # the file of each pair; None where nobody recorded it
    lines: list[int | None] = field(default_factory=list)  # its line there, or its record's number
    columns: dict[str, list[Any]] = field(default_factory=dict)
    tokens: np.ndarray | None = None  # int [pairs, 3] of prompt, chosen, rejected; None: no model has tokenised them
    too_long: np.ndarray | None = None  # bool [pairs], from a run

    def __len__(self) -> int:
        return len(self.ids)

    def place(self, i: int) -> tuple[str | None, int | None]:
        """The file and the line of pair `i`; None where they are not known."""
        return self.files[i], self.lines[i]

    def add(self, pair_id: str, prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> None:
        self.ids.append(pair_id)
        self.prompt_messages.append(prompt)
        self.chosen_messages.append(chosen)
        self.rejected_messages.append(rejected)
        self.prompt.append(joined(prompt))
        self.chosen.append(joined(chosen))
        self.rejected.append(joined(rejected))


def flat_columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of the flat values in `rows`, one row a pair: None where a pair has none."""
    columns: dict[str, list[Any]] = {}
    n = 0
    for n, row in enumerate(rows, start=1):
        for name, value in row.items():
            if value is None or isinstance(value, str | int | bool):
                column = columns.setdefault(name, [])
                column += [None] * (n - 1 - len(column))
                column.append(value)
    for column in columns.values():
        column += [None] * (n - len(column))
    return columns


def joined(messages: list[Message]) -> str:
    """The contents of `messages` as one text."""
    return messages[0]["content"] or "" if len(messages) == 1 else "\n\n".join(m["content"] or "" for m in messages)


@dataclass(frozen=True)
class TextData:
    """Data that no model has scored: every pair, and the rejects as a run's table has them, the first with their text.

    What a reject holds is shown of a few alone.
    """

    source: Source
    texts: Texts
    rejects: pa.Table


def read_data(data: Sequence[str | InMemory], limit: int | None, columns: Mapping[str, str] | None) -> TextData:
    """All of the data, read once; `limit` and `columns` as for `open_source`."""
    texts, rejects, seen = Texts(), [], Counter[str]()
    extras: list[dict[str, Any]] = []
    with progress("read", None, "record") as bar:

        def keep(outcome: Pair | Reject) -> None:
            if isinstance(outcome, Pair):
                texts.add(outcome.id, outcome.prompt, outcome.chosen, outcome.rejected)
                texts.files.append(outcome.source)
                texts.lines.append(outcome.line)
                extras.append(outcome.extra)
            else:
                seen[outcome.reason.value] += 1
                rejects.append(reject_row(outcome, whole=seen[outcome.reason.value] <= EXAMPLES_KEPT))
            bar.advance()

        source = open_source(data, limit=limit, columns=columns, seen=keep)
    texts.columns = flat_columns(source.named(extra) for extra in extras)
    return TextData(source, texts, pa.Table.from_pylist(rejects, schema=REJECT_SCHEMA))


def reject_row(record: Reject, whole: bool) -> dict[str, Any]:
    row = {"source": record.source, "line": record.line, "reason": record.reason.value}
    return row | ({"detail": record.detail, "raw": record.raw} if whole else {})


def read_run(run: Run) -> Texts:
    """Every pair of `run`, with its token counts."""
    texts, tokens, too_long, others = Texts(), [], [], []
    for part in run.pair_parts():
        extras = [name for name in part.column_names if name not in PAIR_SCHEMA.names]
        prompt_tokens = pa.compute.list_value_length(part["prompt_ids"]).to_numpy()
        tokens.append(np.stack([prompt_tokens, part["chosen_tokens"], part["rejected_tokens"]], axis=1))
        too_long.append(flagged(part, TOO_LONG))
        known = set(part.column_names) >= SOURCE_COLUMNS
        texts.files += part["source_file"].to_pylist() if known else [None] * part.num_rows
        texts.lines += part["source_line"].to_pylist() if known else [None] * part.num_rows
        for row in part.select(["id", "prompt", "chosen", "rejected", *extras]).to_pylist():
            texts.add(row["id"], row["prompt"], row["chosen"], row["rejected"])
            others.append({name: row[name] for name in extras})
    texts.tokens = np.concatenate(tokens) if tokens else np.zeros((0, 3), np.int64)
    texts.too_long = np.concatenate(too_long) if too_long else np.zeros(0, bool)
    texts.columns = flat_columns(others)
    return texts
