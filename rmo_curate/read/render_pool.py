"""Pairs to rendered rows, in this process or in one process a core; the rows are the same either way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rmo_curate.read.messages import RejectReason
from rmo_curate.read.pair_rendering import full, render_pairs
from rmo_curate.read.processes import in_processes
from rmo_curate.read.readers.record import encodable
from rmo_curate.read.sources import Pair, Reject
from rmo_train.data.rendering import CallsLeftOut, Rendered, Renderer
from rmo_train.store.files import canonical_json, sha256_text
from rmo_train.store.tables import TOO_LONG


@dataclass(frozen=True)
class Rows:
    """A batch of pairs, rendered."""

    table: pa.Table  # rows of RUN/pairs, in order, without the refused pairs
    refused: dict[int, Reject]  # place in the batch -> why the template does not render that pair
    flags: Counter[str]
    longest: int  # tokens of the longest pair; 0 without any


@dataclass(frozen=True)
class RowMaker:
    """What turns pairs into rows of RUN/pairs."""

    renderer: Renderer
    schema: pa.Schema
    max_length: int  # tokens of prompt + longer response; a pair over it gets the flag `too_long`

    def __call__(self, pairs: Sequence[Pair]) -> Rows:
        rows, refused = [], {}
        for place, (pair, rendered) in enumerate(zip(pairs, render_pairs(self.renderer, pairs), strict=True)):
            if isinstance(rendered, Rendered):
                rows.append(pair_row(pair, rendered, self.max_length))
            else:
                calls = isinstance(rendered, CallsLeftOut)
                reason = RejectReason.TOOL_CALLS_NOT_RENDERED if calls else RejectReason.BAD_MESSAGES
                refused[place] = Reject(pair.source, pair.line, reason, encodable(str(rendered)), raw_messages(pair))
        flags = Counter(flag for row in rows for flag in row["flags"])
        longest = max((pair_tokens(row) for row in rows), default=0)
        return Rows(pa.Table.from_pylist(rows, schema=self.schema), refused, flags, longest)


def pair_tokens(row: Mapping[str, Any]) -> int:
    """The length of a row of RUN/pairs: tokens of its prompt and its longer response."""
    return len(row["prompt_ids"]) + max(row["chosen_tokens"], row["rejected_tokens"])


def raw_messages(pair: Pair) -> str:
    """The messages of a pair as the data have them."""
    sides = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
    return encodable(canonical_json({name: [full(m) for m in side] for name, side in sides.items()}))


def tokens_sha(rendered: Rendered) -> str:
    """Hash of what a model sees of a pair."""
    return sha256_text(canonical_json([rendered.prompt_ids, rendered.chosen_ids, rendered.rejected_ids]))


def pair_row(pair: Pair, rendered: Rendered, max_length: int) -> dict[str, Any]:
    """One row of RUN/pairs; a pair over `max_length` tokens (prompt + longer response) gets the flag `too_long`."""
    longest = len(rendered.prompt_ids) + max(len(rendered.chosen_ids), len(rendered.rejected_ids))
    flags = [*rendered.flags, *([TOO_LONG] if longest > max_length else [])]
    return {
        **pair.extra,
        "id": pair.id,
        "prompt": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "tools": pair.tools,
        "chat_template_kwargs": pair.chat_template_kwargs,
        "prompt_ids": rendered.prompt_ids,
        "chosen_ids": rendered.chosen_ids,
        "rejected_ids": rendered.rejected_ids,
        "tokens_sha": tokens_sha(rendered),
        "chosen_tokens": len(rendered.chosen_ids),
        "rejected_tokens": len(rendered.rejected_ids),
        "flags": flags,
        "source_file": pair.source,
        "source_line": pair.line,
    }


def rendered(make: RowMaker, batches: Iterable[Sequence[Pair]], workers: int) -> Iterator[Rows]:
    """`make` of every batch, in order, in `workers` processes (1: in this one). `batches` is read a few ahead."""
    return in_processes(make, batches, workers, "renders pairs", "finished parts are kept: ")
