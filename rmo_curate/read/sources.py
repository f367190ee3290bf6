"""Preference data of any form -> a stream of `Pair` and `Reject`: one of them for every input record.

In the ranked forms a record stands for every two of its answers of different rank; each of those counts as a record.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyarrow as pa

from rmo_curate.read.extras import ExtraColumn, kind_of, plan_columns
from rmo_curate.read.files import DataFile, find_files, read
from rmo_curate.read.form_detection import SAMPLE, check_columns, column_names, detect, notes_on_columns, parsed
from rmo_curate.read.forms import ALL_COLUMNS, Candidate, Form, candidates, convert, fields_of
from rmo_curate.read.forms.form import json_column
from rmo_curate.read.memory import InMemory
from rmo_curate.read.messages import Message, RejectReason, Unfit, check_text, describe
from rmo_curate.read.pair_ids import Ids, content_hash, own_id
from rmo_curate.read.proposals import check_no_label_is_passed_over, command, proposed_map
from rmo_curate.read.readers.record import Record, encodable
from rmo_train.console.errors import UserError, nearest
from rmo_train.console.wording import counted, place
from rmo_train.data.rendering import Conversation
from rmo_train.store.files import canonical_json, compact_json
from rmo_train.store.manifests import InputFile

MANY_REJECTS = 0.2  # a share of rejects that is a sign of data that are not read as they are meant
UNLIKE = (RejectReason.MISSING_FIELD, RejectReason.OTHER_FORM)  # reasons of records that may be read otherwise


@dataclass(frozen=True)
class Pair:
    """A preference pair."""

    id: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    tools: str | None  # JSON of a list, keys in the order of the data
    chat_template_kwargs: str | None  # the same of an object: more variables for the chat template
    extra: dict[str, Any]  # the source's other columns, named and typed as `Source.extra_fields()`
    source: str
    line: int

    @property
    def sides(self) -> tuple[list[Message], list[Message], list[Message]]:
        return self.prompt, self.chosen, self.rejected

    @property
    def conversation(self) -> Conversation:
        """What is rendered of it."""
        return Conversation(self.prompt, self.chosen, self.rejected, self.tools, self.chat_template_kwargs)


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

    files: tuple[DataFile | InMemory, ...]
    inputs: tuple[InputFile, ...]
    form: Form
    said: str  # the form and what shows it, in one line
    limit: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)  # the form's column -> its name in the data
    json_columns: frozenset[str] = frozenset()  # columns whose texts are messages in JSON
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)  # "pairs", and each reject reason that occurs
    input_records: int = 0  # records as they stand in the data; `counts` adds up to more where they hold ranked answers
    extras: tuple[ExtraColumn, ...] = ()
    way_through: str = ""  # the command that reads records of which this reading makes rejects; empty: none is known

    def warning(self) -> str | None:
        """What to say loudly where more than `MANY_REJECTS` of the records are no pairs; None where fewer are."""
        total = sum(self.counts.values())
        rejects = total - self.counts["pairs"]
        if rejects <= MANY_REJECTS * total:
            return None
        reason = max((r for r in self.counts if r != "pairs"), key=lambda r: self.counts[r])
        share = f"{rejects:,} of {total:,} records ({rejects / total:.0%})"
        said = f"warning: {share} are not pairs, mostly because of {reason}"
        if self.way_through:
            return f"{said}; to read them: {self.way_through}"
        return f"{said}; `rmo-curate inspect ... --to FILE.jsonl` writes them, each with its reason, to a second file"

    def extra_fields(self) -> list[pa.Field]:
        """Name and type of the source's other columns."""
        return [pa.field(e.name, e.type) for e in self.extras]

    def records(self) -> Iterator[Pair | Reject]:
        """One `Pair` or `Reject` per record, in order; the same at every call.

        A record of ranked answers gives one for every two answers of different rank, or one `Reject` for itself.
        """
        for outcomes in self._outcomes():
            for outcome in outcomes:
                if isinstance(outcome, Pair):
                    yield replace(outcome, extra=self.named(outcome.extra))
                else:
                    yield outcome

    def named(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """A pair's other columns as the tables have them, from what stands in the data."""
        return {e.name: e.value(extra.get(e.source)) for e in self.extras}

    def _outcomes(self, ids: Ids | None = None) -> Iterator[list[Pair | Reject]]:
        """What each record of the data gives, with the extras as they stand there."""
        ids = ids or self._ids()
        for number, record in read(self.files, self.limit):
            yield self._judged(record, number, ids)

    def _ids(self) -> Ids:
        return Ids([file.name for file in self.files])

    def _judged(self, record: Record, number: int, ids: Ids) -> list[Pair | Reject]:
        name = self.files[number].name
        try:
            value = parsed(_object(record), self.json_columns)
            in_record = candidates(self.form, fields_of(value, self.columns))
        except Unfit as e:
            return [Reject(name, record.line, e.reason, encodable(e.detail), record.raw)]
        outcomes: list[Pair | Reject] = []
        for candidate in in_record:
            try:
                pair, its_hash = self._to_pair(candidate, value, name, record.line)
                pair_id = ids.claim(pair.id, its_hash, number, record.line)
                outcomes.append(pair if pair_id == pair.id else replace(pair, id=pair_id))
            except Unfit as e:
                raw = record.raw if len(in_record) == 1 else _raw(candidate)
                outcomes.append(Reject(name, record.line, e.reason, encodable(e.detail), raw))
        return outcomes

    def _to_pair(self, candidate: Candidate, value: Mapping[str, Any], name: str, line: int) -> tuple[Pair, str]:
        """The pair and the hash of its content."""
        prompt, chosen, rejected = convert(self.form, candidate)
        fields = candidate.fields
        tools = _as_json(fields, "tools", list, "a list of tools")
        kwargs = _as_json(fields, "chat_template_kwargs", dict, "an object of names and values")
        its_hash = content_hash(prompt, chosen, rejected, tools, kwargs)
        own = self._own_columns(value)
        extra = {(f"source_{k}" if k in candidate.extra else k): v for k, v in own.items()} | dict(candidate.extra)
        pair_id = own_id(fields.get("id"))
        if pair_id and candidate.name:
            pair_id = f"{pair_id}/{candidate.name}"
        pair_id = pair_id or its_hash
        return Pair(pair_id, prompt, chosen, rejected, tools, kwargs, extra, name, line), its_hash

    @cached_property
    def _used(self) -> frozenset[str]:
        """The names in the data of the columns that have a meaning in the form."""
        return frozenset(self.columns.get(role, role) for role in self.form.columns)

    @cached_property
    def _paths(self) -> list[str]:
        return sorted(column for column in self._used if "." in column)

    def _own_columns(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """The record's columns that have no meaning in the form; of one that a path leads into, what else it holds."""
        used = self._used
        own = {k: v for k, v in value.items() if k not in used}
        for path in self._paths:
            first, _, rest = path.partition(".")
            if path not in value and isinstance(own.get(first), dict):
                own[first] = {k: v for k, v in own[first].items() if k != rest} or None
        return own


def open_source(
    paths: Sequence[str | InMemory],
    *,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    seen: Callable[[Pair | Reject], None] = lambda outcome: None,
) -> Source:
    """Look `paths` (files, folders, hf: names, or data in memory) through: form, columns, counts. A UserError when
    there is no pair.

    `limit`: the first records only, counted over all files as they stand there, rejects included. `columns`: the name
    in the data of any column of a form that is called otherwise there. `seen` gets all that `records` of the result
    would give, with the pairs' extras as they stand in the data: for whoever keeps them, and reads nothing twice.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: expected 1 or more")
    for role in columns or {}:
        if role not in ALL_COLUMNS:
            raise UserError(
                f"--map {role}=...: no form has a column {role!r}{nearest(role, ALL_COLUMNS)}; give prompt, "
                "chosen, rejected or another column of a form (docs/reference/data.md lists them)"
            )
    given = find_files(paths)
    columns = {**given.columns, **(columns or {})}
    detected = detect(given.files, limit, columns)
    form, sample = detected.form, detected.sample
    check_no_label_is_passed_over(columns, column_names(sample))
    notes = [*given.notes, *notes_on_columns(form, sample, columns)]
    inputs = tuple(f.identity() for f in given.files)
    source = Source(tuple(given.files), inputs, form, detected.said, limit, columns, detected.json_columns)

    tally, ids = Tally(), source._ids()
    for outcomes in source._outcomes(ids):
        tally.add(outcomes)
        for outcome in outcomes:
            seen(outcome)
    names = [file.name for file in given.files]
    check_columns(detected, tally.lacking, tally.records, columns, names)
    if not tally.counts["pairs"]:
        raise UserError(_no_pair(form, tally, column_names(sample)))
    extras = plan_columns(tally.kinds)
    notes += [f"column {e.source!r} is kept as {e.name!r}" for e in extras if e.source != e.name]
    notes += _notes_on_records(form, tally, ids)
    proposed = proposed_map(tally.unlike, columns) if tally.unlike else {}
    return replace(
        source,
        notes=tuple(notes),
        counts=dict(tally.counts),
        input_records=tally.records,
        extras=extras,
        way_through=command(names, proposed, columns) if proposed else "",
    )


@dataclass
class Tally:
    """What the records of the data came to."""

    records: int = 0
    counts: Counter[str] = field(default_factory=Counter)  # "pairs", and each reject reason
    firsts: dict[str, Reject] = field(default_factory=dict)  # of each reason
    kinds: dict[str, set[str]] = field(default_factory=dict)  # of the values of each of the source's other columns
    unlike: list[Mapping[str, Any]] = field(default_factory=list)  # some records that may be read otherwise
    lacking: Counter[str] = field(default_factory=Counter)  # which column was missing, in words

    def add(self, outcomes: Sequence[Pair | Reject]) -> None:
        """Count what one record gave."""
        self.records += 1
        for outcome in outcomes:
            if isinstance(outcome, Pair):
                self.counts["pairs"] += 1
                for column, value in outcome.extra.items():
                    self.kinds.setdefault(column, set()).update(() if value is None else (kind_of(value),))
            else:
                self._add_reject(outcome)

    def _add_reject(self, reject: Reject) -> None:
        self.counts[reject.reason.value] += 1
        self.firsts.setdefault(reject.reason.value, reject)
        if reject.reason in UNLIKE and len(self.unlike) < SAMPLE and (value := _value_of(reject)):
            self.unlike.append(value)
        if reject.reason is RejectReason.MISSING_FIELD:
            self.lacking[reject.detail.partition(";")[0]] += 1


def _notes_on_records(form: Form, tally: Tally, ids: Ids) -> list[str]:
    """What to say of ids that repeat, and of records that stand for several."""
    notes = []
    if ids.repeated:
        notes.append(
            f"{counted(ids.repeated, 'record')} with the id of an earlier pair but different content: the hash of the "
            "content is appended to the id"
        )
    if form.expand is not None and tally.counts.total() != tally.records:
        notes.append(
            f"{counted(tally.records, 'record')} of ranked answers become {tally.counts.total():,}: every two answers "
            "of different rank count as a record"
        )
    return notes


def _value_of(reject: Reject) -> Mapping[str, Any] | None:
    """The record of a reject; None where its text is none."""
    try:
        value = json.loads(reject.raw)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _no_pair(form: Form, tally: Tally, columns: Sequence[str]) -> str:
    """What is wrong with records of which not one is a pair: the reasons, the commonest first."""
    lines = [f"not one usable pair in {counted(tally.counts.total(), 'record')} (read as {form.name}: {form.looks})"]
    for reason, n in tally.counts.most_common():
        if reason in tally.firsts:
            first = tally.firsts[reason]
            lines.append(f"  {reason}: {n}, the first at {place(first.source, first.line)}: {first.detail}")
    if "prompt" not in columns and (hint := nearest("prompt", columns)):
        lines.append(f"There is no column 'prompt'; the columns are {', '.join(columns)}{hint}")
    return "\n".join(lines)


def _object(record: Record) -> dict[str, Any]:
    if record.problem is not None:
        raise Unfit(RejectReason.BROKEN_LINE, record.problem)
    if not isinstance(record.value, dict):
        raise Unfit(RejectReason.NOT_AN_OBJECT, f"the record is {describe(record.value)}, expected an object")
    return record.value


def _raw(candidate: Candidate) -> str:
    """The two answers of a ranked record, which itself may hold many more."""
    shown = {column: candidate.fields.get(column) for column in ("id", "prompt", "chosen", "rejected")}
    return encodable(canonical_json({**shown, **candidate.extra}))


def _as_json(fields: Mapping[str, Any], column: str, kind: type, expected: str) -> str | None:
    """A column's value, or its JSON text, as compact JSON; None when it is empty."""
    value = json_column(fields.get(column), column, kind, expected)
    return None if value is None else check_text(compact_json(value), column)
