"""Constraints checked by a program: each kind by hand, what is damaged refused, shares and win rate worked out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nltk
import pytest

from rmo_train.console.errors import UserError
from rmo_train.evaluation.winrate.checkers import NEED_PUNKT, Checkers, Met
from rmo_train.evaluation.winrate.results import as_json, from_json
from rmo_train.generation.prompts import Prompt, read_prompts
from tests.command_line import train

KINDS = {  # arguments, an answer that meets the constraint, one that does not
    "keywords:existence": ({"keywords": ["fox"]}, "The fox ran.", "The dog ran."),
    "keywords:frequency": ({"keyword": "fox", "frequency": 2, "relation": "at least"}, "Fox, fox.", "One fox."),
    "keywords:forbidden_words": ({"forbidden_words": ["fox"]}, "The dog ran.", "The fox ran."),
    "keywords:letter_frequency": ({"letter": "z", "let_frequency": 2, "let_relation": "less than"}, "Zoo", "Zizz"),
    "language:response_language": (
        {"language": "de"},
        "Das ist ein langer deutscher Satz über den Wald und seine Tiere.",
        "This is a long English sentence about the forest and its animals.",
    ),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "One.\n***\nTwo.", "One.\n\nTwo."),
    "length_constraints:number_words": ({"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"}, "First.\n\nThen so.", "First.\n\nSo.",
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[name] at [place]", "[name]"),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Dear.\nP.S. Bye", "Dear. Bye"),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n* b", "* a"),
    "detectable_format:constrained_response": ({}, "My answer is yes.", "Yes."),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 1}, "so *much* so", "so much"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Part", "num_sections": 2}, "Part 1\na\nPart 2\nb", "Part 1\na",
    ),
    "detectable_format:json_format": ({}, '{"a": 1}', "{a: 1}"),
    "detectable_format:title": ({}, "<<Foxes>>\nThey run.", "Foxes"),
    "combination:two_responses": ({}, "This\n******\nThat", "This"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say hi."}, "Say hi. Hi.", "Hi."),
    "startend:end_checker": ({"end_phrase": "The end."}, "So it was. The end.", "So it was."),
    "startend:quotation": ({}, '"So it was."', "So it was."),
    "change_case:english_capital": ({}, "THIS IS LOUD AND ENGLISH", "This is not loud"),
    "change_case:english_lowercase": ({}, "this is quiet and english", "This is not quiet"),
    "punctuation:no_comma": ({}, "No pause here.", "A pause, here."),
    "length_constraints:number_sentences": ({"num_sentences": 2, "relation": "less than"}, "Only one.", "One. Two."),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 2, "capital_relation": "at least"}, "So LOUD it WAS", "So LOUD it was",
    ),
}  # fmt: skip


def asked(*kinds: str, prompt: str = "Say hi.", **replaced: object) -> Prompt:
    record = {"prompt": prompt, "instruction_id_list": list(kinds), "kwargs": [KINDS[k][0] for k in kinds]} | replaced
    return Prompt("p.jsonl, line 1", ({"role": "user", "content": prompt},), record=record)


@pytest.fixture
def punkt(tmp_path: Path, monkeypatch) -> None:
    """NLTK's sentence model without what it learned from texts: enough for plain sentences."""
    folder = tmp_path / "nltk_data" / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (folder / name).write_text("")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_constraint_by_hand(kind: str, punkt):
    prompt = asked(kind)
    checkers = Checkers([prompt])
    _, good, bad = KINDS[kind]
    assert checkers.met(prompt, good).strict == (True,)
    assert checkers.met(prompt, bad).strict == (False,)


def test_every_kind_of_the_library_is_tested_here():
    assert set(Checkers([]).known) == set(KINDS)


def test_strict_and_loose_by_hand():
    prompt = asked("change_case:english_lowercase", "punctuation:no_comma")
    checkers = Checkers([prompt])
    assert checkers.met(prompt, "Sure, here it is:\nall of this is quiet") == Met((False, False), (True, True))
    assert checkers.met(prompt, "") == Met((False, False), (False, False))


def test_without_nltks_model_the_two_kinds_that_need_it_are_refused_and_no_other(monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    Checkers([asked(*(k for k in KINDS if k not in NEED_PUNKT))])
    for kind in NEED_PUNKT:
        with pytest.raises(UserError, match=rf"line 1: the checker of {kind} needs .*nltk.downloader punkt_tab"):
            Checkers([asked(kind)])


@pytest.mark.parametrize(
    ("replaced", "said"),
    [
        (
            {"instruction_id_list": ["count:words"]},
            "no checker for the constraint 'count:words'; expected one of IFEval's",
        ),
        ({"kwargs": [{}]}, r"the constraint keywords:frequency has no keyword, frequency, relation in its `kwargs`"),
        ({"kwargs": [{"keyword": "a", "frequency": 1, "relation": "about"}]}, "do not fit the constraint"),
        ({"kwargs": [{"word": "a"}]}, "do not fit the constraint"),
        ({"kwargs": []}, "expected an object for each of 1 constraints"),
        ({"kwargs": None}, "expected an object for each of 1 constraints"),
        ({"instruction_id_list": []}, "no constraints; expected `instruction_id_list`"),
    ],
)
def test_damaged_constraints_are_refused_before_anything_is_checked(replaced: dict, said: str):
    with pytest.raises(UserError, match=f"p.jsonl, line 1: .*{said}"):
        Checkers([asked("keywords:frequency", **replaced)])


def test_the_extra_is_named_where_it_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "if_verifiable.ifeval.instructions_registry", None)
    with pytest.raises(UserError, match=r"need .*not installed: `pip install 'if-verifiable>=.* 'httpx2"):
        Checkers([])


