"""Files and folders become one `Pair` or `Reject` per record, the same at every reading."""

import csv
import gzip
import hashlib
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.forms import FORMS
from rmo_curate.messages import RejectReason
from rmo_curate.pair_ids import content_hash
from rmo_curate.sources import Pair, Reject, open_source
from rmo_train.errors import UserError
from rmo_train.tables import PAIR_SCHEMA, REJECT_SCHEMA, canonical_json, with_columns


def row(n=0, **more):
    return {"prompt": f"question {n}", "chosen": f"good {n}", "rejected": f"bad {n}", **more}


def jsonl(path, *rows):
    """Write rows (objects, or lines as bytes) and return the path as text."""
    lines = [r if isinstance(r, bytes) else json.dumps(r).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def read(*paths, **settings):
    source = open_source(list(paths), **settings)
    records = list(source.records())
    assert list(source.records()) == records
    return source, records


def pairs(records):
    return [r for r in records if isinstance(r, Pair)]


def reasons(records):
    return [r.reason if isinstance(r, Reject) else "pair" for r in records]


# ---------------------------------------------------------------------------------------------------- files


def test_every_kind_of_file_gives_the_same_pairs(tmp_path):
    rows = [row(n, score=n) for n in range(3)]
    lines = "\n".join(json.dumps(r) for r in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "d.json").write_text(json.dumps({"version": 1, "data": rows}, indent=2))
    (tmp_path / "e.json").write_bytes(lines)
    (tmp_path / "f.json.gz").write_bytes(gzip.compress(json.dumps(rows).encode()))
    (tmp_path / "g.jsonl").write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n\r\n"))
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "h.parquet")
    for name, packed in (("i.jsonl.zst", lines), ("j.json.zst", json.dumps(rows).encode())):
        with pa.CompressedOutputStream(str(tmp_path / name), "zstd") as f:
            f.write(packed)
    (tmp_path / "k.jsonl").write_bytes((tmp_path / "i.jsonl.zst").read_bytes())  # packed, without the suffix
    with pa.ipc.new_file(tmp_path / "l.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    with pa.ipc.new_stream(tmp_path / "m.arrow", table.schema) as writer:
        writer.write_table(table)
    content = [(p.id, p.prompt, p.chosen, p.rejected, p.extra) for p in pairs(read(str(tmp_path / "a.jsonl"))[1])]
    assert len(content) == 3
    for path in sorted(tmp_path.iterdir()):
        found = [(p.id, p.prompt, p.chosen, p.rejected, p.extra) for p in pairs(read(str(path))[1])]
        assert found == content, path.name


def test_a_folder_is_its_data_files_by_name(tmp_path):
    for n, name in enumerate(["b.jsonl", "c.jsonl", "a.jsonl"]):
        jsonl(tmp_path / name, row(n))
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "manifest.json").write_text("{}")
    source, records = read(str(tmp_path))
    assert [p.prompt[0]["content"] for p in pairs(records)] == ["question 2", "question 0", "question 1"]
    a = tmp_path / "a.jsonl"
    assert source.inputs[0] == {
        "name": str(a),
        "bytes": a.stat().st_size,
        "sha256": hashlib.sha256(a.read_bytes()).hexdigest(),
    }
    assert any("README.md" in note and "manifest.json" in note for note in source.notes)


