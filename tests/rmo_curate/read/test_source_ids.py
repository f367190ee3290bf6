"""A pair's id: the user's, or a hash of its content alone, and what is a duplicate."""

import csv
import hashlib
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmo_curate.read.pair_ids import content_hash
from rmo_curate.read.sources import Pair, Reject
from rmo_train.store.files import canonical_json, sha256_text
from rmo_train.store.tables import prompt_group
from tests.rmo_curate.read.reading import jsonl, pairs, read, reasons
from tests.rmo_curate.scored import record

SAME = {"prompt": "Name a prime.", "chosen": "11\nor 13", "rejected": "12, or so"}
U, C, R = ({"role": r, "content": SAME[k]} for r, k in (("user", "prompt"), ("assistant", "chosen"),
                                                       ("assistant", "rejected")))  # fmt: skip
FROM = {"user": "human", "assistant": "gpt"}
SHARE = [{"from": FROM[m["role"]], "value": m["content"]} for m in (U, C, R)]
EVERY_FORM = {
    "trl-standard": SAME,
    "trl-conversational": {"prompt": [U], "chosen": [C], "rejected": [R]},
    "prompt-and-conversation": {"prompt": SAME["prompt"], "chosen": [U, C], "rejected": [U, R]},
    "trl-implicit": {"chosen": [U, C], "rejected": [U, R]},
    "hh-rlhf": {k: f"\n\nHuman: {SAME['prompt']}\n\nAssistant: {SAME[k]}" for k in ("chosen", "rejected")},
    "llama-factory-alpaca": {"instruction": SAME["prompt"], "chosen": SAME["chosen"], "rejected": SAME["rejected"]},
    "llama-factory-sharegpt": {"conversations": SHARE[:1], "chosen": SHARE[1], "rejected": SHARE[2]},
    "argilla": {"instruction": SAME["prompt"], "chosen_response": SAME["chosen"],
                "rejected_response": SAME["rejected"]},
    "intel-orca": {"system": "", "question": SAME["prompt"], "chosen": SAME["chosen"], "rejected": SAME["rejected"]},
    "input-and-answers": {"input": SAME["prompt"], "chosen": SAME["chosen"], "rejected": SAME["rejected"]},
    "nectar": {"prompt": f"\n\nHuman: {SAME['prompt']}\n\nAssistant: ",
               "answers": [{"answer": SAME["rejected"], "rank": 2}, {"answer": SAME["chosen"], "rank": 1}]},
    "nemo-rl": {"context": [U], "completions": [{"rank": 0, "completion": [C]}, {"rank": 1, "completion": [R]}]},
}  # fmt: skip


@pytest.mark.parametrize("form", EVERY_FORM)
def test_the_same_content_has_the_same_id_in_every_form_and_kind_of_file(tmp_path, form):
    record = EVERY_FORM[form]
    jsonl(tmp_path / "a.jsonl", record)
    (tmp_path / "b.json").write_text(json.dumps([record]))
    table = pa.Table.from_pylist([record])
    pq.write_table(table, tmp_path / "c.parquet")
    with pa.ipc.new_stream(tmp_path / "d.arrow", table.schema) as writer:
        writer.write_table(table)
    with (tmp_path / "e.csv").open("w", newline="", encoding="utf-8-sig") as f:
        cells = [v if isinstance(v, str) else json.dumps(v) for v in record.values()]
        csv.writer(f).writerows([record, cells])
    expected = Pair(content_hash([U], [C], [R], None, None), [U], [C], [R], None, None, {}, "", 1)
    for path in sorted(tmp_path.iterdir()):
        source, (pair,) = read(str(path))
        assert source.form.name == form
        assert replace(pair, source="", extra={}) == expected, path.name


def test_chat_template_kwargs_are_a_part_of_the_content_where_there_are_some(tmp_path):
    thinking = {"enable_thinking": False, "depth": {"b": 1, "a": [2]}}
    path = jsonl(
        tmp_path / "a.jsonl",
        record(0),
        record(0, chat_template_kwargs=thinking),
        record(0, chat_template_kwargs=json.dumps(thinking)),
        record(0, chat_template_kwargs={}),
        record(0, chat_template_kwargs=None),
        record(1, chat_template_kwargs="{"),
        record(1, chat_template_kwargs=[1]),
    )
    source, records = read(path)
    assert reasons(records) == ["pair", "pair", "duplicate", "duplicate", "duplicate", "not_text", "not_text"]
    assert [p.chat_template_kwargs for p in pairs(records)] == [
        None, '{"enable_thinking":false,"depth":{"b":1,"a":[2]}}'
    ]  # fmt: skip
    assert not source.extra_fields()
    message = [{"role": "user", "content": "question 0?"}]
    good, bad = ([{"role": "assistant", "content": text}] for text in ("good answer 0", "bad 0"))
    plain = {"prompt": message, "chosen": good, "rejected": bad, "tools": None}
    hashes = [
        hashlib.sha256(canonical_json(c).encode()).hexdigest()[:32]
        for c in (plain, plain | {"chat_template_kwargs": canonical_json(thinking)})
    ]
    assert [p.id for p in pairs(records)] == hashes