# ---------------------------------------------------------------------------------------------------- the command


def files(folder: Path, a: list[list[str]], b: list[list[str]]) -> tuple[Path, Path, Path]:
    """Prompts that want no comma, and both models' answers in AlpacaEval's form."""
    prompts = [f"Prompt {i}" for i in range(len(a))]
    (folder / "p.jsonl").write_text(
        "".join(
            json.dumps({"key": i, "prompt": p, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}) + "\n"
            for i, p in enumerate(prompts)
        )
    )
    for name, answers in (("a", a), ("b", b)):
        records = [
            {"instruction": p, "output": text, "generator": f"model-{name}"}
            for p, of in zip(prompts, answers, strict=True)
            for text in of
        ]
        (folder / f"{name}.json").write_text(json.dumps(records))
    return folder / "a.json", folder / "b.json", folder / "p.jsonl"


def test_shares_and_win_rate_by_hand(tmp_path: Path):
    """Prompt 0: A meets it twice of two, B never, but loosely: 1, and 0.5. Prompt 1: A once of two, B always: in both
    ways (1 + 0.5 - 1) / 2 = 0.25."""
    a, b, prompts = files(tmp_path, [["yes", "yes"], ["yes", "no, not"]], [["Sure, so:\nyes"], ["yes"]])
    done = train("winrate", a, b, "--prompts", prompts, "--out", tmp_path / "o.json")
    assert done.code == 0, done
    stored = json.loads((tmp_path / "o.json").read_text())
    rates = from_json(stored)
    assert json.loads(json.dumps(as_json(rates))) == stored  # it reads back whole
    assert (rates.a, rates.b, rates.prompts) == ("model-a", "model-b", 2)
    assert (rates.strict_a.value, rates.strict_b.value, rates.win_rate.value) == (0.75, 0.5, 0.625)
    assert (rates.loose_a.value, rates.loose_b.value, rates.loose_win_rate.value) == (0.75, 1.0, 0.375)
    assert [one["win"] for one in rates.by_prompt] == [1.0, 0.25]
    assert rates.by_prompt[1]["a"] == [{"strict": [True], "loose": [True]}, {"strict": [False], "loose": [False]}]
    assert "2 prompts; 95% intervals" in done.out
    assert f"win rate of A, strict       {rates.win_rate}   ties count one half: too few to tell" in done.out
    assert len(done.out.splitlines()) <= 24


def test_swapping_the_files_gives_one_less_the_rate_and_equal_files_one_half(tmp_path: Path):
    a, b, prompts = files(tmp_path, [["yes"]] * 5 + [["no, not"]], [["no, not"]] * 4 + [["yes"]] * 2)
    rate = {}
    for name, pair in {"ab": (a, b), "ba": (b, a), "aa": (a, a)}.items():
        train("winrate", *pair, "--prompts", prompts, "--out", tmp_path / "o.json")
        rate[name] = from_json(json.loads((tmp_path / "o.json").read_text())).win_rate
    assert rate["ab"].value == pytest.approx(1 - rate["ba"].value)
    assert rate["aa"].value == 0.5 and rate["aa"].low + rate["aa"].high == pytest.approx(1)


def test_prompts_without_answers_are_left_out_and_said(tmp_path: Path):
    a, b, prompts = files(tmp_path, [["yes"]], [["no, not"]])
    more = {"prompt": "another", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    prompts.write_text(prompts.read_text() + json.dumps(more))
    done = train("winrate", a, b, "--prompts", prompts)
    assert done.code == 0 and "1 of 2 prompts" in done.err


def test_mistakes_of_the_command_line(tmp_path: Path):
    a, b, prompts = files(tmp_path, [["yes"]], [["no, not"]])
    assert train("winrate", a, b).refused("--prompts FILE", "--judge URL --judge-model NAME")
    assert train("winrate", a, tmp_path / "c.json", "--prompts", prompts).refused("c.json: no such file")
    assert train("winrate", a, b, "--prompts", prompts, "--out", a).refused("one of the input files")
    assert train("winrate", a, b, "--prompts", prompts, "--out", tmp_path).refused("a folder")
    assert train("winrate", a, b, "--judge", "http://localhost:1/v1", "--judge-model", "m").refused("needs --out")
    out = ("--out", tmp_path / "o.json")
    assert train("winrate", a, b, *out, "--judge-model", "m").refused("--judge-model also needs --judge")
    assert train("winrate", a, b, *out, "--judge", "localhost:1", "--judge-model", "m").refused("not a URL")
    (tmp_path / "plain.jsonl").write_text(json.dumps({"prompt": "Prompt 0"}))
    assert train("winrate", a, b, "--prompts", tmp_path / "plain.jsonl").refused("line 1: no constraints", "--judge")
    assert read_prompts(prompts)[0].record["kwargs"] == [{}]
