"""Preference data of any form -> a stream of `Pair` and `Reject`: one of them for every input record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from rmo_curate.extras import ExtraColumn, kind_of, plan_columns
from rmo_curate.files import DataFile, Record, encodable, find_files, read
from rmo_curate.form_detection import check_columns, column_names, detect, notes_on_messages
from rmo_curate.forms import COLUMNS, Form, convert, fields_of
from rmo_curate.messages import Message, RejectReason, Unfit, check_text, describe
from rmo_train.errors import UserError, nearest
from rmo_train.tables import canonical_json, sha256_text


@dataclass(frozen=True)
class Pair:
    """A preference pair."""

    id: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: str | None  # canonical JSON
    extra: dict[str, Any]  # the source's other columns, named and typed as `Source.extra_fields()`
    source: str
    line: int


@dataclass(frozen=True)
class Reject:
    """An input record that is not a pair."""

    source: str
    line: int  # 1-based line of a jsonl file, elsewhere 1-based number of the record
    reason: RejectReason
    detail: str
    raw: str


@dataclass(frozen=True)
class Source:
    """Data that was looked through once: its form and columns are known, and it holds at least one pair."""

    files: tuple[DataFile, ...]
    inputs: list[dict[str, Any]]  # name, bytes, sha256 of each file
    form: Form
    said: str  # the form and what shows it, in one line
    limit: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)  # the pair's column -> its name in the data
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)  # "pairs", and each reject reason that occurs
    extras: tuple[ExtraColumn, ...] = ()

    def extra_fields(self) -> list[pa.Field]:
        """Name and type of the source's other columns."""
        return [pa.field(e.name, e.type) for e in self.extras]

    def records(self) -> Iterator[Pair | Reject]:
        """One `Pair` or `Reject` per input record, in order; the same at every call."""
        for outcome in self._outcomes():
            if isinstance(outcome, Pair):
                found = outcome.extra
                yield replace(outcome, extra={e.name: e.value(found.get(e.source)) for e in self.extras})
            else:
                yield outcome

    def _outcomes(self) -> Iterator[Pair | Reject]:
        """As `records`, with the extras as they stand in the data."""
        ids = _Ids(self.files)
        for number, record in read(self.files, self.limit):
            name = self.files[number].name
            try:
                pair, content_hash = _to_pair(record, name, self.form, self.columns)
                ids.claim(pair, content_hash, number)
                yield pair
            except Unfit as e:
                yield Reject(name, record.line, e.reason, encodable(e.detail), record.raw)


def open_source(paths: Sequence[str], *, limit: int | None = None, columns: Mapping[str, str] | None = None) -> Source:
    """Look `paths` (files or folders) through: form, columns, counts. A UserError when there is no pair in them.

    `limit`: the first records only, counted over all files, rejects included. `columns`: the name in the data of
    any of `COLUMNS` that is called otherwise there.
    """
    if limit is not None and limit < 1:
        raise UserError(f"a limit of {limit} records; expected 1 or more")
    columns = dict(columns or {})
    for role in columns:
        if role not in COLUMNS:
            raise UserError(f"no column {role!r} to map; a pair has {', '.join(COLUMNS)}{nearest(role, COLUMNS)}")
    files, notes = find_files(paths)
    form, said, sample = detect(files, limit, columns)
    notes += notes_on_messages(sample, columns)
    source = Source(tuple(files), [f.identity() for f in files], form, said, limit, columns)

    kinds: dict[str, set[str]] = {}
    counts: Counter[str] = Counter()
    firsts: dict[str, Reject] = {}
    lacking: Counter[str] = Counter()
    for outcome in source._outcomes():
        if isinstance(outcome, Pair):
            counts["pairs"] += 1
            for column, value in outcome.extra.items():
                kinds.setdefault(column, set()).update(() if value is None else (kind_of(value),))
        else:
            counts[outcome.reason.value] += 1
            firsts.setdefault(outcome.reason.value, outcome)
            if outcome.reason is RejectReason.MISSING_FIELD:
                lacking[outcome.detail] += 1
    check_columns(form, lacking, counts.total(), sample, columns)
    if not counts["pairs"]:
        raise UserError(_no_pair(form, counts, firsts, column_names(sample)))
    extras = plan_columns(kinds)
    notes += [f"column {e.source!r} is kept as {e.name!r}" for e in extras if e.source != e.name]
    return replace(source, notes=tuple(notes), counts=dict(counts), extras=extras)


