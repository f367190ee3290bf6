"""The form of a source is told from its records, and what stands beside the pairs is kept."""

import json

import pyarrow as pa
import pytest

from rmo_curate.read.sources import open_source
from rmo_train.console.errors import UserError
from rmo_train.store.files import canonical_json
from tests.rmo_curate.read.reading import jsonl, pairs, read, reasons
from tests.rmo_curate.scored import record


def test_the_form_of_most_records_wins_and_the_others_are_rejects(tmp_path):
    turns = [{"role": "assistant", "content": "x"}], [{"role": "assistant", "content": "y"}]
    other = {"prompt": [{"role": "user", "content": "q"}], "chosen": turns[0], "rejected": turns[1]}
    source, records = read(jsonl(tmp_path / "a.jsonl", other, record(0), record(1)))
    assert source.form.name == "trl-standard"
    assert source.said == (
        "form trl-standard in 2 of the first 3 records: prompt, chosen and rejected are text "
        "(other forms, to be rejected: 1 of trl-conversational)"
    )
    assert reasons(records) == ["other_form", "pair", "pair"]


def test_bad_records_before_the_good_ones_do_not_hide_the_form(tmp_path):
    _, records = read(
        jsonl(tmp_path / "a.jsonl", *[{"x": 1}] * 150, *[b"broken"] * 150, *(record(n) for n in range(50)))
    )
    assert len(records) == 350
    assert len(pairs(records)) == 50


def test_a_misspelt_column_names_the_columns_found_and_the_nearest(tmp_path):
    rows = [{"prompt": f"q{n}", "choosen": "c", "rejected": "r"} for n in range(99)]
    with pytest.raises(UserError, match=r"no column 'chosen'.*prompt, choosen, rejected; did you mean 'choosen'"):
        open_source([jsonl(tmp_path / "a.jsonl", *rows)])
    with pytest.raises(UserError, match=r"no 'chosen' in 99 of 100 records.*did you mean 'choosen'"):
        open_source([jsonl(tmp_path / "a.jsonl", *rows, record(0))])


def test_texts_without_a_prompt_or_turns_are_the_users_error(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"kind": 1, "chosen": "Yes, a", "rejected": "Yes, b"})
    with pytest.raises(UserError, match=r"it is unknown where the prompt ends; the columns are kind, chosen, rejected"):
        open_source([path])


def test_the_command_that_would_read_the_data_is_printed(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"promt": "q", "chosen": "Yes, a", "rejected": "Yes, b"})
    with pytest.raises(UserError, match=rf"rmo-curate inspect {path} --map prompt=promt$"):
        open_source([path])


def test_answers_inside_objects_are_proposed_and_who_speaks_is_not(tmp_path):
    inside = {"question": "q", "chosen": {"text": "c", "model": "a"}, "rejected": {"text": "r", "model": "b"}}
    path = jsonl(tmp_path / "a.jsonl", inside)
    with pytest.raises(UserError, match=rf"inspect {path} --map chosen=chosen.text --map rejected=rejected.text$"):
        open_source([path])
    said = {name: {"from": "gpt", "value": name} for name in ("chosen", "rejected")}
    path = jsonl(tmp_path / "b.jsonl", {"conversations": [{"from": "human", "value": "q"}], **said})
    with pytest.raises(UserError, match=r"no column 'nope'.*(?s:.*)--map chosen=chosen.value$"):
        open_source([path], columns={"chosen": "nope"})


def test_an_unknown_form_is_described_beside_the_known_ones(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "q", "chosen": {"from": "gpt"}, "rejected": {"from": "gpt"}})
    with pytest.raises(UserError, match=r"(?s)chosen is an object \(keys: 'from'\).*trl-standard: .*hh-rlhf: "):
        open_source([path])


