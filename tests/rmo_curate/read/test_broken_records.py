"""A record of any published form, broken anywhere, is a pair or a reject: never a traceback."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.read.form_detection import detect
from rmo_curate.read.forms import candidates, convert, fields_of, recognise
from rmo_curate.read.messages import Unfit
from rmo_train.console.errors import UserError
from tests.rmo_curate.read.broken import JUNK, places, with_junk
from tests.rmo_curate.read.published_forms import FORMS, Published


@settings(deadline=None, max_examples=1500)
@given(st.sampled_from(FORMS), st.data())
def test_a_broken_record_is_a_pair_or_a_reject(form: Published, data: st.DataObject):
    broken = with_junk(form.record, data.draw(st.sampled_from(list(places(form.record)))), data.draw(JUNK))
    before, after = (recognise(fields_of(record, form.columns)) for record in (form.record, broken))
    for judged_as in filter(None, (before, after)):
        try:
            for candidate in candidates(judged_as, fields_of(broken, form.columns)):
                convert(judged_as, candidate)
        except Unfit as e:
            assert str(e)


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(FORMS), st.data())
def test_what_is_wrong_with_a_broken_record_is_said(tmp_path_factory, form: Published, data: st.DataObject):
    from rmo_curate.read.files import DataFile
    from rmo_curate.read.readers.record import Record

    broken = with_junk(form.record, data.draw(st.sampled_from(list(places(form.record)))), data.draw(JUNK))
    file = DataFile("a.jsonl", tmp_path_factory.getbasetemp(), lambda _: iter([Record(1, broken)]))
    try:
        assert detect([file], None, {}).form.name
    except UserError as e:
        assert "a.jsonl" in str(e)
