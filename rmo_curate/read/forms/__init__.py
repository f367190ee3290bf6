"""The forms that preference data come in: a record -> prompt, chosen and rejected messages, or why it is unfit.

To add a form, write `convert` (fields -> a Triple, or raise Unfit) and `matches` in the module of its kind, and enter a
`Form` in `FORMS` here: the first that matches wins. A record that holds several pairs has `expand`.

- `form`: what a form is; what every form reads (system prompt, earlier turns) or refuses (images).
- `answers`, `dialogues`: prompts and answers of any shape, and dialogues in one text, -> messages.
- `trl`, `turns`, `questions`, `sharegpt`: chosen and rejected in the commonest shapes.
- `pairs`: the same in any shape and under other names: a table.
- `comparisons`: two answers and a label, score or flag that says which one won: a table.
- `ranked`, `trees`: several answers with ranks or scores; OpenAssistant's trees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rmo_curate.read.forms.comparisons import COMPARISONS
from rmo_curate.read.forms.form import (
    Candidate,
    Fields,
    Form,
    at,
    check_all_is_read,
    check_marks,
    with_what_came_before,
)
from rmo_curate.read.forms.pairs import BEFORE_ANSWERS, BY_HAND, PAIRS
from rmo_curate.read.forms.questions import ALPACA, ARGILLA, H2O, INPUT, ORCA
from rmo_curate.read.forms.ranked import RANKINGS
from rmo_curate.read.forms.sharegpt import SHAREGPT
from rmo_curate.read.forms.trees import TREE
from rmo_curate.read.forms.trl import CONVERSATIONAL, IMPLICIT, PROMPT_AND_CONVERSATION, STANDARD
from rmo_curate.read.forms.turns import HH, TEMPLATES
from rmo_curate.read.messages import RejectReason, Triple, Unfit, check_triple

# The first that matches wins: TRL's names before others', dialogues in one text before a column beside them.
FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        STANDARD,
        CONVERSATIONAL,
        PROMPT_AND_CONVERSATION,
        SHAREGPT,
        HH,
        TEMPLATES,
        ALPACA,
        ARGILLA,
        ORCA,
        INPUT,
        H2O,
        *BEFORE_ANSWERS,
        IMPLICIT,
        *BY_HAND,
        *RANKINGS,
        TREE,
        *COMPARISONS,
        *PAIRS,
    )
}
ALL_COLUMNS = tuple(
    dict.fromkeys(c for form in FORMS.values() for c in form.columns if "." not in c)
)  # a path is no name to map


def fields_of(value: Mapping[str, Any], columns: Mapping[str, str]) -> Fields:
    """A record under the names that the forms use: `columns` has the name in the data of what is called otherwise."""
    if not columns:
        return value
    renamed = {*columns, *columns.values()}
    return {k: v for k, v in value.items() if k not in renamed} | {role: at(value, columns[role]) for role in columns}


def recognise(fields: Fields) -> Form | None:
    """The form that a record's columns and value types show."""
    return next((form for form in FORMS.values() if form.shown_by(fields)), None)


def missing(column: str) -> str:
    """The detail of a `missing_field`."""
    return f"no {column!r}, or null"


def candidates(form: Form, fields: Fields) -> list[Candidate]:
    """The pairs that a record of `form` may hold, at least one; Unfit when it is no record of that form."""
    for column in form.needs:
        if fields.get(column) is None and at(fields, column) is None:
            other = recognise(fields)
            hint = f"; the record is of the form {other.name}" if other and other is not form else ""
            raise Unfit(RejectReason.MISSING_FIELD, missing(column) + hint)
    for column in form.without:
        if fields.get(column) is not None:
            raise Unfit(RejectReason.OTHER_FORM, f"it has {column!r}; the form of this source, {form.name}, has none")
    if not form.matches(fields) and (shown := recognise(fields)):
        raise Unfit(RejectReason.OTHER_FORM, f"{shown.looks} ({shown.name}); the form of this source is {form.name}")
    check_all_is_read(fields)
    return form.expand(fields) if form.expand else [Candidate(fields)]


def convert(form: Form, candidate: Candidate) -> Triple:
    """Prompt, chosen and rejected messages of a candidate; Unfit says why it is no pair."""
    prompt, chosen, rejected = form.convert(candidate.fields)
    check_marks(prompt)
    return check_triple((with_what_came_before(prompt, candidate.fields, form), chosen, rejected))


__all__ = ["ALL_COLUMNS", "FORMS", "Candidate", "Form", "RejectReason", "candidates", "convert"]
__all__ += ["at", "fields_of", "missing", "recognise"]