def test_records_that_are_all_bad_are_an_error_that_says_the_reasons(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", record(0, chosen=""), record(1, chosen="bad 1"), record(2, rejected=""))
    said = (
        r"(?s)not one usable pair in 3 .*empty_response: 2, the first at .*a.jsonl:1: .*identical_responses: 1, .*:2: "
    )
    with pytest.raises(UserError, match=said):
        open_source([path])


def test_columns_of_other_names_are_read_as_told(tmp_path):
    rows = [{"question": f"q{n}", "good": "c", "bad": "r", "prompt": "unused", "key": n} for n in range(2)]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    names = {"prompt": "question", "chosen": "good", "rejected": "bad", "id": "key"}
    _, records = read(path, columns=names)
    assert [(p.id, p.prompt[0]["content"], p.extra) for p in pairs(records)] == [
        ("0", "q0", {"source_prompt": "unused"}),
        ("1", "q1", {"source_prompt": "unused"}),
    ]
    with pytest.raises(UserError, match=r"a\.jsonl: no column 'kye', which was given as the id.*'key'"):
        open_source([path], columns=names | {"id": "kye"})
    said = r"(?s)no column 'badd', which was given as the rejected; .*did you mean 'bad'\?.*--map rejected=bad "
    with pytest.raises(UserError, match=said):
        open_source([path], columns=names | {"rejected": "badd"})
    with pytest.raises(UserError, match=r"no form has a column 'promt'.*'prompt'"):
        open_source([path], columns={"promt": "question"})


def test_a_system_prompt_in_a_column_reaches_the_prompt_whatever_the_form(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", record(0, system="Be brief."))
    source, (pair,) = read(path)
    assert (source.form.name, pair.extra) == ("trl-standard", {})
    assert [m["content"] for m in pair.prompt] == ["Be brief.", "question 0?"]
    source, records = read(path, columns={"question": "prompt"})
    assert source.form.name == "intel-orca" and pairs(records)[0].prompt == pair.prompt


def test_a_label_that_says_which_answer_won_is_never_passed_over(tmp_path):
    compared = {"prompt": "q", "answer_a": "x", "answer_b": "y", "winner": "b"}
    path = jsonl(tmp_path / "a.jsonl", compared)
    with pytest.raises(UserError, match="'winner' says which one won, but the form is unknown") as caught:
        open_source([path])
    assert "--map chosen" not in str(caught.value)
    with pytest.raises(UserError, match="'winner' says which answer won, so 'answer_a' is not always the chosen one"):
        open_source([path], columns={"chosen": "answer_a", "rejected": "answer_b"})
    source, _ = read(jsonl(tmp_path / "b.jsonl", record(0, winner="b")))
    assert "column 'winner' is kept, but does not decide which answer is the chosen one" in source.notes


def test_a_path_leads_into_an_object_and_what_else_it_holds_stays(tmp_path):
    rows = [{"x": {"q": "Q", "kind": "k"}, "y": [{"text": "yes"}, {"text": "no"}]}]
    names = {"prompt": "x.q", "chosen": "y.0.text", "rejected": "y.1.text"}
    _, (pair,) = read(jsonl(tmp_path / "a.jsonl", *rows), columns=names)
    assert (pair.prompt[0]["content"], pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("Q", "yes", "no")
    assert pair.extra["x"] == '{"kind":"k"}'
    with pytest.raises(UserError, match=r"no column 'x\.p', which was given as the id"):
        open_source([jsonl(tmp_path / "a.jsonl", *rows)], columns=names | {"id": "x.p"})


def test_the_scores_of_a_pair_stay_beside_it(tmp_path):
    chosen, rejected = ([{"role": "user", "content": "Q"}, {"role": "assistant", "content": x}] for x in "xy")
    more = {"prompt_id": "p", "score_chosen": 8.5, "score_rejected": 4.0, "margin": 2, "messages": chosen}
    _, records = read(jsonl(tmp_path / "a.jsonl", {"prompt": "Q", "chosen": chosen, "rejected": rejected, **more}))
    assert pairs(records)[0].extra == more | {"messages": canonical_json(chosen)}


def nectar(prompt, *ranked, **more):
    answers = [{"answer": text, "rank": rank, "model": f"m-{text}"} for text, rank in ranked]
    return {"prompt": f"\n\nHuman: {prompt}\n\nAssistant: ", "answers": answers, **more}


def test_records_of_ranked_answers_count_as_their_pairs_and_the_sums_hold(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl",
        nectar("p", ("x", 1), ("y", 2), ("z", 2), id=7, turns=1, chosen_rank="own"),
        b"broken",
        nectar("p", ("x", 1), ("y", 1)),
        nectar("q", ("x", 1), ("x", 2), ("y", 3)),
        nectar("p", ("x", 1), ("y", 2)),
    )
    source, records = read(path)
    assert [(r.line, reason) for r, reason in zip(records, reasons(records), strict=True)] == [
        (1, "pair"), (1, "pair"), (2, "broken_line"), (3, "no_preference"),
        (4, "identical_responses"), (4, "pair"), (4, "duplicate"), (5, "duplicate"),
    ]  # fmt: skip
    assert source.input_records == 5
    assert sum(source.counts.values()) == len(records) == 8
    assert source.counts["pairs"] == 3
    first, second = pairs(records)[:2]
    assert (first.id, second.id) == ("7/1-2", "7/1-3")
    assert first.extra == {
        "turns": 1, "chosen_rank": 1, "rejected_rank": 2, "chosen_model": "m-x", "rejected_model": "m-y",
        "source_chosen_rank": "own",
    }  # fmt: skip
    assert json.loads(records[4].raw)["rejected"] == [{"role": "assistant", "content": "x"}]
    assert "5 records of ranked answers become 8" in source.notes[-1]
    limited, records = read(path, limit=1)
    assert (limited.input_records, len(records)) == (1, 2)


def test_other_columns_get_one_type_each(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl",
        record(0, i=1, f=1, b=True, s="x", mixed="x", nested={"b": 1, "a": [2]}, null=None, big=2**63, flag=True),
        record(1, i=None, f=0.5, b=None, s=None, mixed=[1], nested=None, null=None, big=1, flag=1),
        record(2, chosen="", late="of a reject"),
    )
    source, records = read(path)
    assert {f.name: f.type for f in source.extra_fields()} == {
        "i": pa.int64(), "f": pa.float64(), "b": pa.bool_(), "s": pa.string(), "mixed": pa.string(),
        "nested": pa.string(), "null": pa.string(), "big": pa.string(), "flag": pa.string(),
    }  # fmt: skip
    assert [p.extra for p in pairs(records)] == [
        {"i": 1, "f": 1.0, "b": True, "s": "x", "mixed": '"x"', "nested": '{"a":[2],"b":1}', "null": None,
         "big": str(2**63), "flag": "true"},
        {"i": None, "f": 0.5, "b": None, "s": None, "mixed": "[1]", "nested": None, "null": None, "big": "1",
         "flag": "1"},
    ]  # fmt: skip
    assert isinstance(pairs(records)[0].extra["f"], float)


def test_names_that_the_tables_use_are_kept_under_another(tmp_path):
    source, records = read(jsonl(tmp_path / "a.jsonl", record(0, weight=2, margins=[1.0], source_margins=3)))
    assert pairs(records)[0].extra == {"source_weight": 2, "source_source_margins": "[1.0]", "source_margins": 3}
    assert list(source.notes) == [
        "column 'weight' is kept as 'source_weight'",
        "column 'margins' is kept as 'source_source_margins'",
    ]


def test_what_messages_hold_besides_role_and_content_is_said(tmp_path):
    chosen = [{"role": "assistant", "content": "x", "name": "Ann", "tool_calls": None}]
    rejected = [{"role": "assistant", "content": "y"}]
    source, records = read(jsonl(tmp_path / "a.jsonl", {"prompt": "q", "chosen": chosen, "rejected": rejected}))
    assert pairs(records)[0].chosen == [{"role": "assistant", "content": "x"}]
    assert list(source.notes) == ["only role and content of messages are kept; left out: name"]
