"""Pairs as text: what every check without a model reads. From raw data, or from a run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from rmo_curate.read.memory import InMemory
from rmo_curate.read.messages import Message
from rmo_curate.read.sources import Pair, Reject, Source, open_source
from rmo_curate.runs.run import Run
from rmo_train.console.progress import progress
from rmo_train.store.tables import PAIR_SCHEMA, REJECT_SCHEMA, SOURCE_COLUMNS, TOO_LONG, flagged

T = TypeVar("T")
LONG = 2**16  # characters of a message that is worth packing
EXAMPLES_KEPT = 50  # rejects of one reason held in memory with their text


class Column(Sequence[T]):
    """Values in the order of the data; those that are held packed are unpacked when they are asked for."""

    def __init__(self) -> None:
        self.values: list[T | Callable[[], T]] = []

    def put(self, value: T | Callable[[], T]) -> None:
        self.values.append(value)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        value = self.values[i]
        return value() if callable(value) else value

    def __iter__(self) -> Iterator[T]:
        for value in self.values:
            yield value() if callable(value) else value


@dataclass(frozen=True)
class Packed:
    """Messages as UTF-8: Python holds a text of which one character is an emoji with four bytes for each."""

    roles: tuple[str, ...]
    contents: tuple[bytes, ...]

    @classmethod
    def of(cls, messages: list[Message]) -> Packed:
        contents = tuple((m["content"] or "").encode("utf-8", "surrogatepass") for m in messages)
        return cls(tuple(m["role"] for m in messages), contents)

    def __call__(self) -> list[Message]:
        pairs = zip(self.roles, self.contents, strict=True)
        return [{"role": role, "content": c.decode("utf-8", "surrogatepass")} for role, c in pairs]

    def joined(self) -> str:
        return joined(self())


def is_wide(messages: list[Message]) -> bool:
    """Whether packing messages saves more memory than it takes time."""
    return any(len(m["content"] or "") >= LONG and not m["content"].isascii() for m in messages)


@dataclass
class Texts:
    """Pairs in the order of the data; all lists are [pairs]. `columns`: the source's others, flat values only."""

    ids: list[str] = field(default_factory=list)
    prompt_messages: Column[list[Message]] = field(default_factory=lambda: Column())
    chosen_messages: Column[list[Message]] = field(default_factory=lambda: Column())
    rejected_messages: Column[list[Message]] = field(default_factory=lambda: Column())
    prompt: Column[str] = field(default_factory=lambda: Column())
    chosen: Column[str] = field(default_factory=lambda: Column())
    rejected: Column[str] = field(default_factory=lambda: Column())
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
        for name, messages in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
            of_messages, of_texts = getattr(self, f"{name}_messages"), getattr(self, name)
            if is_wide(messages):
                of_messages.put(packed := Packed.of(messages))
                of_texts.put(packed.joined)
            else:
                of_messages.put(messages)
                of_texts.put(joined(messages))


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
