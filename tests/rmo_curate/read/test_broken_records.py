"""A record of any published form, broken anywhere, is a pair or a reject: never a traceback."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.read.form_detection import detect
from rmo_curate.read.forms import candidates, convert, fields_of, recognise
from rmo_curate.read.messages import Unfit
from rmo_train.console.errors import UserError
from tests.rmo_curate.read.published_forms import FORMS, Published

JUNK = st.sampled_from(
    [None, "", 0, -1, 1.5, float("nan"), float("inf"), True, 10**400, [], {}, "x", "\ud800", "[", '["a"]', "{'a'",
     ["a"], [None], [[]], [["a", "b"]], {"a": 1}, {"role": "user"}, [{"role": ["x"], "content": "y"}],
     {"role": "user", "content": [{"type": ["a"], "text": 1}]}, [{"role": "user", "content": None}],
     {"messages": []}, {"messages": 5}, {"text": 1, "replies": 5}, "<|im_start|>", "<extra_id_1>", "Human:",
     "\n\nHuman: a\n\nAssistant:", {"text": "a", "role": "prompter", "replies": [{"rank": 1}, {"rank": 2}]},
     [{"role": "a", "candidates": [{"a": 1}]}], {"candidates": []}, 5]
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside `value`."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


def with_junk(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    value = copy.copy(value)
    value[path[0]] = with_junk(value[path[0]], path[1:], junk)
    return value


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
        assert "a.jsonl" in str(e) or "Python's way" in str(e)
