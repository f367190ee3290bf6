"""Each kind of file gives its records as they stand there, one at a time, and says where it is broken."""

import csv
import gzip
import json
import zipfile

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.read.files import DataFile
from rmo_curate.read.readers import json_files, reader_of
from rmo_curate.read.readers.arrow_files import read_arrow
from rmo_curate.read.readers.csv_files import read_csv
from rmo_curate.read.readers.json_files import read_json, read_jsonl
from rmo_train.console.errors import UserError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=6), st.sampled_from([None, 2]), st.booleans(), st.integers(1, 9))
def test_a_json_list_read_in_pieces_is_the_list(tmp_path_factory, items, indent, ascii_only, chunk):
    path = tmp_path_factory.mktemp("law") / "a.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    before, json_files.CHUNK = json_files.CHUNK, chunk
    try:
        assert [r.value for r in read_json(path)] == items
    finally:
        json_files.CHUNK = before


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('[{"a": 1},\n {"a": 2},\n  oops]', "3:3"),
        ('[{"a": 1}\n {"a": 2}]', "2:2"),
        ('[{"a": 1},\n\n {"a": ]', "3:8"),
        ('[{"a": 1}]\n x', "2:2"),
        ('[{"a": 1},\n', "2:1"),
        ('[{"a": 1},\n]', "2:1"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
def test_a_broken_json_list_names_line_and_column(tmp_path, monkeypatch, text, place, chunk):
    monkeypatch.setattr(json_files, "CHUNK", chunk)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=rf"a\.json:{place}: not JSON"):
        list(read_json(tmp_path / "a.json"))


def test_a_long_json_list_is_not_held_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "CHUNK", 1000)
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "x" * 90}] * 500))
    held = 0
    more = json_files._Values._more

    def watched(self):
        nonlocal held
        more(self)
        held = max(held, len(self.buffer))

    monkeypatch.setattr(json_files._Values, "_more", watched)
    assert sum(1 for _ in read_json(path)) == 500
    assert held <= 2 * 1000 < path.stat().st_size / 20


def rows_of(path):
    return [r.value if r.problem is None else r.problem for r in read_csv(path)]


def test_csv_cells_of_several_lines_quotes_and_a_byte_order_mark_come_out_whole(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt,chosen\r\n"first\r\nsecond","say ""hi"", now"\r\n\r\nnext,\r\n')
    assert rows_of(path) == [
        {"prompt": "first\r\nsecond", "chosen": 'say "hi", now'},
        {"prompt": "next", "chosen": None},
    ]


def test_csv_cells_longer_than_the_modules_limit_are_read(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="") as f:
        csv.writer(f).writerows([["prompt"], ["x" * 200_000]])
    assert rows_of(tmp_path / "a.csv") == [{"prompt": "x" * 200_000}]


def test_csv_rows_that_do_not_fit_have_a_problem(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n1,2,3\n1\n\xff,2\n")
    expected = "{} cells, the header has 2; quote cells that contain a comma or a line break"
    assert rows_of(path) == [
        {"a": "1", "b": "2"},
        expected.format(3),
        expected.format(1),
        "a cell in this row is not UTF-8",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,a\n1,2\n", r"a\.csv:1: two columns named 'a'"),
        ('a,b\n1,"2\n', r"a\.csv:2: not CSV: unexpected end of data"),
        ("chosen\n\"[{'role': 'user', 'content': 'Q'}]\"\n", "'chosen' are Python lists, not JSON"),
    ],
)
def test_a_broken_csv_is_the_users_error(tmp_path, content, said):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=said):
        list(read_csv(tmp_path / "a.csv"))


def test_a_csv_column_of_messages_is_read_as_messages_and_an_answer_in_json_stays_text(tmp_path):
    message = [{"role": "user", "content": "Q"}]
    with (tmp_path / "a.csv").open("w", newline="") as f:
        csv.writer(f).writerows(
            [["chat", "answer", "mixed"], [json.dumps(message), '{"a": 1}', json.dumps(message)], ["", "[1]", "text"]]
        )
    assert rows_of(tmp_path / "a.csv") == [
        {"chat": message, "answer": '{"a": 1}', "mixed": json.dumps(message)},
        {"chat": None, "answer": "[1]", "mixed": "text"},
    ]


