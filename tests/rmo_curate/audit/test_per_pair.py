"""What is told of each pair by itself: by hand, and the same by one process and by two."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from rmo_curate.audit import answers, per_pair
from rmo_curate.audit.per_pair import BOTH, CHOSEN, REJECTED
from rmo_curate.audit.preferences import preferences
from rmo_curate.audit.texts import Texts

ROWS = (
    ("How are you?", "I am sorry, but I can't help.", "Fine, thank you."),
    ("How  are YOU?", "Fine, thank you.", "fine,  thank you. And you?"),
    ("Как дела?", "Fine", "Хорошо"),
    ("Say it.", "It.", "It. "),
)


def texts_of(rows) -> Texts:
    texts = Texts()
    for i, row in enumerate(rows):
        texts.add(str(i), *([{"role": "user", "content": text}] for text in row))
    return texts


def test_each_pair_by_hand():
    told = per_pair.per_pair(texts_of(ROWS))
    has = dict(zip(answers.CHECKS, told.checks.T.tolist(), strict=True))
    assert has["refusal"] == [CHOSEN, 0, 0, 0] and has["repetitive"] == [0, 0, 0, 0]
    assert told.prefix.tolist() == [0, 0, 0, BOTH]
    assert told.other_script.tolist() == [0, 0, CHOSEN, 0]
    assert told.script.tolist() == ["Latin", "Latin", "Cyrillic", "Latin"]
    assert told.words.tolist() == [[3, 8, 3], [3, 3, 5], [2, 1, 1], [2, 1, 1]]
    keys = told.keys
    assert keys[0, 0] == keys[1, 0] and keys[0, 2] == keys[1, 1] and len(set(keys.ravel().tolist())) == 9
    assert (told.signatures <= told.prompt_signatures).all()


def test_the_shorter_answer_is_the_one_that_the_other_begins_with():
    assert per_pair.prefixes(["a", "ab", "a"], ["ab", "a", "b"]).tolist() == [CHOSEN, REJECTED, 0]


def test_the_same_text_answering_another_prompt_is_another_answer():
    keys = np.array([[1, 5, 6], [2, 5, 6], [1, 6, 5]], np.uint64)
    found = preferences(keys)
    assert found.prompt.tolist() == [0, 1, 0] and found.prompts == 2
    assert found.winner[0] == found.loser[2] and found.loser[0] == found.winner[2]
    assert len({*found.winner.tolist(), *found.loser.tolist()}) == 4
    assert keys.tolist() == [[1, 5, 6], [2, 5, 6], [1, 6, 5]]  # as they were given


def test_processes_tell_what_one_tells(monkeypatch):
    monkeypatch.setattr(per_pair, "BATCH", 7)
    texts = texts_of(ROWS * 6)
    one, two = per_pair.per_pair(texts, workers=1), per_pair.per_pair(texts, workers=2)
    for field in fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))


def test_no_pairs_give_nothing():
    assert per_pair.per_pair(Texts()).words.shape == (0, 3)
