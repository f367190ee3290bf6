"""Which form the data have, told from the first records; and what is wrong with the columns when none fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmo_curate.read.files import DataFile, read
from rmo_curate.read.forms import ALL_COLUMNS, FORMS, Form, at, fields_of, missing, recognise
from rmo_curate.read.forms.form import every, is_text
from rmo_curate.read.memory import InMemory
from rmo_curate.read.messages import MESSAGE_KEYS, NOTHING, describe
from rmo_curate.read.proposals import command, labels_in, proposed_map, why_not_pairs
from rmo_curate.read.readers.record import said_in_json
from rmo_train.console.errors import UserError, nearest
from rmo_train.console.wording import place

SAMPLE = 100  # records that decide the form
HOLD_MESSAGES = ("prompt", "chosen", "rejected", "conversations", "context", "messages")
NEAREST = 8  # forms named where none fits
MISSING_SHARE = 0.95  # a column that this share of the records lacks is a mistake in its name, not in the records


@dataclass(frozen=True)
class Detected:
    """The form of the data."""

    form: Form
    said: str  # the form and what shows it
    sample: list[Mapping[str, Any]]  # the first objects read
    json_columns: frozenset[str]  # columns whose texts are messages in JSON


def detect(files: Sequence[DataFile | InMemory], limit: int | None, columns: Mapping[str, str]) -> Detected:
    """The form of most of the first records that have one."""
    votes: Counter[str] = Counter()
    sample: list[Mapping[str, Any]] = []
    problems: list[str] = []
    count = 0
    in_json: frozenset[str] = frozenset()
    names = ", ".join(f.name for f in files)
    for number, record in read(files, limit):
        count += 1
        if not isinstance(record.value, dict):
            problem = record.problem or f"{describe(record.value)}, expected an object"
            if len(problems) < 3:
                problems.append(f"{place(files[number].name, record.line)}: {problem}")
            continue
        if len(sample) < SAMPLE:
            sample.append(record.value)
            if len(sample) < SAMPLE:
                continue
            in_json = json_columns_of(names, sample, columns)
            votes = _votes(sample, columns, in_json)
        else:
            votes += _votes([record.value], columns, in_json)
        if votes.total() >= SAMPLE:
            break
    if len(sample) < SAMPLE:
        in_json = json_columns_of(names, sample, columns)
        votes = _votes(sample, columns, in_json)
    if not count:
        raise UserError(f"{names}: no records; expected preference pairs, one object per line (or row)")
    if not sample:
        raise UserError(f"{names}: none of {count} records is an object:\n  " + "\n  ".join(problems))
    sample = [parsed(value, in_json) for value in sample]
    if not votes:
        raise UserError(f"{names}: {_unrecognised([f.name for f in files], sample, columns)}")
    (name, n), *others = votes.most_common()
    form = FORMS[name]
    said = f"form {name} in {n} of the first {votes.total()} records: {form.looks}"
    if others:
        said += f" (other forms, to be rejected: {', '.join(f'{k} of {o}' for o, k in others)})"
    return Detected(form, said, sample, in_json)


def _votes(values: Sequence[Mapping[str, Any]], columns: Mapping[str, str], in_json: frozenset[str]) -> Counter[str]:
    """How many of the records show each form."""
    shown = (recognise(fields_of(parsed(value, in_json), columns)) for value in values)
    return Counter(form.name for form in shown if form)


def parsed(value: Mapping[str, Any], in_json: frozenset[str]) -> Mapping[str, Any]:
    """A record with its messages in JSON read."""
    if not in_json:
        return value
    return {k: v if k not in in_json else _read_json(v) for k, v in value.items()}


def _read_json(value: Any) -> Any:
    value_in_json = said_in_json(value) if isinstance(value, str) else None
    return value if value_in_json is None else value_in_json


def json_columns_of(files: str, sample: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> frozenset[str]:
    """The columns of which every filled cell of the sample, which is from `files`, is messages in JSON."""
    names = set()
    known = {*ALL_COLUMNS, *columns.values()}
    for name in filter(known.__contains__, column_names(sample)):
        cells = [r[name] for r in sample if r.get(name) not in NOTHING]
        if not cells or not all(isinstance(cell, str) for cell in cells):
            continue
        if all(cell.startswith(("[{'", "{'")) for cell in cells):
            raise UserError(
                f"{files}: the texts of {name!r} are Python lists, not JSON ({cells[0][:30]}…); write them with "
                "json.dumps"
            )
        if all(said_in_json(cell) is not None for cell in cells):
            names.add(name)
    return frozenset(names)


def column_names(sample: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in sample for name in record))


def _unrecognised(files: Sequence[str], sample: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Why no form fits any of the sample, and what to do."""
    names = column_names(sample)
    listed = f"the columns are {', '.join(names)}"
    if proposed := proposed_map(sample, columns):
        wrong = _not_there(sample, columns) or f"no known form; {listed}."
        return f"{wrong} This command can read it:\n  {command(files, proposed, columns)}"
    if cause := why_not_pairs(sample, names):
        return f"{cause}; {listed}"
    for role in ("chosen", "rejected"):
        column = columns.get(role, role)
        if all(at(record, column) is None for record in sample):
            hint = nearest(column, names) or "."
            advice = f"If the column has another name, give --map {role}=NAME. "
            if labels := labels_in(names):
                advice = f"If {labels[0]!r} says which answer won, write records with prompt, chosen, rejected. "
            return f"no column {column!r} in any record; {listed}{hint} {advice}Known forms:\n{_known_forms(names)}"
    fields = [fields_of(record, columns) for record in sample]
    if all(f.get("prompt") is None and every(is_text, f, "chosen", "rejected") for f in fields):
        return (
            "chosen and rejected are plain texts and there is no prompt, so it is unknown where the prompt ends; "
            f"{listed}{nearest('prompt', names) or '.'} Add a column 'prompt', or mark turns with 'Human:' and "
            "'Assistant:', or name the column that is the prompt: --map prompt=NAME"
        )
    first = next((f for f in fields if f.get("chosen") is not None), fields[0])
    shown = ", ".join(f"{role} is {describe(first.get(role))}" for role in ("prompt", "chosen", "rejected"))
    return f"no known form: {shown}; {listed}. Known forms:\n{_known_forms(names)}"