def test_an_id_is_the_users_or_the_hash_of_the_content_alone(tmp_path):
    content = {
        "prompt": [{"role": "user", "content": "question 0?"}],
        "chosen": [{"role": "assistant", "content": "good answer 0"}],
        "rejected": [{"role": "assistant", "content": "bad 0"}],
        "tools": None,
    }
    expected = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:32]
    a = jsonl(tmp_path / "a.jsonl", record(0, score=1), record(1, id=17), record(2, id="x"), record(3, id=None))
    _, records = read(a)
    assert [p.id for p in records][:3] == [expected, "17", "x"]
    b = jsonl(
        tmp_path / "b.jsonl", record(5), {"rejected": "bad 0", "chosen": "good answer 0", "prompt": "question 0?"}
    )
    assert read(b)[1][1].id == expected


def test_tools_belong_to_the_content(tmp_path):
    tools = [{"name": "f", "args": {"b": 1, "a": 2}}]
    path = jsonl(
        tmp_path / "a.jsonl",
        record(0),
        record(0, tools=tools),
        record(0, tools=json.dumps(tools)),
        record(1, tools="{"),
        record(0, tools=[]),
    )
    _, records = read(path)
    assert reasons(records) == ["pair", "pair", "duplicate", "not_text", "duplicate"]
    assert [p.tools for p in pairs(records)] == [None, '[{"name":"f","args":{"b":1,"a":2}}]']


def test_the_keys_of_tools_keep_their_order_and_it_counts_for_no_id(tmp_path):
    tools, settings = [{"type": "function", "function": {"name": "f", "args": {}}}], {"b": {"z": 1, "y": 2}, "a": 1}
    turned = [{"function": {"args": {}, "name": "f"}, "type": "function"}], {"a": 1, "b": {"y": 2, "z": 1}}
    given = [record(0, tools=t, chat_template_kwargs=k) for t, k in ((tools, settings), turned)]
    first, second = (pairs(read(jsonl(tmp_path / f"{n}.jsonl", one))[1])[0] for n, one in enumerate(given))
    assert (first.tools, first.chat_template_kwargs) == (
        '[{"type":"function","function":{"name":"f","args":{}}}]',
        '{"b":{"z":1,"y":2},"a":1}',
    )
    assert first.id == second.id and first.tools != second.tools
    assert prompt_group(first.prompt, first.tools) == prompt_group(second.prompt, second.tools)
    content = {
        "prompt": first.prompt, "chosen": first.chosen, "rejected": first.rejected, "tools": canonical_json(tools),
        "chat_template_kwargs": canonical_json(settings),
    }  # fmt: skip
    assert first.id == sha256_text(canonical_json(content))[:32]


def test_a_table_from_elsewhere_may_hold_tools_that_are_no_json():
    assert prompt_group([], "no {json") != prompt_group([], None)


def test_repeated_content_is_a_duplicate_whatever_its_id_and_file(tmp_path):
    a = jsonl(tmp_path / "a.jsonl", record(0, id="x"), record(0, id="x"), record(0, id="y"), record(1, id="z"))
    b = jsonl(tmp_path / "b.jsonl", record(0), record(2), record(2))
    _, records = read(a, b)
    assert reasons(records) == ["pair", "duplicate", "duplicate", "pair", "duplicate", "pair", "duplicate"]
    places = [
        r.detail.removeprefix("the same prompt, chosen and rejected as ") for r in records if isinstance(r, Reject)
    ]
    assert places == [f"{a}:1", f"{a}:1", f"{a}:1", f"{b}:2"]


def test_one_id_on_two_contents_gets_the_hash_of_the_later_content(tmp_path):
    a = jsonl(tmp_path / "a.jsonl", record(0), record(1, id=1))
    b = jsonl(tmp_path / "b.jsonl", record(1, id="y"), record(2, id=1.0), record(3, id="y"), record(4, id=1.5))
    source, records = read(a, b)
    assert reasons(records) == ["pair", "pair", "duplicate", "pair", "pair", "not_text"]
    hashes = [content_hash(p.prompt, p.chosen, p.rejected, None, None) for p in pairs(records)]
    # The id of a duplicate counts too: its content is known, whoever came first.
    assert [p.id for p in pairs(records)] == [hashes[0], "1", f"1-{hashes[2]}", f"y-{hashes[3]}"]
    assert any(note.startswith("2 records with the id of an earlier pair") for note in source.notes)


@pytest.mark.parametrize("hash_first", [True, False])
def test_an_id_that_is_the_hash_of_another_pair_is_told(tmp_path, hash_first):
    _, records = read(jsonl(tmp_path / "a.jsonl", record(0)))
    taken = pairs(records)[0].id
    rows = [record(0), record(1, id=taken)]
    _, records = read(jsonl(tmp_path / "a.jsonl", *(rows if hash_first else rows[::-1])))
    first, second = (p.id for p in pairs(records))
    assert first == taken and second.startswith(f"{taken}-")
