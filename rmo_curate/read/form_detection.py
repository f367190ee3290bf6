"""Which form the data have, told from the first records; and what is wrong with the columns when none fits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rmo_curate.read.files import DataFile, read
from rmo_curate.read.forms import FORMS, Form, fields_of, missing, recognise
from rmo_curate.read.forms.form import every, is_text
from rmo_curate.read.memory import InMemory
from rmo_curate.read.messages import NOTHING, describe
from rmo_train.console.errors import UserError, nearest

SAMPLE = 100  # records that decide the form
HOLD_MESSAGES = ("prompt", "chosen", "rejected", "conversations", "context")
MESSAGE_KEYS = ("role", "content", "from", "value")
MISSING_SHARE = 0.95  # a column that this share of the records lacks is a mistake in its name, not in the records


def detect(
    files: Sequence[DataFile | InMemory], limit: int | None, columns: Mapping[str, str]
) -> tuple[Form, str, list[dict[str, Any]]]:
    """The form of most of the first records that have one, what shows it, and the first objects read."""
    votes: Counter[str] = Counter()
    sample: list[dict[str, Any]] = []
    problems: list[str] = []
    count = 0
    for number, record in read(files, limit):
        count += 1
        if not isinstance(record.value, dict):
            problem = record.problem or f"{describe(record.value)}, expected an object"
            if len(problems) < 3:
                problems.append(f"{files[number].name}:{record.line}: {problem}")
            continue
        if len(sample) < SAMPLE:
            sample.append(record.value)
        if form := recognise(fields_of(record.value, columns)):
            votes[form.name] += 1
        if votes.total() == SAMPLE:
            break
    names = ", ".join(f.name for f in files)
    if not count:
        raise UserError(f"{names}: no records; expected preference pairs, one object a line (or row)")
    if not sample:
        raise UserError(f"{names}: none of {count} records is an object:\n  " + "\n  ".join(problems))
    if not votes:
        raise UserError(f"{names}: {_unrecognised(sample, columns)}")
    (name, n), *others = votes.most_common()
    form = FORMS[name]
    said = f"form {name}: {form.looks} in {n} of the first {votes.total()} records"
    if others:
        said += f" ({', '.join(f'{k} like {o}' for o, k in others)}: to be rejected)"
    return form, said, sample


def column_names(sample: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in sample for name in record))


def _unrecognised(sample: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Why no form fits any of the sample, and what to do."""
    names = column_names(sample)
    listed = f"the columns are {', '.join(names)}"
    for role in ("chosen", "rejected"):
        column = columns.get(role, role)
        if all(record.get(column) is None for record in sample):
            hint = nearest(column, names) or "."
            return (
                f"no column {column!r} in any record; {listed}{hint} A column of another name is given as "
                f"--map {role}=NAME. The forms read are\n{_known_forms()}"
            )
    fields = [fields_of(record, columns) for record in sample]
    if all(f.get("prompt") is None and every(is_text, f, "chosen", "rejected") for f in fields):
        return (
            "chosen and rejected are plain texts and there is no prompt, so where the prompt ends cannot be known; "
            f"{listed}{nearest('prompt', names) or '.'} Add a column 'prompt', or turns 'Human:' and 'Assistant:', or "
            "name the column that is the prompt: --map prompt=NAME"
        )
    first = next((f for f in fields if f.get("chosen") is not None), fields[0])
    shown = ", ".join(f"{role} is {describe(first.get(role))}" for role in ("prompt", "chosen", "rejected"))
    return f"no known form: {shown}; {listed}. The forms read are\n{_known_forms()}"


def _known_forms() -> str:
    return "\n".join(f"  {form.name}: {form.looks}" for form in FORMS.values())


def notes_on_columns(form: Form, sample: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """Notes on what is there and not used: what messages hold besides role and content, a system prompt beside them."""
    lost: set[str] = set()
    for record in sample:
        for role in HOLD_MESSAGES:
            value = record.get(columns.get(role, role))
            for message in value if isinstance(value, list) else [value]:
                if isinstance(message, dict):
                    lost.update(k for k, v in message.items() if k not in MESSAGE_KEYS and v not in NOTHING)
    notes = [f"of a message, role and content are kept; left out: {', '.join(sorted(lost))}"] if lost else []
    if form.name == "trl-standard" and any(isinstance(r.get("system"), str) and r["system"].strip() for r in sample):
        notes.append(
            "column 'system' is kept beside the pairs: in the form trl-standard it is no part of the prompt "
            f"(if it is one here: --map question={columns.get('prompt', 'prompt')})"
        )
    return notes


def check_columns(
    form: Form, lacking: Counter[str], total: int, sample: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> None:
    """A UserError for a column that nearly every record lacks, or a mapped one that none has."""
    names = column_names(sample)
    for role in form.needs:
        n = lacking[missing(role)]
        if n >= MISSING_SHARE * total:
            column = columns.get(role, role)
            others = [name for name in names if name != column]
            raise UserError(
                f"no {column!r} in {n} of {total} records; the columns are {', '.join(names)}"
                f"{nearest(column, others) or '.'} A record of the form {form.name} needs {', '.join(form.needs)}"
            )
    for role, column in columns.items():
        if column not in names:
            raise UserError(
                f"no column {column!r}, which was given as the {role}; the columns are {', '.join(names)}"
                f"{nearest(column, names)}"
            )