def test_conversations_and_dates_come_out_of_parquet_as_json_holds_them(tmp_path):
    path = tmp_path / "a.parquet"
    messages = {"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    messages["rejected"] = [messages["chosen"][0], {"role": "assistant", "content": "B"}]
    table = pa.Table.from_pylist([messages])
    table = table.append_column("day", pa.array([0], pa.date32())).append_column("bytes", pa.array([b"\xff"]))
    pq.write_table(table, path)
    _, records = read(str(path))
    assert pairs(records)[0].chosen == [{"role": "assistant", "content": "A"}]
    assert pairs(records)[0].extra == {"day": "1970-01-01", "bytes": "\\xff"}


def test_a_json_record_that_utf8_cannot_hold_is_kept_as_escapes(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([row(0), row(1, chosen="\ud800")]))
    _, records = read(str(tmp_path / "a.json"))
    assert reasons(records) == ["pair", "not_text"]
    assert records[1].raw == '{"chosen":"\\ud800","prompt":"question 1","rejected":"bad 1"}'


def test_only_the_arrow_files_that_save_to_disk_lists_are_data(tmp_path):
    from datasets import Dataset

    data = Dataset.from_list([row(n) for n in range(3)])
    data.save_to_disk(str(tmp_path / "d"), num_shards=2)
    other = pa.Table.from_pylist([row(9)])
    with pa.ipc.new_stream(tmp_path / "d" / "cache-1.arrow", other.schema) as writer:
        writer.write_table(other)
    source, records = read(str(tmp_path / "d"))
    assert [p.prompt[0]["content"] for p in pairs(records)] == ["question 0", "question 1", "question 2"]
    assert [p.source.rsplit("/")[-1] for p in pairs(records)] == [
        "data-00000-of-00002.arrow", "data-00000-of-00002.arrow", "data-00001-of-00002.arrow"
    ]  # fmt: skip
    assert source.notes == (
        f"{tmp_path}/d: 2 data files: data-00000-of-00002.arrow, data-00001-of-00002.arrow",
        f"{tmp_path}/d: passed over cache-1.arrow, dataset_info.json, state.json (not data files)",
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"PK", r"a\.xlsx: unknown kind of file.*\.jsonl.*\.parquet"),
        ("a.jsonl", b"", "no records"),
        ("a.jsonl", b"\n  \n", "no records"),
        ("a.json", b"[]", "no records"),
        ("a.json", b"[1,\n 2,,]", r"a\.json:2:4: not JSON"),
        ("a.json", b'{"a": [], "b": []}', "an object with 2 lists"),
        ("a.parquet", b"PAR1 no", r"a\.parquet: cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "q"}' * 99)[:-9], r"a\.jsonl\.gz: cannot be read"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-LFS pointer"),
        ("a.jsonl", b"nonsense\n[1]\n", r"none of 2 records is an object:\n.*a\.jsonl:1: not JSON"),
    ],
)
def test_a_file_without_records_is_the_users_error(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"(?s){said}"):
        open_source([str(tmp_path / name)])


def test_a_missing_path_names_what_lies_beside_it(tmp_path):
    jsonl(tmp_path / "train.jsonl", row())
    with pytest.raises(UserError, match=r"trian\.jsonl: not a local file or folder; did you mean 'train\.jsonl'"):
        open_source([str(tmp_path / "trian.jsonl")])
    (tmp_path / "below").mkdir()
    (tmp_path / "train.jsonl").rename(tmp_path / "below" / "train.jsonl")
    with pytest.raises(UserError, match=r"without data files.*below"):
        open_source([str(tmp_path)])


# ---------------------------------------------------------------------------------------------------- records


def test_every_bad_line_is_a_reject_with_its_place_its_reason_and_its_text(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl",
        row(0),
        b"",
        b'{"prompt": "cut',
        b'"text"',
        b'{"prompt": "\xff"}',
        {"prompt": "q", "chosen": "c"},
        row(1, chosen=" "),
        row(2, chosen="bad 2"),
        row(3, chosen=7),
        {"chosen": "\n\nHuman: Q\n\nAssistant: x", "rejected": "\n\nHuman: Q\n\nAssistant: y", "prompt": None},
        row(4, prompt=""),
        row(0, id="again"),
        b"[" * 100_000,
        row(5, chosen="\ud800"),
        row(6, prompt="nul \x00"),
    )
    source, records = read(path)
    assert [(r.line, reason) for r, reason in zip(records, reasons(records), strict=True)] == [
        (1, "pair"),
        (3, "broken_line"),
        (4, "not_an_object"),
        (5, "broken_line"),
        (6, "missing_field"),
        (7, "empty_response"),
        (8, "identical_responses"),
        (9, "not_text"),
        (10, "missing_field"),
        (11, "empty_prompt"),
        (12, "duplicate"),
        (13, "broken_line"),
        (14, "not_text"),
        (15, "pair"),
    ]
    assert records[1] == Reject(
        path, 3, RejectReason.BROKEN_LINE, "not JSON at column 12: Unterminated string starting at", '{"prompt": "cut'
    )
    assert records[3].raw == '{"prompt": "\\xff"}'
    assert f"{path}:1" in records[10].detail
    assert source.counts == {
        "pairs": 2, "broken_line": 3, "not_an_object": 1, "missing_field": 2, "empty_response": 1,
        "identical_responses": 1, "not_text": 2, "empty_prompt": 1, "duplicate": 1,
    }  # fmt: skip