def test_a_null_in_an_arrow_struct_is_an_absent_key_and_a_null_column_stays(tmp_path):
    rows = [{"x": [{"role": "user", "name": None}, {"role": None, "name": "Ann"}], "y": None, "z": 1}]
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    assert [r.value for r in read_arrow(tmp_path / "a.arrow")] == [
        {"x": [{"role": "user"}, {"name": "Ann"}], "y": None, "z": 1}
    ]


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("column", [["aa", "bb"], [["aa"], ["bb"]], [{"k": "aa"}, {"k": "bb"}]])
def test_an_arrow_file_whose_texts_end_outside_it_is_damaged_and_no_crash(tmp_path, new, column):
    """Found by `benchmarks.fuzz`: Arrow reads where the file says, which ended the process."""
    path, table = tmp_path / "a.arrow", pa.table({"x": column})
    with new(path, table.schema) as writer:
        writer.write_table(table)
    data, ends = path.read_bytes(), b"".join(n.to_bytes(4, "little") for n in (0, 2, 4))
    assert data.count(ends) == 1 and len(list(read_arrow(path))) == 2
    path.write_bytes(data.replace(ends, ends[:8] + (2**31 - 1).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"cannot be read .* the file is damaged"):
        list(DataFile("a.arrow", path, read_arrow).records())


def test_a_text_of_an_arrow_file_that_is_not_utf8_is_its_rows_own_problem(tmp_path):
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.array([0, 1, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff\xfe")]
    )
    with pa.ipc.new_file(tmp_path / "a.arrow", pa.schema([("x", pa.string())])) as writer:
        writer.write_table(pa.table({"x": bad}))
    first, second = read_arrow(tmp_path / "a.arrow")
    assert first.value == {"x": "a"} and second.problem == "a text in this row is not UTF-8"


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_csv_of_another_delimiter_is_read_by_it(tmp_path, delimiter):
    (tmp_path / "a.csv").write_text(f'prompt{delimiter}chosen\n"q, and"{delimiter}c\n')
    assert rows_of(tmp_path / "a.csv") == [{"prompt": "q, and", "chosen": "c"}]


def test_a_tsv_is_read_by_its_tabs(tmp_path):
    (tmp_path / "a.tsv").write_text("prompt, of two\tchosen\nq, and\tc\n")
    (record,) = reader_of(tmp_path / "a.tsv")(tmp_path / "a.tsv")
    assert record.value == {"prompt, of two": "q, and", "chosen": "c"}


@pytest.mark.parametrize("text", ['[{"a": 1},\n {"a": 2}]\n', '[{"a": 1}, {"a": 2}]\n', '\n[\n{"a": 1},\n{"a": 2}\n]'])
def test_a_list_under_the_name_of_json_lines_is_read_as_a_list(tmp_path, text):
    (tmp_path / "a.jsonl").write_text(text)
    assert [r.value for r in read_jsonl(tmp_path / "a.jsonl")] == [{"a": 1}, {"a": 2}]


def test_a_list_in_one_long_line_is_not_held_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "CHUNK", 1000)
    monkeypatch.setattr(json_files, "_parse_line", None)  # would be given the whole line
    (tmp_path / "a.jsonl").write_text(json.dumps([{"text": "x" * 90}] * 500))
    assert sum(1 for _ in read_jsonl(tmp_path / "a.jsonl")) == 500


def test_a_line_that_is_no_object_says_what_is_wrong_with_it(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1},\n{"a": 1, "c": {"b": 1}, "c": 2}\n[{"a": 1}]\n')
    records = list(read_jsonl(tmp_path / "a.jsonl"))
    assert [r.problem for r in records] == [
        "not JSON at column 9: a comma after the object; each line must be one object",
        "not readable as JSON: the key 'c' occurs twice in one object",
        None,
    ]
    assert records[2].value == [{"a": 1}]  # a line of its own: which the source rejects


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_utf_16_is_named_with_the_command_that_mends_it(tmp_path, name, encoding):
    (tmp_path / name).write_bytes('{"prompt": "q"}\n'.encode(encoding))
    with pytest.raises(UserError, match=r"UTF-16, expected UTF-8.*iconv -f UTF-16"):
        list(reader_of(tmp_path / name)(tmp_path / name))


def test_a_printed_record_is_one_and_a_list_in_an_object_is_many(tmp_path):
    printed = {"context": [{"role": "user", "content": "Q"}], "completions": [{"rank": 0, "completion": []}]}
    (tmp_path / "a.json").write_text(json.dumps(printed, indent=2))
    assert [r.value for r in read_json(tmp_path / "a.json")] == [printed]
    (tmp_path / "a.json").write_text(json.dumps({"type": "x", "instances": [{"a": 1}, {"a": 2}]}, indent=2))
    assert [r.value for r in read_json(tmp_path / "a.json")] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("members", [["a.jsonl"], ["x/a.jsonl", "__MACOSX/x/._a.jsonl"]])
def test_an_archive_of_one_file_is_that_file(tmp_path, members):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in members:
            archive.writestr(name, '{"a": 1}\n')
    assert [r.value for r in reader_of(tmp_path / "a.zip")(tmp_path / "a.zip")] == [{"a": 1}]


@pytest.mark.parametrize(
    ("members", "said"), [(["a.jsonl", "b.jsonl"], "of 2 files, expected one"), (["a.txt"], "contains a.txt")]
)
def test_another_archive_says_what_to_do(tmp_path, members, said):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in members:
            archive.writestr(name, "x")
    with pytest.raises(UserError, match=f"{said}.*unpack it"):
        list(reader_of(tmp_path / "a.zip")(tmp_path / "a.zip"))


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.csv.gz", "A.JSON.GZ", "a.b.arrow", "a.parquet"])
def test_kinds_of_file_are_told_by_their_suffix(tmp_path, name):
    assert reader_of(tmp_path / name) is not None
    assert reader_of(tmp_path / f"{name}.bak") is None


def test_gzipped_csv_is_read(tmp_path):
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a\n1\n"))
    assert rows_of(tmp_path / "a.csv.gz") == [{"a": "1"}]
