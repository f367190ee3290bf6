"""Files and folders become one `Pair` or `Reject` per record, the same at every reading."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import sys
import zipfile
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.read import files
from rmo_curate.read.messages import RejectReason
from rmo_curate.read.sources import Reject, open_source
from rmo_train.console.errors import UserError
from rmo_train.store.tables import PAIR_SCHEMA, REJECT_SCHEMA, with_columns
from tests.rmo_curate.read.reading import jsonl, pairs, read, reasons
from tests.rmo_curate.scored import record


def test_every_kind_of_file_gives_the_same_pairs(tmp_path):
    rows = [record(n, score=n) for n in range(3)]
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
    (tmp_path / "n.ndjson").write_bytes(lines)
    (tmp_path / "o.jsonl.xz").write_bytes(lzma.compress(lines))
    (tmp_path / "p.json.bz2").write_bytes(bz2.compress(json.dumps(rows).encode()))
    with zipfile.ZipFile(tmp_path / "q.jsonl.zip", "w") as archive:
        archive.writestr("q.jsonl", lines)
    (tmp_path / "r.jsonl").write_text(json.dumps(rows, indent=1))
    content = [(p.id, p.prompt, p.chosen, p.rejected, p.extra) for p in pairs(read(str(tmp_path / "a.jsonl"))[1])]
    assert len(content) == 3
    for path in sorted(tmp_path.iterdir()):
        found = [(p.id, p.prompt, p.chosen, p.rejected, p.extra) for p in pairs(read(str(path))[1])]
        assert found == content, path.name


def test_a_folder_is_its_data_files_by_name(tmp_path):
    for n, name in enumerate(["b.jsonl", "c.jsonl", "a.jsonl"]):
        jsonl(tmp_path / name, record(n))
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "manifest.json").write_text("{}")
    source, records = read(str(tmp_path))
    assert [p.prompt[0]["content"] for p in pairs(records)] == ["question 2?", "question 0?", "question 1?"]
    a = tmp_path / "a.jsonl"
    assert asdict(source.inputs[0]) == {
        "name": str(a),
        "bytes": a.stat().st_size,
        "sha256": hashlib.sha256(a.read_bytes()).hexdigest(),
    }
    assert any("README.md" in note and "manifest.json" in note for note in source.notes)


def test_what_a_folder_holds_besides_data_is_named(tmp_path):
    jsonl(tmp_path / "a.jsonl", record(0))
    (tmp_path / "more").mkdir()
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere.jsonl")
    (tmp_path / "notes.txt").write_text("words")
    source, _ = read(str(tmp_path))
    said = " ".join(source.notes)
    assert "skipped the folders more" in said and "notes.txt (not data files)" in said
    assert "skipped gone.jsonl (broken links, or not files)" in said


@pytest.mark.parametrize("kind", ["jsonl", "list", "packed", "csv", "parquet"])
def test_the_standard_input_is_read_as_often_as_a_file(tmp_path, monkeypatch, kind):
    rows = [record(n) for n in range(3)]
    lines = "\n".join(json.dumps(r) for r in rows).encode()
    table = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), table)
    cells = "prompt,chosen,rejected\n" + "".join(f"{r['prompt']},{r['chosen']},{r['rejected']}\n" for r in rows)
    given = {"jsonl": lines, "list": json.dumps(rows).encode(), "packed": gzip.compress(lines), "csv": cells.encode(),
             "parquet": table.getvalue()}[kind]  # fmt: skip
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    files.spooled_input.cache_clear()
    source, records = read("-")
    assert [p.chosen[0]["content"] for p in pairs(records)] == [r["chosen"] for r in rows]
    (identity,) = source.inputs
    assert (identity.name, identity.sha256) == ("-", hashlib.sha256(given).hexdigest())
    assert pairs(records)[0].source == "-"
    files.spooled_input.cache_clear()


def test_messages_in_json_text_are_messages_if_all_of_the_column_are(tmp_path):
    message = [{"role": "assistant", "content": "yes"}]
    texts = {"prompt": "Q", "chosen": json.dumps(message), "rejected": json.dumps([message[0] | {"content": "no"}])}
    table = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([texts]), table)
    for path in (jsonl(tmp_path / "a.jsonl", texts), str(table)):
        source, (pair,) = read(path)
        assert source.form.name == "prompt-and-conversation" and pair.chosen == message
    source, records = read(jsonl(tmp_path / "b.jsonl", texts, record(0)))
    assert source.form.name == "trl-standard" and pairs(records)[0].chosen[0]["content"] == texts["chosen"]
    repr_ = {"prompt": "Q", "chosen": str(message), "rejected": str(message)}
    with pytest.raises(UserError, match=r"c\.jsonl: the texts of 'chosen' are Python lists, not JSON"):
        open_source([jsonl(tmp_path / "c.jsonl", repr_ | {"prompt": "plain"})])


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
    (tmp_path / "a.json").write_text(json.dumps([record(0), record(1, chosen="\ud800")]))
    _, records = read(str(tmp_path / "a.json"))
    assert reasons(records) == ["pair", "not_text"]
    assert records[1].raw == '{"chosen":"\\ud800","prompt":"question 1?","rejected":"bad 1"}'


def test_only_the_arrow_files_that_save_to_disk_lists_are_data(tmp_path):
    from datasets import Dataset

    data = Dataset.from_list([record(n) for n in range(3)])
    data.save_to_disk(str(tmp_path / "d"), num_shards=2)
    other = pa.Table.from_pylist([record(9)])
    with pa.ipc.new_stream(tmp_path / "d" / "cache-1.arrow", other.schema) as writer:
        writer.write_table(other)
    source, records = read(str(tmp_path / "d"))
    assert [p.prompt[0]["content"] for p in pairs(records)] == ["question 0?", "question 1?", "question 2?"]
    assert [p.source.rsplit("/")[-1] for p in pairs(records)] == [
        "data-00000-of-00002.arrow", "data-00000-of-00002.arrow", "data-00001-of-00002.arrow"
    ]  # fmt: skip
    assert source.notes == (
        f"{tmp_path}/d: 2 data files: data-00000-of-00002.arrow, data-00001-of-00002.arrow",
        f"{tmp_path}/d: skipped cache-1.arrow, dataset_info.json, state.json (not data files)",
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.xlsx", b"PK", r"a\.xlsx: unknown file type.*\.jsonl.*\.parquet"),
        ("a.jsonl", b"", "no records"),
        ("a.jsonl", b"\n  \n", "no records"),
        ("a.json", b"[]", "no records"),
        ("a.json", b"[1,\n 2,,]", r"a\.json:2:4: not JSON"),
        ("a.json", b'{"a": [], "b": []}', "an object with 2 lists"),
        ("a.parquet", b"PAR1 no", r"a\.parquet: cannot be read"),
        ("a.jsonl.xz", lzma.compress(b'{"prompt": "q"}' * 99)[:-9], r"a\.jsonl\.xz: cannot be read"),
        ("a.jsonl.bz2", bz2.compress(b'{"prompt": "q"}' * 99)[:-9], r"a\.jsonl\.bz2: cannot be read"),
        ("a.zip", b"PK\x03\x04no", r"a\.zip: cannot be read"),
        ("a.jsonl.gz", gzip.compress(b'{"prompt": "q"}' * 99)[:-9], r"a\.jsonl\.gz: cannot be read"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("a.jsonl", b"nonsense\n[1]\n", r"none of 2 records is an object:\n.*a\.jsonl:1: not JSON"),
    ],
)
def test_a_file_without_records_is_the_users_error(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"(?s){said}"):
        open_source([str(tmp_path / name)])


def test_a_missing_path_names_what_lies_beside_it(tmp_path):
    jsonl(tmp_path / "train.jsonl", record(0))
    with pytest.raises(UserError, match=r"trian\.jsonl: no such file or folder; did you mean 'train\.jsonl'"):
        open_source([str(tmp_path / "trian.jsonl")])
    (tmp_path / "below").mkdir()
    (tmp_path / "train.jsonl").rename(tmp_path / "below" / "train.jsonl")
    for foreign in ("{}", '{"files": []}'):  # not of this project
        (tmp_path / "manifest.json").write_text(foreign)
        with pytest.raises(UserError, match=r"has no data files.*there are some in \S*below$"):
            open_source([str(tmp_path)])
    (tmp_path / "manifest.json").write_text('{"stage": "shards"}')
    with pytest.raises(UserError, match=r"that rmo made \(shards\), not preference data; give the file of pairs"):
        open_source([str(tmp_path)])


def test_every_bad_line_is_a_reject_with_its_place_its_reason_and_its_text(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl",
        record(0),
        b"",
        b'{"prompt": "cut',
        b'"text"',
        b'{"prompt": "\xff"}',
        {"prompt": "q", "chosen": "c"},
        record(1, chosen=" "),
        record(2, chosen="bad 2"),
        record(3, chosen=7),
        {"chosen": "\n\nHuman: Q\n\nAssistant: x", "rejected": "\n\nHuman: Q\n\nAssistant: y", "prompt": None},
        record(4, prompt=""),
        record(0, id="again"),
        b"[" * 100_000,
        record(5, chosen="\ud800"),
        record(6, prompt="nul \x00"),
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
        json.dumps(record(1)),
        json.dumps(record(2, score=1)),
        json.dumps(record(3, score="high", id=3)),
        json.dumps(record(1, rejected="\ud800", score=0.5)),
        json.dumps(record(1, score="\ud800")),
        json.dumps(record(1, chosen=[{"role": "user", "content": "x"}])),
        '{"chosen": "\\ud800"}',
        "not json",
        "[]",
        " ",
    ]
)


@settings(deadline=None)  # the clock of a busy machine is no promise
@given(lines=st.lists(LINES, max_size=12), limit=st.none() | st.integers(1, 12))
def test_pairs_and_rejects_add_up_to_the_records_and_fit_their_tables(tmp_path_factory, lines, limit):
    path = jsonl(
        tmp_path_factory.mktemp("law") / "a.jsonl", json.dumps(record(0)).encode(), *(x.encode() for x in lines)
    )
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
    a = jsonl(tmp_path / "a.jsonl", record(0), b"", b"broken")
    b = jsonl(tmp_path / "b.jsonl", record(1), record(2))
    source, records = read(a, b, limit=3)
    assert [(r.source, r.line) for r in records] == [(a, 1), (a, 3), (b, 1)]
    assert len(source.inputs) == 2
    with pytest.raises(UserError, match="--limit 0: expected 1 or more"):
        open_source([a], limit=0)
