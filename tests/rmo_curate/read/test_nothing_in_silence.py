"""What a reader could pass over without a word reaches the pair, or is a reject or an error that names it."""

from __future__ import annotations

import json

import pytest

from rmo_curate.export.formats import FORMATS, Shape, Trainer
from rmo_curate.read.sources import open_source
from rmo_train.console.errors import UserError
from tests.rmo_curate.read.published_forms import FORMS as PUBLISHED
from tests.rmo_curate.read.published_forms import LATER, PLAIN, a, s, u
from tests.rmo_curate.read.reading import jsonl, pairs, read, reasons

BARE = [form for form in PUBLISHED if form.means == PLAIN and not form.columns]


@pytest.mark.parametrize("form", BARE, ids=[form.whose for form in BARE])
def test_a_system_column_and_the_history_reach_the_prompt_in_every_form(tmp_path, form):
    more = {"system": "Be brief."} | ({} if "history" in form.record else {"history": [["hi", "hello"]]})
    _, (pair,) = read(jsonl(tmp_path / "a.jsonl", form.record | more))
    expected = [u("hi"), a("hello")] if "history" in more else []
    assert pair.prompt == [s("Be brief."), *expected, u("Q")]
    assert not {"system", "history"} & set(pair.extra)


@pytest.mark.parametrize("form", BARE, ids=[form.whose for form in BARE])
@pytest.mark.parametrize("more", [{"images": ["x.png"]}, {"audio": "x.wav"}, {"videos": [{"path": "x"}]}])
def test_what_is_seen_or_heard_makes_a_record_of_every_form_a_reject(tmp_path, form, more):
    with pytest.raises(UserError, match=f"unread_part: 1, .*it has {next(iter(more))}, which a pair of texts"):
        open_source([jsonl(tmp_path / "a.jsonl", form.record | more)])


@pytest.mark.parametrize("nothing", [None, [], "", "[]"])
def test_a_column_of_images_that_is_empty_says_nothing(tmp_path, nothing):
    record = {"prompt": "Q", "chosen": "yes", "rejected": "no"}
    assert reasons(read(jsonl(tmp_path / "a.jsonl", record | {"images": nothing}))[1]) == ["pair"]


@pytest.mark.parametrize("text", ["<image>Q", "<image>\nQ", "Q <image>", " <video> Q", "Q\n<audio>\n"])
def test_the_place_of_an_image_in_a_prompt_is_a_reject_and_a_word_in_a_text_is_not(tmp_path, text):
    answers = {"chosen": "yes", "rejected": "no"}
    path = jsonl(tmp_path / "a.jsonl", {"prompt": text, **answers}, {"prompt": "Is <image> a tag of SVG?", **answers})
    assert reasons(read(path)[1]) == ["unread_part", "pair"]


def test_earlier_turns_in_another_record_make_a_reject(tmp_path):
    record = {"instruction": "Q", "output": "yes", "rejected_response": "no"}
    path = jsonl(tmp_path / "a.jsonl", record | {"id": "1"}, record | {"id": "2", "parent_id": "1"})
    _, records = read(path)
    assert reasons(records) == ["pair", "unread_part"] and "in the record '1' (parent_id)" in records[1].detail
    oasst = {"prompt": "Q", "chosen": "yes", "rejected": "no", "parent_id": "m1"}  # the message that both answer
    assert reasons(read(jsonl(tmp_path / "b.jsonl", oasst))[1]) == ["pair"]


def test_a_history_that_the_prompt_has_too_is_not_put_before_it_again(tmp_path):
    record = {"prompt": [s("Be brief."), *LATER[0]], "chosen": LATER[1], "rejected": LATER[2]}
    _, (pair,) = read(jsonl(tmp_path / "a.jsonl", record | {"history": [["hi", "hello"]]}))
    assert pair.prompt == record["prompt"]
    _, (pair,) = read(jsonl(tmp_path / "b.jsonl", record | {"history": [["a", "b"]]}))
    assert pair.prompt == [s("Be brief."), u("a"), a("b"), *LATER[0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[INST] Q [/INST]", r"a chat template \(\[INST\]\)"),
        ("<s>[INST] Q [/INST]", r"a chat template \(\[INST\]\)"),
        ("<start_of_turn>user\nQ<end_of_turn>", r"a chat template \(<start_of_turn>\)"),
        ("<|user|>\nQ</s>\n<|assistant|>\n", r"a chat template \(<\|user\|>\)"),
        ("Q\n<|im_start|>assistant\n", r"ChatML's <\|im_start\|> inside a text"),
    ],
)
def test_a_prompt_in_a_template_that_is_not_split_is_refused(tmp_path, text, said):
    with pytest.raises(UserError, match=said):
        open_source([jsonl(tmp_path / "a.jsonl", {"prompt": text, "chosen": "yes", "rejected": "no"})])


@pytest.mark.parametrize("text", ["Human: a species?", "Compare:\n\nHuman: x\n\nAssistant: y", "a < b <|> c", "<html>"])
def test_a_text_that_only_looks_like_turns_stays_as_it_is(tmp_path, text):
    _, (pair,) = read(jsonl(tmp_path / "a.jsonl", {"prompt": text, "chosen": "yes", "rejected": "no"}))
    assert pair.prompt == [u(text)]


@pytest.mark.parametrize("answer", ["[1] is right\n\nHuman: no", " two words ", "<|x|>"])
def test_an_answer_to_a_plain_prompt_keeps_every_character(tmp_path, answer):
    _, (pair,) = read(jsonl(tmp_path / "a.jsonl", {"prompt": "Q", "chosen": answer, "rejected": "no"}))
    assert pair.chosen == [a(answer)]


@pytest.mark.parametrize("trainer", Trainer)
def test_what_we_export_for_another_trainer_is_read_back(tmp_path, trainer):
    prompt, chosen, rejected = LATER
    row = {"id": "x", "prompt": [s("Be brief."), *prompt], "chosen": chosen, "rejected": rejected, "tools": None,
           "chat_template_kwargs": None, "flags": [], "weight": 1.0, "label_confidence": 1.0, "prompt_ids": [1],
           "chosen_ids": [2], "rejected_ids": [3]}  # fmt: skip
    shape = Shape(
        tools=False, template_kwargs=None, margin=False, softness=0, references=False, end=None, sourced=False
    )
    written = json.loads(json.dumps(FORMATS[trainer].row(row, shape)))
    (pair,) = pairs(read(jsonl(tmp_path / "a.jsonl", written))[1])
    assert (pair.prompt, pair.chosen, pair.rejected) == (row["prompt"], chosen, rejected)
