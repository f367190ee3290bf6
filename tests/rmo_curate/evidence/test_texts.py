"""What texts give: each feature of style on answers written by hand, and which texts are the same."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.evidence import texts
from rmo_curate.evidence.texts import STYLE, read_texts, style
from tests.rmo_curate.evidence.made import table

log = np.log1p

# feature -> (answer, value); the prompt is "Why does it rain?", of 4 distinct words
BY_HAND = {
    "length": ("abcd ef", log(7)),
    "words": ("Rain, rain; go-away", log(4)),
    "lines": ("a\nb\n\nc", log(3)),
    "paragraphs": ("a\nb\n\nc\n\nd", log(2)),
    "sentences": ('It rains 1.5 mm. "Why?" No...', log(3)),
    "headings": ("# Rain\n ### Why\n#not", log(2)),
    "bullets": ("Of:\n- one\n * two\n• three\n-four", log(3)),
    "numbered lines": ("1. one\n 2) two\n3 three", log(2)),
    "table rows": ("| a | b |\n|---|---|\nc | d", log(2)),
    "bold": ("**very** much", log(2)),
    "code marks": ("`x` and ```y```", log(8)),
    "exclamation marks": ("No! No!", log(2)),
    "question marks": ("Why? Why??", log(3)),
    "commas": ("a, b, c", log(2)),
    "colons": ("thus: a", log(1)),
    "semicolons": ("thus; a;", log(2)),
    "dashes": ("a — b – c - d-e", log(3)),
    "quotation marks": ('“a” and "b"', log(4)),
    "brackets": ('{"a": [f(x)]}', log(3)),
    "links": ("see http://a.b, https://c.d", log(2)),
    "emoji": ("rain 🌧️ 1 ☔", log(2)),
    "digits": ("10 or 3", log(3)),
    "distinct words": ("The rain the Rain stops", 3 / 5),
    "word length": ("abcd ef", 7 / 2),
    "capital letters": ("Éa B 1", 2 / 6),
    "words in capitals": ("NO, it DOES, I do", log(2)),
    "ends a sentence": ("It is so.) ", 1),
    "ends with a question": ("Does it? ", 1),
    "starts with a mark": (' "It rains"', 1),
    "starts upper-case": (" Éclair", 1),
    "sorry": ("I am SORRY", 1),
    "as an AI": ("As an AI, no", 1),
    "opens with assent": (" Of course it does", 1),
    "first person": ("I, my dog and me. It is mine.", log(3)),
    "second person": ("You and your dog, youth", log(2)),
    "words of the prompt": ("it does rain often, often", 3 / 4),  # distinct words of the answer
    "share of the prompt's words": ("It does, it does", 2 / 4),
}
ABSENT = {  # the same features where they are not
    "ends a sentence": "It is so",
    "ends with a question": "Does it? Yes",
    "starts with a mark": " It rains",
    "starts upper-case": "1 Éclair",
    "sorry": "sory",
    "as an AI": "an AI",
    "opens with assent": "Nobody knows",
}
ASKED = pl.Series([["why", "does", "it", "rain"]])


def feature(name: str, answer: str) -> float:
    return float(style(pl.Series([answer]), ASKED)[0, list(STYLE).index(name)])


def test_every_feature_has_an_answer_written_by_hand():
    assert list(BY_HAND) == list(STYLE)


@pytest.mark.parametrize(("name", "answer", "expected"), [(k, *v) for k, v in BY_HAND.items()], ids=list(BY_HAND))
def test_features_by_hand(name, answer, expected):
    assert feature(name, answer) == pytest.approx(expected, rel=1e-6)
    if name in ABSENT:
        assert feature(name, ABSENT[name]) == 0


def test_an_empty_answer_has_no_style_and_no_feature_is_undefined():
    found = style(pl.Series(["", " ", "?"]), pl.Series([[], ["a"], []], dtype=pl.List(pl.String)))
    assert not found[0].any() and np.isfinite(found).all()


def test_the_style_of_a_pair_is_chosen_less_rejected():
    (found,) = read_texts([table([("Why does it rain?", "a\nb\n\nc", "abcd ef!")])]).style
    by_name = dict(zip(STYLE, found, strict=True))
    assert by_name["lines"] == pytest.approx(log(3)) and by_name["exclamation marks"] == pytest.approx(-log(1))
    assert by_name["length"] == pytest.approx(log(6) - log(8), rel=1e-6)


text = st.text("ab A.1,*-\n!?`é", max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(text, text, text), min_size=1, max_size=5))
def test_swapping_answers_negates_their_style_and_exchanges_their_hashes(rows):
    given_, swapped = read_texts([table(rows)]), read_texts([table([(p, b, a) for p, a, b in rows])])
    np.testing.assert_array_equal(swapped.style, -given_.style)
    for one, other in (("prompt", "prompt"), ("chosen", "rejected"), ("rejected", "chosen")):
        np.testing.assert_array_equal(getattr(swapped, one), getattr(given_, other))


def test_the_same_texts_have_the_same_hashes_and_an_answer_to_another_prompt_another():
    found = read_texts([table([("p", "a", "b"), ("p", "b", "c"), ("q", "a", "b")])])
    assert found.prompt[0] == found.prompt[1] != found.prompt[2]
    assert found.rejected[0] == found.chosen[1]
    assert len({*found.chosen.tolist(), *found.rejected.tolist()}) == 5  # a b c of p, a b of q
    assert found.prompt.dtype == found.chosen.dtype == np.uint64 and found.style.dtype == np.float32


def test_all_messages_count_in_their_order():
    message = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

    def column(*contents):
        return pa.array([[{"role": "user", "content": c} for c in texts] for texts in contents], message)

    found = read_texts(
        [
            pa.table(
                {
                    "prompt": column(["be kind", "hi"], ["hi", "be kind"], ["be kindhi"], []),
                    "chosen": column(["Yes.", "No."], ["Yes."], ["Yes."], ["Yes."]),
                    "rejected": column([None], [""], [None], []),
                }
            )
        ]
    )
    assert len(set(found.prompt.tolist())) == 4
    assert found.style[0, 1] == pytest.approx(log(2)) and found.style[1, 1] == pytest.approx(log(1))
    assert np.isfinite(found.style).all()


def test_blocks_and_parts_are_joined_in_order(monkeypatch):
    rows = [(f"p{i // 2}", f"answer {i}", f"Answer {i}, {i}") for i in range(7)]
    whole = read_texts([table(rows)])
    monkeypatch.setattr(texts, "BLOCK", 2)
    parts = read_texts([table(rows[:3]), table([]), table(rows[3:])])
    for name in ("prompt", "chosen", "rejected", "style"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
    some = whole.take(np.array([4, 1]))
    assert some.chosen.tolist() == whole.chosen[[4, 1]].tolist() and (some.style == whole.style[[4, 1]]).all()


def test_no_pairs_give_empty_arrays():
    for found in (read_texts([]), read_texts([table([])])):
        assert len(found.prompt) == len(found.chosen) == len(found.rejected) == 0
        assert found.style.shape == (0, len(STYLE))
