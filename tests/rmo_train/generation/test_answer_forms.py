"""Answers come out as each benchmark's own code reads them, and what a form cannot hold is refused beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from rmo_train.console.errors import UserError
from rmo_train.evaluation.winrate.answers import read_answers
from rmo_train.generation.answer_forms import FORMS, Answer, AnswerForm, check_fits, recognised, write_answers
from rmo_train.generation.prompts import Prompt, read_prompts
from tests.command_line import train

QUESTIONS = {  # a prompt as each benchmark's own file has it
    "alpaca-eval": {"dataset": "koala", "instruction": "Hi", "output": "Ho", "generator": "text_davinci_003"},
    "arena-hard": {"uid": "2edb", "category": "hard_prompt", "subcategory": "coding", "prompt": "Hi"},
    "mt-bench": {"question_id": 81, "category": "writing", "turns": ["Hi", "And now shorter."]},
    "ifeval": {"key": 1000, "prompt": "Hi", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
}  # fmt: skip


def prompts(path: Path, *records: dict) -> list[Prompt]:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return read_prompts(path)


def written(path: Path, form: str, asked: list[Prompt], *answers: Answer) -> list[dict]:
    check_fits(form, asked, len(answers))
    write_answers(path, form, asked, [answers] * len(asked), "rmo")
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.rstrip("\n").split("\n")] if FORMS[form].lines else json.loads(text)


def test_the_flag_takes_every_form():
    assert get_args(AnswerForm) == ("auto", *FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_a_prompts_file_of_each_form_is_recognised(form: str, tmp_path: Path):
    assert recognised(prompts(tmp_path / "p.jsonl", QUESTIONS[form])) == form


def test_prompts_without_a_benchmarks_fields_have_no_form(tmp_path: Path):
    plain = [{"prompt": "Hi"}, {"messages": [{"role": "user", "content": "Hi"}]}]
    assert recognised(prompts(tmp_path / "p.jsonl", *plain)) is None


@pytest.mark.parametrize(
    "records",
    [
        [QUESTIONS["arena-hard"] | QUESTIONS["ifeval"]],  # one record that fits two forms
        [QUESTIONS["alpaca-eval"], QUESTIONS["mt-bench"]],
    ],
)
def test_prompts_of_two_forms_need_a_choice(records: list[dict], tmp_path: Path):
    with pytest.raises(UserError, match=r"several formats: .*line 1.*; choose .* with --to"):
        recognised(prompts(tmp_path / "p.jsonl", *records))


def test_alpaca_evals_form_by_hand(tmp_path: Path):
    asked = prompts(tmp_path / "p.jsonl", QUESTIONS["alpaca-eval"])
    one = {"instruction": "Hi", "output": "Hello", "generator": "rmo", "dataset": "koala"}
    assert written(tmp_path / "a.json", "alpaca-eval", asked, Answer(("Hello",))) == [one]
    several = written(tmp_path / "a.json", "alpaca-eval", asked, Answer(("Hello",)), Answer(("Hey",)))
    assert several == [one, one | {"output": "Hey"}]  # its join by instruction takes every record


def test_arena_hards_form_by_hand(tmp_path: Path):
    asked = prompts(tmp_path / "p.jsonl", QUESTIONS["arena-hard"])
    (record,) = written(tmp_path / "a.jsonl", "arena-hard", asked, Answer(("Hello",)))
    assert list(record) == ["uid", "ans_id", "model", "messages", "tstamp"]
    assert (record["uid"], record["model"]) == ("2edb", "rmo")
    assert record["messages"][-1]["content"]["answer"] == "Hello"  # where its gen_judgment.py looks
    assert record["messages"][0] == {"role": "user", "content": "Hi"}


def test_mt_benchs_form_by_hand(tmp_path: Path):
    asked = prompts(tmp_path / "p.jsonl", QUESTIONS["mt-bench"])
    answers = Answer(("Hello", "Hey")), Answer(("Good day", "Hi"))
    (record,) = written(tmp_path / "a.jsonl", "mt-bench", asked, *answers)
    assert list(record) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
    assert (record["question_id"], record["model_id"]) == (81, "rmo")
    assert record["choices"] == [
        {"index": 0, "turns": ["Hello", "Hey"]},
        {"index": 1, "turns": ["Good day", "Hi"]},
    ]


def test_ifevals_form_by_hand(tmp_path: Path):
    asked = prompts(tmp_path / "p.jsonl", QUESTIONS["ifeval"])
    assert written(tmp_path / "a.jsonl", "ifeval", asked, Answer(("Hello",))) == [{"prompt": "Hi", "response": "Hello"}]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_reads_back(form: str, tmp_path: Path):
    asked = prompts(tmp_path / "p.jsonl", QUESTIONS[form])
    turns = ("a\u2028b", "second\n") if FORMS[form].turns else ("a\u2028b",)
    written(tmp_path / "a.json", form, asked, Answer(turns))
    found = read_answers(tmp_path / "a.json")
    assert found.form == form and found.generator == ("a" if form == "ifeval" else "rmo")  # IFEval names no model
    assert found.answers == {FORMS[form].key_of(asked[0]): (turns,)}
    assert found.questions == {FORMS[form].key_of(asked[0]): None if form == "mt-bench" else ("Hi",)}


@pytest.mark.parametrize(
    ("form", "records", "samples", "said"),
    [
        ("arena-hard", [QUESTIONS["arena-hard"]], 2, "has one answer per prompt; expected --samples 1"),
        ("ifeval", [QUESTIONS["ifeval"]], 2, "has one answer per prompt; expected --samples 1"),
        ("arena-hard", [{"prompt": "Hi"}], 1, "line 1: no field `uid`"),
        ("mt-bench", [{"turns": ["Hi"]}], 1, "line 1: no field `question_id`"),
        ("alpaca-eval", [QUESTIONS["mt-bench"]], 1, "2 turns, but answers for AlpacaEval have one"),
        ("ifeval", [{"prompt": "Hi"}, {"prompt": "Hi"}], 1, r"line 2: the same `prompt` as .*line 1"),
        ("mt-bench", [QUESTIONS["mt-bench"]] * 2, 1, "line 2: the same `question_id` as"),
    ],
)  # fmt: skip
def test_what_a_form_cannot_hold_is_refused(form: str, records: list[dict], samples: int, said: str, tmp_path: Path):
    with pytest.raises(UserError, match=said):
        check_fits(form, prompts(tmp_path / "p.jsonl", *records), samples)


def test_turns_that_are_no_texts_are_refused(tmp_path: Path):
    for turns in ([{"content": "Hi"}], [], ["Hi", " "]):  # the first is Arena-Hard v0.1's
        with pytest.raises(UserError, match=r"line 1: the turns are .*expected a list of texts"):
            prompts(tmp_path / "p.jsonl", {"question_id": 1, "turns": turns})


# ---------------------------------------------------------------------------------------------------- the command


def generated(folder: Path, model: Path, record: dict, *flags: object) -> tuple[object, list[dict]]:
    (folder / "p.jsonl").write_text(json.dumps(record) + "\n")
    out = folder / "a.jsonl"
    done = train("generate", folder / "p.jsonl", "--model", model, "--out", out, "--max-new-tokens", 6,
                 "--dtype", "float32", "--overwrite", *flags)  # fmt: skip
    return done, [json.loads(line) for line in out.read_text().splitlines()] if done.code == 0 else []


def test_the_second_turn_is_answered_after_the_models_own_first_answer(tiny_model_folder, tmp_path: Path):
    """The second answer is that to a conversation given as messages, with the first answer in it."""
    done, (record,) = generated(tmp_path, tiny_model_folder, QUESTIONS["mt-bench"])
    assert "writing answers in MT-Bench's format: the prompts have `question_id` and `turns`" in done.err
    first, second = record["choices"][0]["turns"]
    talk = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And now shorter."},
    ]
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "p.jsonl").write_text(json.dumps({"messages": talk}) + "\n")
    out = tmp_path / "talk" / "a.json"
    train("generate", tmp_path / "talk" / "p.jsonl", "--model", tiny_model_folder, "--out", out, "--max-new-tokens", 6,
          "--dtype", "float32")  # fmt: skip
    assert json.loads(out.read_text())[0]["output"] == second


def test_samples_are_drawn_each_for_itself(tiny_model_folder, tmp_path: Path):
    drawn = ("--temperature", 1.5, "--batch-size", 2)
    _, (three,) = generated(tmp_path, tiny_model_folder, QUESTIONS["mt-bench"], "--samples", 3, *drawn)
    _, (two,) = generated(tmp_path, tiny_model_folder, QUESTIONS["mt-bench"], "--samples", 2, *drawn)
    turns = [tuple(c["turns"]) for c in three["choices"]]
    assert len(set(turns)) == 3
    assert [tuple(c["turns"]) for c in two["choices"]] == turns[:2]  # a sample does not depend on how many there are


def test_mistakes_are_said_before_the_model_is_loaded(tmp_path: Path):
    nowhere = tmp_path / "no-model"
    done, _ = generated(tmp_path, nowhere, QUESTIONS["mt-bench"], "--samples", 2)
    assert done.refused("--samples 2: at --temperature 0 all answers to a prompt are the same")
    done, _ = generated(tmp_path, nowhere, QUESTIONS["ifeval"], "--samples", 2, "--temperature", 1)
    assert done.refused("IFEval looks up answers by `prompt`")
    done, _ = generated(tmp_path, nowhere, QUESTIONS["arena-hard"] | QUESTIONS["ifeval"])
    assert done.refused("the prompts fit several formats: arena-hard")
    done, _ = generated(tmp_path, nowhere, QUESTIONS["ifeval"], "--to", "alpaca")
    assert done.refused("'alpaca' is not one of")


def test_room_for_all_turns_is_checked_before_the_model_is_loaded(tmp_path: Path):
    from tests.tiny import write_tiny_model

    short = write_tiny_model(tmp_path / "short", context=60)
    (short / "model.safetensors").write_text("not read")
    done, _ = generated(tmp_path, short, QUESTIONS["mt-bench"], "--max-new-tokens", 20)
    assert done.refused("line 1: ", "and 2 answers of up to 20 exceed the context", "give --max-new-tokens")