def _known_forms(names: Sequence[str]) -> str:
    """The forms of which most columns are there, and how many more there are."""

    def lacking(form: Form) -> float:
        return sum(column.split(".")[0] not in names for column in form.needs) / len(form.needs)

    nearest_forms = sorted(FORMS.values(), key=lacking)[:NEAREST]
    listed = "\n".join(f"  {form.name}: {form.looks}" for form in nearest_forms)
    return f"{listed}\n  and {len(FORMS) - NEAREST} more (docs/reference/data.md)"


def notes_on_columns(form: Form, sample: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """Notes on what is there and not used: what messages hold besides role and content, a label beside the answers."""
    lost: set[str] = set()
    for record in sample:
        for role in HOLD_MESSAGES:
            value = record.get(columns.get(role, role))
            for message in value if isinstance(value, list) else [value]:
                if isinstance(message, dict):
                    lost.update(k for k, v in message.items() if k not in MESSAGE_KEYS and v not in NOTHING)
    notes = [f"only role and content of messages are kept; left out: {', '.join(sorted(lost))}"] if lost else []
    if {"chosen", "rejected"} <= set(form.needs) and (labels := labels_in(column_names(sample))):
        notes.append(f"column {labels[0]!r} is kept, but does not decide which answer is the chosen one")
    return notes


def _not_there(sample: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """What is wrong with the first column that was mapped and that no record has; empty where all are there."""
    names = column_names(sample)
    for role, column in columns.items():
        if column not in names and all(at(record, column) is None for record in sample):
            said = f"no column {column!r}, which was given as the {role}; the columns are {', '.join(names)}"
            return said + (nearest(column, names) or ".")
    return ""


def check_columns(
    detected: Detected, lacking: Counter[str], total: int, columns: Mapping[str, str], files: Sequence[str]
) -> None:
    """A UserError for a column that nearly every record lacks, or a mapped one that none has."""
    form, sample = detected.form, detected.sample
    names = column_names(sample)
    where = ", ".join(files)
    for role in form.needs:
        n = lacking[missing(role)]
        if n >= MISSING_SHARE * total:
            column = columns.get(role, role)
            others = [name for name in names if name != column]
            proposed = proposed_map([r for r in sample if at(r, column) is None], columns)
            way = f". This command can read it:\n  {command(files, proposed, columns)}" if proposed else ""
            raise UserError(
                f"{where}: no {column!r} in {n} of {total} records; the columns are {', '.join(names)}"
                f"{nearest(column, others) or '.'} A record of the form {form.name} needs {', '.join(form.needs)}{way}"
            )
    if wrong := _not_there(sample, columns):
        raise UserError(f"{where}: {wrong}")
