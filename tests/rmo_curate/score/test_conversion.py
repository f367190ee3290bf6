"""`inspect --to`: data of any form in one, which reads back as the same pairs; what is none lies beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmo_curate.read.sources import Pair
from rmo_train.data.tool_calls import readable
from tests.command_line import curate
from tests.rmo_curate.read.published_forms import FORMS
from tests.rmo_curate.read.reading import jsonl, pairs, read
from tests.rmo_curate.scored import record


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


READ = [form for form in FORMS if form.means and not form.columns]


@pytest.mark.parametrize("form", READ, ids=[form.whose for form in READ])
def test_every_published_form_comes_out_in_one_and_reads_back_as_the_same_pairs(tmp_path, form):
    data, out = jsonl(tmp_path / "a.jsonl", form.record), tmp_path / "out.jsonl"
    assert curate("inspect", data, "--to", out).code == 0
    (before,), (after,) = pairs(read(data)[1]), pairs(read(str(out))[1])
    assert content(after) == content(before)
    assert not (tmp_path / "out.rejects.jsonl").exists()
    meant = map(readable, form.means[0])
    written, expected = ([(m["role"], m["content"]) for m in side] for side in (lines(out)[0]["prompt"], meant))
    assert written == expected


def content(pair: Pair) -> tuple:
    return pair.id, pair.prompt, pair.chosen, pair.rejected, pair.tools, pair.chat_template_kwargs


def test_rejects_lie_beside_and_other_columns_come_along(tmp_path):
    tools = [{"name": "f"}]
    nested = {"n": {"a": [1]}, "score": 2, "tools": tools, "chat_template_kwargs": {"think": False}}
    data = jsonl(
        tmp_path / "a.jsonl", record(0, id=7, **nested), record(1, chosen=" "), b"broken", record(2, score=None)
    )
    out = tmp_path / "new" / "out.jsonl"
    said = curate("inspect", data, "--to", out)
    assert said.code == 0 and "2 pairs: " in said.out and "2 rejects, each with its reason: " in said.out
    first, second = lines(out)
    assert first["id"] == "7" and {k: first[k] for k in nested} == nested
    assert second["score"] is None and "tools" not in second
    beside = lines(tmp_path / "new" / "out.rejects.jsonl")
    assert [(r["line"], r["reason"]) for r in beside] == [(2, "empty_response"), (3, "broken_line")]
    assert beside[1]["raw"] == "broken" and beside[0]["source"] == data
    assert sorted(p.name for p in out.parent.iterdir()) == ["out.jsonl", "out.rejects.jsonl"]


@pytest.mark.parametrize(("name", "said"), [("out.csv", "ends in .jsonl"), ("a.jsonl", "a.jsonl already exists")])
def test_a_target_that_cannot_be_is_refused_before_anything_is_read(tmp_path, name, said):
    data = jsonl(tmp_path / "a.jsonl", record(0))
    refused = curate("inspect", data, "--to", tmp_path / name)
    assert refused.code == 2 and said in refused.err
    assert lines(Path(data)) == [record(0)]


def test_rejects_that_are_there_are_kept_unless_a_kill_left_them(tmp_path):
    data, out = jsonl(tmp_path / "a.jsonl", record(0), record(1, chosen=" ")), tmp_path / "out.jsonl"
    beside = tmp_path / "out.rejects.jsonl"
    beside.write_text("mine")
    assert curate("inspect", data, "--to", out).refused(f"{beside} already exists; give a new name")
    assert beside.read_text() == "mine" and not out.exists()
    (tmp_path / ".out.jsonl.tmp").write_text("killed between the two renames")
    assert curate("inspect", data, "--to", out).code == 0
    assert len(lines(out)) == len(lines(beside)) == 1 and not list(tmp_path.glob(".*"))


def test_many_rejects_are_said_loudly_at_the_end_with_what_would_read_them(tmp_path):
    other = {"question": "Q", "good": "yes", "bad": "no"}
    data = jsonl(tmp_path / "a.jsonl", *(record(n) for n in range(7)), *({**other, "question": str(n)} for n in "abc"))
    said = curate("inspect", data).out
    warning = next(line for line in said.splitlines() if line.startswith("warning: "))
    assert "3 of 10 records (30%) are not pairs, mostly because of missing_field" in warning
    assert f"rmo-curate inspect {data} --map chosen=good --map rejected=bad" in warning
    data = jsonl(tmp_path / "b.jsonl", *(record(n) for n in range(8)), record(8, chosen=""), record(9, chosen=""))
    assert "warning: " not in curate("inspect", data).out