LINES = st.sampled_from(
    [
        json.dumps(row(1)),
        json.dumps(row(2, score=1)),
        json.dumps(row(3, score="high", id=3)),
        json.dumps(row(1, rejected="\ud800", score=0.5)),
        json.dumps(row(1, score="\ud800")),
        json.dumps(row(1, chosen=[{"role": "user", "content": "x"}])),
        '{"chosen": "\\ud800"}',
        "not json",
        "[]",
        " ",
    ]
)


@settings(deadline=None)  # the clock of a busy machine is no promise
@given(lines=st.lists(LINES, max_size=12), limit=st.none() | st.integers(1, 12))
def test_pairs_and_rejects_add_up_to_the_records_and_fit_their_tables(tmp_path_factory, lines, limit):
    path = jsonl(tmp_path_factory.mktemp("law") / "a.jsonl", json.dumps(row(0)).encode(), *(x.encode() for x in lines))
    source, records = read(path, limit=limit)
    expected = [1, *(n for n, line in enumerate(lines, start=2) if line.strip())][:limit]
    assert [r.line for r in records] == expected
    assert sum(source.counts.values()) == len(expected)
    ids = [p.id for p in pairs(records)]
    assert len(set(ids)) == len(ids) == source.counts["pairs"]
    schema = with_columns(
        pa.schema([PAIR_SCHEMA.field(c) for c in ("id", "prompt", "chosen", "rejected", "tools")]),
        source.extra_fields(),
    )
    rows = [{**p.extra, **{c: getattr(p, c) for c in schema.names[:5]}} for p in pairs(records)]
    pa.Table.from_pylist(rows, schema=schema).validate(full=True)
    bad = [{c: getattr(r, c) for c in REJECT_SCHEMA.names} for r in records if isinstance(r, Reject)]
    pa.Table.from_pylist(bad, schema=REJECT_SCHEMA).validate(full=True)


def test_limit_counts_records_over_all_files_rejects_included(tmp_path):
    a = jsonl(tmp_path / "a.jsonl", row(0), b"", b"broken")
    b = jsonl(tmp_path / "b.jsonl", row(1), row(2))
    source, records = read(a, b, limit=3)
    assert [(r.source, r.line) for r in records] == [(a, 1), (a, 3), (b, 1)]
    assert len(source.inputs) == 2
    with pytest.raises(UserError, match="limit of 0"):
        open_source([a], limit=0)


# ---------------------------------------------------------------------------------------------------- forms


def test_the_form_of_most_records_wins_and_the_others_are_rejects(tmp_path):
    turns = [{"role": "assistant", "content": "x"}], [{"role": "assistant", "content": "y"}]
    other = {"prompt": [{"role": "user", "content": "q"}], "chosen": turns[0], "rejected": turns[1]}
    source, records = read(jsonl(tmp_path / "a.jsonl", other, row(0), row(1)))
    assert source.form.name == "trl-standard"
    assert source.said == (
        "form trl-standard: prompt, chosen and rejected are text in 2 of the first 3 records "
        "(1 like trl-conversational: to be rejected)"
    )
    assert reasons(records) == ["other_form", "pair", "pair"]


def test_bad_records_before_the_good_ones_do_not_hide_the_form(tmp_path):
    _, records = read(jsonl(tmp_path / "a.jsonl", *[{"x": 1}] * 150, *[b"broken"] * 150, *(row(n) for n in range(50))))
    assert len(records) == 350
    assert len(pairs(records)) == 50


