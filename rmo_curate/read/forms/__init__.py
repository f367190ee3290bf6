"""The forms that preference data come in: a record -> prompt, chosen and rejected messages, or why it is unfit.

To add a form, write `convert` (fields -> a Triple, or raise Unfit) and `matches` in the module of its kind (`trl`,
`turns`, `questions`, `sharegpt`, `ranked`; `form` has what all share), and enter a `Form` in `FORMS` here: the first
that matches wins. A record that holds several pairs has `expand`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmo_curate.read.forms.form import Candidate, Fields, Form
from rmo_curate.read.forms.questions import ALPACA, ARGILLA, INPUT, ORCA
from rmo_curate.read.forms.ranked import NECTAR, NEMO
from rmo_curate.read.forms.sharegpt import SHAREGPT
from rmo_curate.read.forms.trl import CONVERSATIONAL, IMPLICIT, PROMPT_AND_CONVERSATION, STANDARD
from rmo_curate.read.forms.turns import HH
from rmo_curate.read.messages import RejectReason, Triple, Unfit, check_triple

# The first that matches wins: TRL's names before others', dialogues in one text before a column beside them.
FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        STANDARD,
        CONVERSATIONAL,
        PROMPT_AND_CONVERSATION,
        IMPLICIT,
        SHAREGPT,
        HH,
        ALPACA,
        ARGILLA,
        ORCA,
        INPUT,
        NECTAR,
        NEMO,
    )
}
ALL_COLUMNS = tuple(dict.fromkeys(column for form in FORMS.values() for column in form.columns))


def fields_of(value: Mapping[str, Any], columns: Mapping[str, str]) -> Fields:
    """A record under the names that the forms use: `columns` has the name in the data of what is called otherwise."""
    if not columns:
        return value
    renamed = {*columns, *columns.values()}
    return {k: v for k, v in value.items() if k not in renamed} | {role: value.get(columns[role]) for role in columns}


def recognise(fields: Fields) -> Form | None:
    """The form that a record's columns and value types show."""
    return next((form for form in FORMS.values() if form.shown_by(fields)), None)


def missing(column: str) -> str:
    """The detail of a `missing_field`."""
    return f"no {column!r}, or null"


def candidates(form: Form, fields: Fields) -> list[Candidate]:
    """The pairs that a record of `form` may hold, at least one; Unfit when it is no record of that form."""
    for column in form.needs:
        if fields.get(column) is None:
            raise Unfit(RejectReason.MISSING_FIELD, missing(column))
    for column in form.without:
        if fields.get(column) is not None:
            raise Unfit(RejectReason.OTHER_FORM, f"it has {column!r}; the form of this source, {form.name}, has none")
    if not form.matches(fields) and (shown := recognise(fields)):
        raise Unfit(RejectReason.OTHER_FORM, f"{shown.looks} ({shown.name}); the form of this source is {form.name}")
    return form.expand(fields) if form.expand else [Candidate(fields)]


def convert(form: Form, candidate: Candidate) -> Triple:
    """Prompt, chosen and rejected messages of a candidate; Unfit says why it is no pair."""
    return check_triple(form.convert(candidate.fields))


__all__ = ["ALL_COLUMNS", "FORMS", "Candidate", "Form", "RejectReason", "candidates", "convert"]
__all__ += ["fields_of", "missing", "recognise"]
