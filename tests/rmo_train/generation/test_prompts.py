"""Prompts of every form come out in order; what has none is refused with its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmo_train.console.errors import UserError
from rmo_train.generation.prompts import read_prompts

USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
YES, NO = {"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}


def jsonl(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("record", "messages"),
    [
        ({"instruction": "Hi"}, [USER]),
        ({"instruction": "Hi", "input": ""}, [USER]),
        ({"instruction": "Add", "input": "1 2"}, [{"role": "user", "content": "Add\n1 2"}]),
        ({"prompt": "Hi"}, [USER]),
        ({"prompt": [SYSTEM, USER]}, [SYSTEM, USER]),
        ({"messages": [USER, YES, USER]}, [USER, YES, USER]),
        ({"prompt": "Hi", "chosen": "yes", "rejected": "no"}, [USER]),
        ({"chosen": [SYSTEM, USER, YES], "rejected": [SYSTEM, USER, NO]}, [SYSTEM, USER]),
        ({"instruction": "a\u2028b"}, [{"role": "user", "content": "a\u2028b"}]),
    ],
)
def test_every_form_gives_its_messages(record: dict, messages: list, tmp_path: Path):
    for source in (jsonl(tmp_path / "p.jsonl", record), tmp_path / "p.json"):
        if not source.exists():
            source.write_text(json.dumps([record]))
        (prompt,) = read_prompts(source)
        assert list(prompt.messages) == messages


def test_parquet_gives_the_same_without_the_fields_that_it_fills_in(tmp_path: Path):
    rows = [{"prompt": [SYSTEM, USER | {"name": "Ann"}], "dataset": "mine", "tools": [{"type": "function"}]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    (prompt,) = read_prompts(tmp_path / "p.parquet")
    assert list(prompt.messages) == [SYSTEM, USER | {"name": "Ann"}]
    assert (prompt.dataset, prompt.tools) == ("mine", '[{"type":"function"}]')


def test_the_keys_of_tools_keep_their_order(tmp_path: Path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "Rain?", "tools": [{"type": "function", "function": {"name": "f", "a": 1}}]}))
    (prompt,) = read_prompts(path)
    assert prompt.tools == '[{"type":"function","function":{"name":"f","a":1}}]'
    assert prompt.content == replace(prompt, tools='[{"function":{"a":1,"name":"f"},"type":"function"}]').content


def test_a_shard_folder_gives_the_prompts_of_its_pairs(shards: Path):
    assert [p.text for p in read_prompts(shards)] == [f"question {i}" for i in range(24)]


def test_pairs_of_one_prompt_are_answered_once_and_repeated_instructions_each_time(tmp_path: Path):
    pairs = [{"prompt": p, "chosen": c, "rejected": "no"} for p, c in (("a", "x"), ("a", "y"), ("b", "z"))]
    assert [p.text for p in read_prompts(jsonl(tmp_path / "pairs.jsonl", *pairs))] == ["a", "b"]
    twice = jsonl(tmp_path / "twice.jsonl", {"instruction": "a"}, {"instruction": "a"}, {"instruction": "b"})
    assert [p.text for p in read_prompts(twice)] == ["a", "a", "b"]
    assert [p.text for p in read_prompts(twice, limit=2)] == ["a", "a"]


def test_several_messages_are_shown_with_their_roles(tmp_path: Path):
    (prompt,) = read_prompts(jsonl(tmp_path / "p.jsonl", {"prompt": [SYSTEM, USER]}))
    assert prompt.text == "system: Be brief.\n\nuser: Hi"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "Hi", "answer": "yes"}, "it has question, answer; expected an `instruction`"),
        ("Hi", "str 'Hi'; expected an object"),
        ({"prompt": 3}, "the prompt is 3"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"prompt": []}, r"the prompt is \[\]"),
        ({"prompt": [{"content": "Hi"}]}, "has no role"),
        ({"prompt": [USER, YES]}, "ends with an assistant message"),
        ({"prompt": [USER, {"role": "tool_call", "content": "[]"}]}, "ends with an assistant message"),
        ({"chosen": [USER, YES], "rejected": [SYSTEM, USER, NO]}, r"the prompt is \[\]"),
    ],
)
def test_a_record_without_a_prompt_is_refused_with_its_line(record: object, said: str, tmp_path: Path):
    with pytest.raises(UserError, match=f"p.jsonl, line 2: .*{said}"):
        read_prompts(jsonl(tmp_path / "p.jsonl", {"prompt": "Hi"}, record))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"prompt": "Hi"}\n{"prompt": \n', "line 2: not JSON at column"),
        (b'[{"prompt": "Hi"}', "not JSON lines, a JSON list or Parquet"),
        (b"\xff\xfe\x00", "not JSON lines, a JSON list or Parquet"),
        (b"PAR1 and then nothing", "not JSON lines, a JSON list or Parquet"),
        (b"\n \n", "no records; expected"),
        (b"[]", "no records; expected"),
    ],
)
def test_a_damaged_or_empty_file_is_refused(content: bytes, said: str, tmp_path: Path):
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_prompts(tmp_path / "p")


def test_other_sources_are_refused(tmp_path: Path):
    with pytest.raises(UserError, match="no such file"):
        read_prompts(tmp_path / "nowhere.jsonl")
    with pytest.raises(UserError, match="not a finished run or shard folder"):
        read_prompts(tmp_path)
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "p.parquet")
    with pytest.raises(UserError, match="its columns are text; expected"):
        read_prompts(tmp_path / "p.parquet")
