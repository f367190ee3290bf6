"""The first stage of a run: input records to RUN/pairs (rendered, tokenised) and RUN/rejects, part by part."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rmo_curate.read.pair_rendering import batches
from rmo_curate.read.processes import workers_for
from rmo_curate.read.render_pool import RowMaker, Rows, rendered
from rmo_curate.read.sources import Pair, Reject, Source
from rmo_curate.runs.manifests import RejectsManifest
from rmo_train.console.errors import UserError
from rmo_train.console.progress import progress, say
from rmo_train.console.wording import counted
from rmo_train.data.rendering import RENDERING_FLAGS, Renderer
from rmo_train.store.manifests import PairsManifest
from rmo_train.store.tables import PAIR_SCHEMA, REJECT_SCHEMA, TOO_LONG, PartWriter, with_columns


def write_pairs(
    source: Source,
    renderer: Renderer,
    run: Path,
    key: dict[str, Any],
    *,
    part_size: int,
    max_length: int,
    context: int | None = None,
    workers: int | None = None,
) -> PairsManifest:
    """Read, render and write every record; returns the pairs manifest.

    Pairs of finished parts are read, and neither rendered nor written again. Memory holds a few batches and a part,
    whatever the number of records. `context`: tokens that the model was made for, kept in the manifest. `workers`:
    processes that render (default: all allowed cores where it pays); the parts are the same bytes with any number.
    pairs + rejects == records, checked here.
    """
    schema = with_columns(PAIR_SCHEMA, source.extra_fields())
    pairs = PartWriter(run / "pairs", PairsManifest, key, schema)
    rejects = PartWriter(run / "rejects", RejectsManifest, key, REJECT_SCHEMA)
    if pairs.complete and rejects.complete:
        assert pairs.manifest is not None
        return pairs.manifest
    for writer in (pairs, rejects):
        for name in writer.repaired:
            say(f"{writer.folder}: {name} was damaged and will be rewritten")
    if pairs.finished:
        say(f"pairs: resuming after {counted(len(pairs.finished), 'finished part')}")
    counts: Counter[str] = Counter()
    longest = longest_of(pairs)
    kept, refused = _Parts(pairs, part_size), _Parts(rejects, part_size)
    total = sum(source.counts.values())
    sent: deque[_Batch] = deque()

    def to_render() -> Iterator[list[Pair]]:
        for batch in _batches(source, _finished_pairs(pairs)):
            sent.append(batch)
            yield batch.pairs

    make = RowMaker(renderer, schema, max_length)
    with progress("read and render", total, "record") as bar:
        for rows in rendered(make, to_render(), workers or workers_for(total)):
            batch = sent.popleft()
            refusals = batch.rejects(rows)
            counts.update(batch.flags + rows.flags)
            longest = max(longest, rows.longest)
            counts.update(f"rejects/{reject.reason.value}" for reject in refusals)
            counts.update(records=len(batch.records), rejects=len(refusals), pairs=len(batch.records) - len(refusals))
            batch.write(rows, kept)
            refused.add(pa.Table.from_pylist([_reject_row(r) for r in refusals], schema=REJECT_SCHEMA))
            bar.advance(len(batch.records))
    kept.close()
    refused.close()
    if counts["records"] != total:
        raise UserError(
            f"{source.files[0].name}: the data changed while being read ({total:,} records, then "
            f"{counts['records']:,}); "
            "run again once nothing writes to it"
        )
    numbers = {name: counts[name] for name in ("records", "pairs", "rejects", TOO_LONG)}
    if source.input_records != counts["records"]:  # ranked answers: a record stands for several pairs
        numbers["input_records"] = source.input_records
    assert counts["pairs"] + counts["rejects"] == counts["records"], counts
    assert (kept.rows, refused.rows) == (counts["pairs"], counts["rejects"]), (kept.rows, refused.rows, counts)
    numbers |= {name: counts[name] for name in sorted(counts) if name.startswith("rejects/")}
    numbers |= {name: counts[name] for name in RENDERING_FLAGS if counts[name]}
    rejects.finish({"rejects": counts["rejects"]})
    return pairs.finish(numbers, form=source.form.name, inputs=source.inputs, longest=longest, context=context)


def _reject_row(record: Reject) -> dict[str, Any]:
    return {
        "source": record.source,
        "line": record.line,
        "reason": record.reason.value,
        "detail": record.detail,
        "raw": record.raw,
    }


@dataclass
class _Batch:
    """Consecutive records; which of the pairs are in a finished part."""

    records: list[Pair | Reject]
    finished: list[bool] = field(default_factory=list)  # aligned with `records`
    flags: Counter[str] = field(default_factory=Counter)  # of the finished pairs

    @property
    def pairs(self) -> list[Pair]:
        """Those to render."""
        return [r for r, done in zip(self.records, self.finished, strict=True) if isinstance(r, Pair) and not done]

    def _refused(self, rows: Rows) -> list[Reject | None]:
        """For each record, why it is no pair; None for a pair."""
        place = -1
        outcomes: list[Reject | None] = []
        for record, done in zip(self.records, self.finished, strict=True):
            if isinstance(record, Reject):
                outcomes.append(record)
                continue
            place += not done
            outcomes.append(None if done else rows.refused.get(place))
        return outcomes

    def rejects(self, rows: Rows) -> list[Reject]:
        """What is rejected, in the order of the records."""
        return [reject for reject in self._refused(rows) if reject is not None]

    def write(self, rows: Rows, parts: _Parts) -> None:
        """Hand the rows over in the order of the records; the finished ones as a number only."""
        start = 0
        kept = [d for d, reject in zip(self.finished, self._refused(rows), strict=True) if reject is None]
        for done, members in groupby(kept):
            n = len(list(members))
            if done:
                parts.skip(n)
            else:
                parts.add(rows.table.slice(start, n))
                start += n


def _batches(source: Source, finished: Iterator[tuple[str, list[str]]]) -> Iterator[_Batch]:
    """All records, as many at a time as are rendered together. Finished pairs come in the records' order, maybe with
    gaps (damaged parts)."""
    following = next(finished, None)
    for records in batches(source.records()):
        batch = _Batch(records)
        for record in records:
            done = following is not None and isinstance(record, Pair) and record.id == following[0]
            if following is not None and done:
                batch.flags.update(following[1])
                following = next(finished, None)
            batch.finished.append(done)
        yield batch


def _finished_pairs(writer: PartWriter) -> Iterator[tuple[str, list[str]]]:
    """(id, flags) of every pair in a finished part."""
    for name in sorted(writer.finished):
        table = pq.ParquetFile(writer.folder / name).read(columns=["id", "flags"])
        yield from zip(table["id"].to_pylist(), table["flags"].to_pylist(), strict=True)


def longest_of(writer: PartWriter) -> int:
    """Tokens of the longest pair in the finished parts; 0 without any."""
    longest = 0
    for name in writer.finished:
        part = pq.ParquetFile(writer.folder / name).read(columns=["prompt_ids", "chosen_tokens", "rejected_tokens"])
        responses = pc.max_element_wise(part["chosen_tokens"], part["rejected_tokens"])
        tokens = pc.max(pc.add(pc.list_value_length(part["prompt_ids"]), responses)).as_py()
        longest = max(longest, tokens or 0)
    return longest


class _Parts:
    """Collects rows and writes a part whenever `size` are there; a part that is finished already is only counted."""

    def __init__(self, writer: PartWriter, size: int):
        self.writer, self.size = writer, size
        self.waiting: list[pa.Table] = []
        self.rows = self.written = 0  # rows so far; those of them in parts

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        self.rows += table.num_rows
        while self.rows - self.written >= self.size:
            self._write(self.size)

    def skip(self, rows: int) -> None:
        """Rows of finished parts: whole parts, so nothing waits before them."""
        assert not sum(t.num_rows for t in self.waiting), "rows wait before a finished part"
        self.rows += rows
        self.written += (self.rows - self.written) // self.size * self.size

    def close(self) -> None:
        if self.rows > self.written or self.rows == 0:
            self._write(self.rows - self.written)

    def _write(self, rows: int) -> None:
        """The next part. Its rows are made one piece, so that its bytes do not depend on how they came."""
        name = f"part-{self.written // self.size:05d}.parquet"
        table = pa.concat_tables([self.writer.schema.empty_table(), *self.waiting])
        if name not in self.writer.finished:
            self.writer.write(name, table.slice(0, rows).combine_chunks())
        self.waiting = [table.slice(rows)]
        self.written += rows