def _no_pair(form: Form, counts: Counter[str], firsts: Mapping[str, Reject], found: Sequence[str]) -> str:
    """What is wrong with records of which not one is a pair: the reasons, the commonest first."""
    lines = [f"not one usable pair in {counts.total()} records (read as {form.name}: {form.looks})"]
    for reason, n in counts.most_common():
        if reason in firsts:
            first = firsts[reason]
            lines.append(f"  {reason}: {n}, the first at {first.source}:{first.line}: {first.detail}")
    if "prompt" not in found and (hint := nearest("prompt", found)):
        lines.append(f"There is no column 'prompt'; the columns are {', '.join(found)}{hint}")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------- one record


def _to_pair(record: Record, name: str, form: Form, columns: Mapping[str, str]) -> tuple[Pair, str]:
    """The pair and the hash of its content."""
    if record.problem is not None:
        raise Unfit(RejectReason.BROKEN_LINE, record.problem)
    if not isinstance(record.value, dict):
        raise Unfit(RejectReason.NOT_AN_OBJECT, f"the record is {describe(record.value)}, expected an object")
    fields = fields_of(record.value, columns)
    prompt, chosen, rejected = convert(form, fields)
    tools = _tools(fields["tools"])
    content_hash = _content_hash(prompt, chosen, rejected, tools)
    used = {columns.get(role, role) for role in COLUMNS}
    extra = {k: v for k, v in record.value.items() if k not in used}
    own_id = _own_id(fields["id"])
    return Pair(own_id or content_hash, prompt, chosen, rejected, tools, extra, name, record.line), content_hash


def _own_id(value: Any) -> str:
    """The user's id as text; empty when there is none."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Unfit(RejectReason.NOT_TEXT, f"id is {describe(value)}, expected text or an integer: {value!r}")
    return check_text(value, "id").strip()


def _tools(value: Any) -> str | None:
    """The tools as canonical JSON, from a list or its JSON text; None when there are none."""
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as e:
            raise Unfit(RejectReason.NOT_TEXT, f"tools is not JSON ({e}); expected a list of tools") from e
    if not value:
        return None
    if not isinstance(value, list):
        raise Unfit(RejectReason.NOT_TEXT, f"tools is {describe(value)}, expected a list of tools or its JSON text")
    return check_text(canonical_json(value), "tools")


def _content_hash(prompt: list[Message], chosen: list[Message], rejected: list[Message], tools: str | None) -> str:
    """sha256 of what is asked and answered, 16 bytes in hex: the same wherever the pair stands and whatever its id."""
    content = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": tools}
    return sha256_text(canonical_json(content))[:32]


class _Ids:
    """Finds repeated contents and ids in 16 bytes a record (and a position), so that it holds for millions."""

    def __init__(self, files: Sequence[DataFile]):
        self.files = files
        self.first: dict[bytes, int] = {}  # content -> the position where it came first
        self.owner: dict[bytes, bytes] = {}  # a user's id -> its content

    def claim(self, pair: Pair, content_hash: str, file_number: int) -> None:
        """Unfit for a content seen before; a UserError for an id that stands for another content."""
        content = bytes.fromhex(content_hash)
        own = pair.id != content_hash
        key = _key(pair.id) if own else content
        holder = self.owner.get(key) or (key if key in self.first else None)
        if holder not in (None, content):
            raise UserError(
                f"the id {pair.id!r} stands for two different pairs: {self._place(self.first[holder])} and "
                f"{pair.source}:{pair.line}; give each pair its own id, or leave the id column out"
            )
        if own:
            self.owner[key] = content
        if content in self.first:
            place = self._place(self.first[content])
            raise Unfit(RejectReason.DUPLICATE, f"the same prompt, chosen and rejected as {place}")
        self.first[content] = file_number << 40 | pair.line

    def _place(self, position: int) -> str:
        return f"{self.files[position >> 40].name}:{position & (1 << 40) - 1}"


def _key(user_id: str) -> bytes:
    """16 bytes for an id; an id that is one of our hashes (data curated before) is that hash itself."""
    if len(user_id) == 32 and set(user_id) <= set("0123456789abcdef"):
        return bytes.fromhex(user_id)
    return blake2b(user_id.encode(), digest_size=16).digest()