def test_a_misspelt_column_names_the_columns_found_and_the_nearest(tmp_path):
    rows = [{"prompt": f"q{n}", "choosen": "c", "rejected": "r"} for n in range(99)]
    with pytest.raises(UserError, match=r"no column 'chosen'.*prompt, choosen, rejected; did you mean 'choosen'"):
        open_source([jsonl(tmp_path / "a.jsonl", *rows)])
    with pytest.raises(UserError, match=r"no 'chosen' in 99 of 100 records.*did you mean 'choosen'"):
        open_source([jsonl(tmp_path / "a.jsonl", *rows, row())])


def test_texts_without_a_prompt_or_turns_are_the_users_error(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"promt": "q", "chosen": "Yes, a", "rejected": "Yes, b"})
    with pytest.raises(UserError, match=r"where the prompt ends cannot be known.*did you mean 'promt'"):
        open_source([path])


def test_an_unknown_form_is_described_beside_the_known_ones(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "q", "chosen": {"from": "gpt"}, "rejected": {"from": "gpt"}})
    with pytest.raises(UserError, match=r"(?s)chosen is an object \(keys: 'from'\).*trl-standard: .*hh-rlhf: "):
        open_source([path])


def test_records_that_are_all_bad_are_an_error_that_says_the_reasons(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", row(0, chosen=""), row(1, chosen="bad 1"), row(2, rejected=""))
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
    with pytest.raises(UserError, match=r"no column 'kye', which was given as the id.*'key'"):
        open_source([path], columns=names | {"id": "kye"})
    with pytest.raises(UserError, match=r"no column 'promt' to map.*'prompt'"):
        open_source([path], columns={"promt": "question"})


def test_a_column_taken_for_another_role_is_no_longer_the_prompt(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", row(0, system="Be brief."))
    source, records = read(path)
    assert (source.form.name, pairs(records)[0].extra) == ("trl-standard", {"system": "Be brief."})
    assert any("'system' is kept beside the pairs" in note for note in source.notes)
    source, records = read(path, columns={"question": "prompt"})
    assert (source.form.name, pairs(records)[0].extra) == ("intel-orca", {})
    assert [m["content"] for m in pairs(records)[0].prompt] == ["Be brief.", "question 0"]


def test_the_scores_of_a_pair_stay_beside_it(tmp_path):
    chosen, rejected = ([{"role": "user", "content": "Q"}, {"role": "assistant", "content": x}] for x in "xy")
    more = {"prompt_id": "p", "score_chosen": 8.5, "score_rejected": 4.0, "margin": 2, "messages": chosen}
    _, records = read(jsonl(tmp_path / "a.jsonl", {"prompt": "Q", "chosen": chosen, "rejected": rejected, **more}))
    assert pairs(records)[0].extra == more | {"messages": canonical_json(chosen)}


# ---------------------------------------------------------------------------------------------------- ranked answers


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
    assert "5 records of ranked answers stand for 8" in source.notes[-1]
    limited, records = read(path, limit=1)
    assert (limited.input_records, len(records)) == (1, 2)


# ---------------------------------------------------------------------------------------------------- ids


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


def test_every_form_has_a_record_here():
    assert set(EVERY_FORM) == set(FORMS)


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
        row(0),
        row(0, chat_template_kwargs=thinking),
        row(0, chat_template_kwargs=json.dumps(thinking)),
        row(0, chat_template_kwargs={}),
        row(0, chat_template_kwargs=None),
        row(1, chat_template_kwargs="{"),
        row(1, chat_template_kwargs=[1]),
    )
    source, records = read(path)
    assert reasons(records) == ["pair", "pair", "duplicate", "duplicate", "duplicate", "not_text", "not_text"]
    assert [p.chat_template_kwargs for p in pairs(records)] == [
        None, '{"depth":{"a":[2],"b":1},"enable_thinking":false}'
    ]  # fmt: skip
    assert not source.extra_fields()
    message = [{"role": "user", "content": "question 0"}]
    good, bad = ([{"role": "assistant", "content": f"{w} 0"}] for w in ("good", "bad"))
    plain = {"prompt": message, "chosen": good, "rejected": bad, "tools": None}
    hashes = [
        hashlib.sha256(canonical_json(c).encode()).hexdigest()[:32]
        for c in (plain, plain | {"chat_template_kwargs": pairs(records)[1].chat_template_kwargs})
    ]
    assert [p.id for p in pairs(records)] == hashes


def test_an_id_is_the_users_or_the_hash_of_the_content_alone(tmp_path):
    content = {
        "prompt": [{"role": "user", "content": "question 0"}],
        "chosen": [{"role": "assistant", "content": "good 0"}],
        "rejected": [{"role": "assistant", "content": "bad 0"}],
        "tools": None,
    }
    expected = hashlib.sha256(canonical_json(content).encode()).hexdigest()[:32]
    a = jsonl(tmp_path / "a.jsonl", row(0, score=1), row(1, id=17), row(2, id="x"), row(3, id=None))
    _, records = read(a)
    assert [p.id for p in records][:3] == [expected, "17", "x"]
    b = jsonl(tmp_path / "b.jsonl", row(5), {"rejected": "bad 0", "chosen": "good 0", "prompt": "question 0"})
    assert read(b)[1][1].id == expected


def test_tools_belong_to_the_content(tmp_path):
    tools = [{"name": "f", "args": {"b": 1, "a": 2}}]
    path = jsonl(
        tmp_path / "a.jsonl", row(0), row(0, tools=tools), row(0, tools=json.dumps(tools)), row(1, tools="{"),
        row(0, tools=[]),
    )  # fmt: skip
    _, records = read(path)
    assert reasons(records) == ["pair", "pair", "duplicate", "not_text", "duplicate"]
    assert [p.tools for p in pairs(records)] == [None, '[{"args":{"a":2,"b":1},"name":"f"}]']


def test_repeated_content_is_a_duplicate_whatever_its_id_and_file(tmp_path):
    a = jsonl(tmp_path / "a.jsonl", row(0, id="x"), row(0, id="x"), row(0, id="y"), row(1, id="z"))
    b = jsonl(tmp_path / "b.jsonl", row(0), row(2), row(2))
    _, records = read(a, b)
    assert reasons(records) == ["pair", "duplicate", "duplicate", "pair", "duplicate", "pair", "duplicate"]
    places = [
        r.detail.removeprefix("the same prompt, chosen and rejected as ") for r in records if isinstance(r, Reject)
    ]
    assert places == [f"{a}:1", f"{a}:1", f"{a}:1", f"{b}:2"]


def test_one_id_on_two_contents_names_both_lines(tmp_path):
    a = jsonl(tmp_path / "a.jsonl", row(0), row(1, id="x"))
    b = jsonl(tmp_path / "b.jsonl", row(1, id="y"), row(2, id="x"))
    with pytest.raises(UserError, match=r"'x' stands for two different pairs: .*a\.jsonl:2 and .*b\.jsonl:2"):
        open_source([a, b])
    # The id of a duplicate counts too: its content is known, whoever came first.
    c = jsonl(tmp_path / "c.jsonl", row(1, id="y"), row(3, id="y"))
    with pytest.raises(UserError, match=r"'y' stands for two different pairs: .*a\.jsonl:2 and .*c\.jsonl:2"):
        open_source([a, c])


@pytest.mark.parametrize("hash_first", [True, False])
def test_an_id_that_is_the_hash_of_another_pair_is_told(tmp_path, hash_first):
    _, records = read(jsonl(tmp_path / "a.jsonl", row(0)))
    rows = [row(0), row(1, id=pairs(records)[0].id)]
    with pytest.raises(UserError, match="two different pairs"):
        open_source([jsonl(tmp_path / "a.jsonl", *(rows if hash_first else rows[::-1]))])


# ---------------------------------------------------------------------------------------------------- other columns


def test_other_columns_get_one_type_each(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl",
        row(0, i=1, f=1, b=True, s="x", mixed="x", nested={"b": 1, "a": [2]}, null=None, big=2**63, flag=True),
        row(1, i=None, f=0.5, b=None, s=None, mixed=[1], nested=None, null=None, big=1, flag=1),
        row(2, chosen="", late="of a reject"),
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
    source, records = read(jsonl(tmp_path / "a.jsonl", row(0, weight=2, margins=[1.0], source_margins=3)))
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
    assert list(source.notes) == ["of a message, role and content are kept; left out: name"]
