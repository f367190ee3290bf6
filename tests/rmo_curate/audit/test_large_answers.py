"""Long answers: time and memory in proportion to the text, whatever is in it."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from rmo_curate.audit import answers
from rmo_curate.audit import per_pair as per_pair_module
from rmo_curate.audit import texts as audit_texts
from rmo_curate.audit.listing import Strings
from rmo_curate.audit.per_pair import batches as per_pair_batches
from rmo_curate.audit.per_pair import per_pair
from rmo_curate.audit.texts import LONG, Packed, Texts, joined
from rmo_curate.evidence import texts as evidence
from rmo_curate.read import pair_rendering
from rmo_curate.read.messages import RejectReason, assistant, user
from rmo_curate.read.pair_rendering import BATCH, batches
from rmo_curate.read.sources import Reject, open_source
from rmo_curate.score import cost
from rmo_train.data.rendering import Renderer
from tests.rmo_curate.scored import record, write_jsonl

SIZE = 400_000
HARD = {
    "blank lines": "a" + "\n" * SIZE + "b",
    "blanks": "a" + " " * SIZE + "b",
    "lines, each twice": "\n".join(2 * [f"{i:>30} is a line" for i in range(SIZE // 80)]),
    "number signs": "a" + "#" * SIZE,
    "marks of quotation": "'- \" " * (SIZE // 5),
    "one word": "a" * SIZE,
    "as a": "as a " * (SIZE // 5),
    "angles": "<|" * (SIZE // 2),
}


@pytest.mark.parametrize("text", HARD.values(), ids=HARD)
@pytest.mark.parametrize("check", answers.CHECKS.values(), ids=answers.CHECKS)
def test_no_check_takes_long_on_a_text_that_is_made_for_it(check, text):
    began = time.process_time()
    check(text)
    assert time.process_time() - began < 2  # what looks at every place from every other takes a minute or more


def test_a_line_that_comes_again_is_found_and_counted_among_many():
    lines = [f"line number {i} of them all" for i in range(200)]
    found = answers.repetitive("\n".join([*lines, *4 * ["the line that comes again"], *3 * ["another one that does"]]))
    assert found == "repeats the line “the line that comes again” 4 times"


def test_fences_of_code_are_counted_over_blank_lines():
    assert answers.truncated("text\n\n\n   ```python\ncode") == "opens a code block that it does not close"
    assert answers.truncated("text\n\n ```python\ncode\n\n```\n\nend.") == ""


def test_wide_texts_are_held_as_bytes_and_come_back_as_they_were():
    wide = "\U0001f600" + "a" * LONG + "\udcff"
    texts = Texts()
    turns = [user("first"), assistant(wide), user("a" * LONG)]
    texts.add("p", turns, [assistant(wide)], [assistant("no")])
    assert isinstance(texts.chosen_messages.values[0], Packed)
    held = sum(map(sys.getsizeof, texts.chosen_messages.values[0].contents))
    assert held < sys.getsizeof(wide) / 3
    assert texts.prompt_messages[0] == turns and texts.chosen_messages[0] == [assistant(wide)]
    assert texts.prompt[0] == joined(turns) and list(texts.chosen) == [wide] and list(texts.rejected) == ["no"]


def test_pairs_with_wide_texts_are_checked_as_others_are(monkeypatch):
    texts, plain = Texts(), Texts()
    for i in range(6):
        chosen = "é" * LONG if i % 2 else "Short."
        texts.add(f"p{i}", [user(f"question {i}?")], [assistant(chosen)], [assistant("I cannot help with that.")])
    monkeypatch.setattr(audit_texts, "LONG", sys.maxsize)
    for i in range(6):
        messages = texts.prompt_messages[i], texts.chosen_messages[i], texts.rejected_messages[i]
        plain.add(texts.ids[i], *messages)
    assert texts.chosen[1:3] == plain.chosen[1:3] == ["é" * LONG, "Short."]
    packed = per_pair(texts)
    for name, value in vars(per_pair(plain)).items():
        np.testing.assert_array_equal(getattr(packed, name), value)
    assert [len(batch[0]) for batch in per_pair_batches(texts)] == [6]
    monkeypatch.setattr(per_pair_module, "BATCH_CHARACTERS", LONG)
    assert [len(batch[0]) for batch in per_pair_batches(texts)] == [2, 2, 2]


def test_the_page_holds_no_more_of_a_text_than_it_shows():
    strings = Strings(10)
    assert strings.number("a" * 5000) == strings.number("a" * 5000) == 0
    assert strings.number("a" * 5001) == 1  # another number of characters left out
    assert strings.shown == [["a" * 10, 4990], ["a" * 10, 4991]]
    assert all(len(shown) == 10 for shown, _ in strings.numbers)


# ---------------------------------------------------------------------------------------------------- evidence


def texts_of(*answered: str) -> evidence.Texts:
    return evidence.texts_of([[user("?")]] * len(answered), [[assistant(a)] for a in answered], [[assistant("no")]] * 3)


def test_long_answers_are_equal_where_they_are(monkeypatch):
    long = "word " * 20_000
    read = texts_of(long, long + "x", long)
    assert read.chosen[0] == read.chosen[2] != read.chosen[1]
    monkeypatch.setattr(evidence, "BLOCK_CHARACTERS", 1)  # each pair by itself
    alone = texts_of(long, long + "x", long)
    for name in ("prompt", "chosen", "rejected", "style"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(read, name))


def test_short_texts_keep_the_hash_they_had():
    """Folds are drawn by it."""
    import polars as pl
    import pyarrow as pa

    from rmo_train.store.id_hash import hash64

    texts = ["", "a", "b" * evidence.LONG, "ü"]
    assert evidence._hash(pl.Series(texts)).tolist() == hash64(pa.array(texts)).tolist()


# ---------------------------------------------------------------------------------------------------- rendering


def reject(size: int) -> Reject:
    return Reject("f", 1, RejectReason.BROKEN_LINE, "", "x" * size)


def test_records_are_rendered_together_up_to_a_number_and_a_size(monkeypatch):
    monkeypatch.setattr(pair_rendering, "BATCH_CHARACTERS", 1000)
    records = [*[reject(1)] * (BATCH + 3), *[reject(600)] * 5, reject(5000), reject(1)]
    made = list(batches(records))
    assert [r for batch in made for r in batch] == records
    assert [len(batch) for batch in made] == [BATCH, 5, 2, 2, 1]


def test_a_dry_run_renders_no_more_than_it_needs(tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(cost, "SAMPLE_CHARACTERS", 1000)
    monkeypatch.setattr(pair_rendering, "BATCH_CHARACTERS", 300)
    data = write_jsonl(tmp_path / "a.jsonl", [record(i, chosen=f"{i} " * 100) for i in range(50)])
    sample = cost.rendered_sample(open_source([str(data)]), Renderer(tiny_tokenizer))
    assert 3 <= len(sample) < 10 and all(one is not None and one.longest > 100 for one in sample)
