"""Data in every form that the field publishes are read as they are meant, or refused with the reason: never misread."""

from __future__ import annotations

import re

import pytest

from rmo_curate.read.forms import FORMS as READ
from rmo_curate.read.forms import fields_of, recognise
from rmo_curate.read.sources import Reject, open_source
from rmo_train.console.errors import UserError
from tests.rmo_curate.read.published_forms import FORMS, Published
from tests.rmo_curate.read.reading import jsonl, pairs, read

IDS = [form.whose for form in FORMS]
ENOUGH = 80


@pytest.mark.parametrize("form", FORMS, ids=IDS)
def test_a_published_form_means_what_it_means_or_is_refused_by_name(tmp_path, form: Published):
    path = jsonl(tmp_path / "a.jsonl", form.record)
    if form.means is None:
        with pytest.raises(UserError, match=form.refused):
            open_source([path])
        return
    if form.columns:
        with pytest.raises(UserError) as caught:
            open_source([path])
        printed = dict(m.split("=") for m in re.findall(r"--map (\S+)", str(caught.value)))
        assert printed == form.columns
    _, records = read(path, columns=form.columns)
    assert not [r for r in records if isinstance(r, Reject)]
    assert [(p.prompt, p.chosen, p.rejected) for p in pairs(records)] == [form.means]


def test_every_form_that_is_read_is_shown_by_something_published():
    shown = [recognise(fields_of(form.record, form.columns)) for form in FORMS if form.means]
    assert {form.name for form in shown if form} == set(READ)


def test_at_least_as_many_published_forms_are_read_as_is_claimed():
    assert len(FORMS) == len({form.whose for form in FORMS})
    assert sum(form.means is not None for form in FORMS) >= ENOUGH
