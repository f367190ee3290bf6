"""`rmo-curate inspect`: what it says of data, and that nothing in the data reaches the terminal as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmo_curate.read.sources import open_source
from rmo_curate.score import inspection
from rmo_curate.score.inspection import MEANING, inspect_source, inspection_lines, visible
from rmo_train.data.rendering import RENDERING_FLAGS, Renderer
from tests.command_line import curate
from tests.rmo_curate.scored import record, write_jsonl
from tests.tiny import TEMPLATE, make_tokenizer


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch) -> Path:
    """Every test has its own, without a recipe."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problem(out: str, kind: str) -> str:
    """The line of one kind of problem."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"  {kind}: ")]
    return line


MIXED = [
    record(0),
    record(1, chosen="Yes", rejected="Yes, and more"),  # line 2
    '{"prompt": "cut',  # 3
    record(3, rejected=" "),
    record(0),  # 5: the same as line 1
    record(5, chosen="long " * 300),
    record(6, rejected="good"),  # 7: the rejected answer begins the chosen one
]


def test_it_says_what_was_detected_and_each_problem_with_its_first_place(working_folder):
    write_jsonl(working_folder / "pairs.jsonl", [{**r, "source": "x"} if isinstance(r, dict) else r for r in MIXED])
    said = curate("inspect", "pairs.jsonl")
    assert said.code == 0
    assert "pairs.jsonl (" in said.out and "form trl-standard" in said.out and "source (string)" in said.out
    assert "7 records = 4 pairs + 3 rejects" in said.out
    assert "1, the first at pairs.jsonl:3: not JSON" in problem(said.out, "broken_line")
    assert "1, the first at pairs.jsonl:4: rejected is empty" in problem(said.out, "empty_response")
    assert "1, the first at pairs.jsonl:5: the same prompt" in problem(said.out, "duplicate")
    begins = problem(said.out, "one_answer_begins_the_other")
    assert "2, the first at pairs.jsonl:2: the rejected response begins with the whole other response" in begins


def test_samples_are_the_first_the_middle_and_the_last_pair(working_folder):
    write_jsonl(working_folder / "pairs.jsonl", [record(i) for i in range(9)])
    said = curate("inspect", "pairs.jsonl").out
    assert re.findall(r"sample \d of 3: pairs\.jsonl:(\d)", said) == ["1", "5", "9"]
    assert "user: question 4?" in said and "assistant: good answer 4" in said
    assert curate("inspect", "pairs.jsonl", "--limit", 2).out.count("sample ") == 2


def test_a_model_shows_tokens_the_boundary_and_the_end_of_turn(working_folder, tiny_model_folder, tiny_tokenizer):
    write_jsonl(working_folder / "pairs.jsonl", MIXED)
    said = curate("inspect", "pairs.jsonl", "--model", tiny_model_folder, "--max-length", 100).out
    renderer = Renderer(tiny_tokenizer)
    ids = renderer.render_prompt([{"role": "user", "content": "question 0?"}])
    assert f"prompt, {len(ids)} tokens [{ids[0]} {ids[1]} {ids[2]} {ids[3]} … " in said
    assert "<|im_start|>user⏎question 0?<|im_end|>⏎<|im_start|>assistant⏎‖\n" in said
    assert "‖good answer 0<|im_end|>\n" in said
    assert "ends with '<|im_end|>'" in said
    (pair,) = [p for p in open_source(["pairs.jsonl"]).records() if p.line == 6]
    long = renderer.render(pair.prompt, pair.chosen, pair.rejected)
    tokens = len(long.prompt_ids) + len(long.chosen_ids)
    assert f"1, the first at pairs.jsonl:6: {tokens} tokens" in problem(said, "too_long")
    assert pair.id in problem(said, "too_long")


def test_flags_of_the_rendering_are_listed_with_ids(working_folder):
    assert set(MEANING) == set(RENDERING_FLAGS)
    rewriting = TEMPLATE.replace("{{ m.content }}", "{% if loop.last %}!{% endif %}{{ m.content | replace('z', '') }}")
    write_jsonl(working_folder / "pairs.jsonl", [record(i, id=f"q{i}") for i in range(4)] + [record(4, chosen="zoo")])
    found = inspect_source(open_source(["pairs.jsonl"]), Renderer(make_tokenizer(template=rewriting)), 1000)
    assert found.problems["template_rewrites_history"].count == found.problems["boundary_mismatch"].count == 5
    assert found.problems["template_rewrites_history"].ids == ["q0", "q1", "q2"]
    assert found.problems["template_rewrites_response"].count == 1
    assert found.problems["template_rewrites_response"].first == "pairs.jsonl:5"


def test_pairs_that_only_the_template_refuses_or_makes_alike_are_found(working_folder):
    rewriting = "{% if 'never' in messages[0].content %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE.replace(
        "{{ m.content }}", "{{ m.content | trim }}"
    )
    rows = [record(0), record(1, prompt="never"), record(0, chosen=" good answer 0"), record(2, chosen=" bad 2")]
    write_jsonl(working_folder / "pairs.jsonl", rows)
    found = inspect_source(open_source(["pairs.jsonl"]), Renderer(make_tokenizer(template=rewriting)), 1000)
    assert {kind: p.count for kind, p in found.problems.items()} == {"refused_by_the_template": 2, "same_tokens": 1}
    assert found.problems["same_tokens"].first == "pairs.jsonl:3"
    shown = "\n".join(inspection_lines(found, None))
    assert "refused_by_the_template: 2, the first at pairs.jsonl:2" in shown


def test_the_report_fits_on_a_screen_whatever_the_data(working_folder, tiny_model_folder):
    for i in range(20):
        rows = [record(100 * i + k, prompt="Why?\n" * 200 + f"{i} {k}", **{f"column{i}": 1}) for k in range(3)]
        write_jsonl(working_folder / f"part{i:02d}.jsonl", [*rows, '{"prompt": "cut', record(-1), "[1]"])
    said = curate("inspect", ".", "--model", tiny_model_folder, "--max-length", 40).out
    assert len(said.splitlines()) <= 60 and "part06.jsonl (" not in said
    assert max(map(len, said.splitlines())) <= 600


def test_nothing_in_the_data_steers_the_terminal(working_folder, tiny_model_folder):
    evil = "\x1b[2J\x1b]0;title\x07\u202e\u200b\x9b31m\r\n"
    rows = [record(0, prompt=f"a{evil}b", **{f"column{evil}": evil}), record(1, id=f"id{evil}"), record(2)]
    rows += [record(3, chosen=[{"role": evil, "content": ""}]), f'{{"prompt": "{evil}']
    write_jsonl(working_folder / "pairs.jsonl", rows)
    for more in ([], ["--model", tiny_model_folder]):
        said = curate("inspect", "pairs.jsonl", *more).out
        assert all(c.isprintable() or c == "\n" for c in said)
        assert r"a\x1b[2J" in said and r"\u202e\u200b\x9b31m⏎b" in said


@given(st.text())
def test_visible_text_is_printable_and_shown_once(text):
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    assert shown == text or not text.isprintable()


def test_the_recipe_gives_data_and_model(working_folder, tiny_model_folder):
    write_jsonl(working_folder / "pairs.jsonl", [record(i) for i in range(3)])
    (working_folder / "rmo.yaml").write_text(
        f"data: {{train: pairs.jsonl}}\nscore: {{model: {tiny_model_folder}, max_length: 64, out: run}}\n"
    )
    assert f"model {tiny_model_folder}; max length 64 tokens per pair (as asked)" in curate("inspect").out


def test_mistakes_are_those_of_score(working_folder, tiny_model_folder):
    write_jsonl(working_folder / "pairs.jsonl", [record(0)])
    assert curate("inspect").refused("DATA is missing")
    assert curate("inspect", "nothing.jsonl").refused("nothing.jsonl")
    assert curate("inspect", "pairs.jsonl", "--limit", 0).refused("--limit")
    long = curate("inspect", "pairs.jsonl", "--model", tiny_model_folder, "--max-length", 99999)
    assert long.refused("the context of")


def test_status_names_flagged_pairs(working_folder, tiny_model_folder):
    from tests.rmo_curate.scored import score

    data = write_jsonl(
        working_folder / "pairs.jsonl", [record(0), *(record(i, id=f"q{i}", chosen="long " * 60) for i in range(1, 8))]
    )
    score(data, tiny_model_folder, working_folder / "run", max_length=80)
    said = curate("status", "run").out
    assert "too_long: 7 (q1, q2, q3, q4, q5, …)" in said
    assert inspection.TOO_LONG in said
