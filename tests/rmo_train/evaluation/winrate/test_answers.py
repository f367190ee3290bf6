"""Two files of answers are paired by prompt; whatever does not fit together is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmo_train.console.errors import UserError
from rmo_train.evaluation.winrate.answers import pair, read_answers
from rmo_train.generation.prompts import read_prompts


def alpaca(path: Path, *answers: tuple[str, str]) -> Path:
    path.write_text(json.dumps([{"instruction": q, "output": a, "generator": path.stem} for q, a in answers]))
    return path


def lines(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_answers_are_paired_by_prompt_in_as_order_whatever_bs(tmp_path: Path):
    a = read_answers(alpaca(tmp_path / "a.json", ("x", "1"), ("y", "2"), ("x", "3")))
    b = read_answers(alpaca(tmp_path / "b.json", ("y", "5"), ("x", "4")))
    found = pair(a, b, None)
    assert [(p.key, p.question, p.a, p.b) for p in found] == [
        ("x", ("x",), (("1",), ("3",)), (("4",),)),
        ("y", ("y",), (("2",),), (("5",),)),
    ]
    assert (a.generator, b.generator) == ("a", "b")


def test_mt_benchs_questions_come_from_the_prompts(tmp_path: Path):
    choice = {"choices": [{"index": 0, "turns": ["one", "two"]}], "model_id": "m"}
    a = read_answers(lines(tmp_path / "a.jsonl", {"question_id": 81, **choice}))
    asked = read_prompts(lines(tmp_path / "q.jsonl", {"question_id": 81, "turns": ["first?", "second?"]}))
    assert pair(a, a, None)[0].question is None
    assert pair(a, a, asked)[0].question == ("first?", "second?")


def test_files_that_do_not_answer_the_same_prompts_are_refused(tmp_path: Path):
    a = read_answers(alpaca(tmp_path / "a.json", ("x", "1"), ("y", "2")))
    b = read_answers(alpaca(tmp_path / "b.json", ("x", "4")))
    for one, other in ((a, b), (b, a)):
        with pytest.raises(
            UserError, match=r"a.json answers 1 prompt that .*b.json does not; the first has `instruction` 'y'"
        ):
            pair(one, other, None)
    asked = read_prompts(lines(tmp_path / "p.jsonl", {"prompt": "y"}))
    with pytest.raises(UserError, match="1 prompt not found in --prompts; the first has `instruction` 'x'"):
        pair(a, a, asked)
    other_form = read_answers(lines(tmp_path / "c.jsonl", {"prompt": "x", "response": "1"}))
    with pytest.raises(UserError, match=r"a.json is in AlpacaEval's format, .*c.jsonl in IFEval's; expected the same"):
        pair(a, other_form, None)


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([{"prompt": "x"}], "line 1: fields prompt; expected an answer in the format of AlpacaEval"),
        (["x"], "line 1: fields str; expected an answer"),
        ([], "the file has no answers"),
        ([{"prompt": "x", "response": "1"}, {"instruction": "x", "output": "1"}], "line 2: not an answer in IFEval's"),
        ([{"prompt": "x", "response": "1"}] * 2, "line 2: a second record with `prompt` 'x'"),
        ([{"prompt": "x", "response": None}], "line 1: a question or an answer is not text"),
        ([{"uid": "1", "messages": []}], "line 1: damaged"),
        ([{"question_id": 1, "choices": []}], "line 1: a question or an answer is not text"),
        ([{"question_id": [1], "choices": [{"turns": ["x"]}]}], "line 1: damaged"),
    ],
)
def test_a_file_without_answers_is_refused_with_its_line(records: list, said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        read_answers(lines(tmp_path / "a.jsonl", *records))
