"""The first stage of a run: input records to RUN/pairs (rendered, tokenised) and RUN/rejects, part by part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from rmo_curate.forms import RejectReason
from rmo_curate.sources import Pair, Reject, Source
from rmo_train.progress import progress, say
from rmo_train.rendering import Conversation, Rendered, Renderer
from rmo_train.tables import PAIR_SCHEMA, REJECT_SCHEMA, PartWriter, canonical_json, sha256_text, with_columns

RENDER_BATCH = 256
TOO_LONG = "too_long"


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
        "prompt_ids": rendered.prompt_ids,
        "chosen_ids": rendered.chosen_ids,
        "rejected_ids": rendered.rejected_ids,
        "tokens_sha": tokens_sha(rendered),
        "chosen_tokens": len(rendered.chosen_ids),
        "rejected_tokens": len(rendered.rejected_ids),
        "flags": flags,
    }


def write_pairs(
    source: Source,
    renderer: Renderer,
    run: Path,
    key: dict[str, Any],
    *,
    part_size: int,
    max_length: int,
) -> dict[str, Any]:
    """Read, render and write every record; returns the pairs manifest. What is finished already is not written again.

    pairs + rejects == records, checked here.
    """
    schema = with_columns(PAIR_SCHEMA, source.extra_fields())
    pairs = PartWriter(run / "pairs", "pairs", key, schema)
    rejects = PartWriter(run / "rejects", "rejects", key, REJECT_SCHEMA)
    if pairs.complete and rejects.complete:
        assert pairs.manifest is not None
        return pairs.manifest
    for writer in (pairs, rejects):
        for name in writer.repaired:
            say(f"{writer.folder}: {name} was damaged and is made again")
    counts: Counter[str] = Counter()
    rows, refused = _Rows(pairs, part_size), _Rows(rejects, part_size)
    waiting: list[Pair] = []

    def flush() -> None:
        conversations = [Conversation(p.prompt, p.chosen, p.rejected, p.tools) for p in waiting]
        for pair, rendered in zip(waiting, renderer.render_many(conversations), strict=True):
            if isinstance(rendered, Rendered):
                row = pair_row(pair, rendered, max_length)
                counts.update(row["flags"])
                counts["pairs"] += 1
                rows.add(row)
            else:
                raw = canonical_json({"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected})
                reject(Reject(pair.source, pair.line, RejectReason.BAD_MESSAGES, str(rendered), raw))
        waiting.clear()

    def reject(record: Reject) -> None:
        counts["rejects"] += 1
        counts[f"rejects/{record.reason.value}"] += 1
        refused.add(
            {
                "source": record.source,
                "line": record.line,
                "reason": record.reason.value,
                "detail": record.detail,
                "raw": record.raw,
            }
        )

    with progress("read and render", sum(source.counts.values()), "records") as bar:
        for record in source.records():
            counts["records"] += 1
            bar.advance()
            if isinstance(record, Reject):
                reject(record)
                continue
            waiting.append(record)
            if len(waiting) == RENDER_BATCH:
                flush()
        flush()
    rows.close()
    refused.close()
    assert counts["pairs"] + counts["rejects"] == counts["records"], counts
    numbers = {name: counts[name] for name in ("records", "pairs", "rejects", TOO_LONG)} | {
        name: counts[name] for name in sorted(counts) if name.startswith("rejects/")
    }
    flags = {n: c for n, c in counts.items() if n in ("boundary_mismatch", "template_rewrites_history")}
    rejects.finish({"rejects": counts["rejects"]})
    return pairs.finish(numbers | flags, form=source.form.name, inputs=source.inputs)


class _Rows:
    """Collects rows and writes a part whenever `size` are there; a part that is finished already is only counted."""

    def __init__(self, writer: PartWriter, size: int):
        self.writer, self.size = writer, size
        self.rows: list[dict[str, Any]] = []
        self.part = 0

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) == self.size:
            self._write()

    def close(self) -> None:
        if self.rows or self.part == 0:
            self._write()

    def _write(self) -> None:
        name = f"part-{self.part:05d}.parquet"
        if name not in self.writer.finished:
            self.writer.write(name, pa.Table.from_pylist(self.rows, schema=self.writer.schema))
        self.rows, self.part = [], self.part + 1
