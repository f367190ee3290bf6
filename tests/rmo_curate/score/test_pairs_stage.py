"""The pairs stage: the same bytes however many processes render, nothing finished is rendered again, no orphans."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest

from rmo_curate.read import processes, render_pool
from rmo_curate.read.processes import workers_for
from rmo_curate.read.sources import open_source
from rmo_curate.score import pairs_stage
from rmo_curate.score.pairs_stage import write_pairs
from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.data.rendering import Renderer
from rmo_train.store import tables
from tests.manifests import manifest_of, parts_of
from tests.rmo_curate.scored import contents, marks, record, write_jsonl
from tests.tiny import make_tokenizer

STRICT = (
    "{% for m in messages %}{% if 'FORBIDDEN' in m.content %}{{ raise_exception('no such word') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    """Its template refuses a conversation with the word FORBIDDEN."""
    return Renderer(make_tokenizer(template=STRICT))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """700 records: pairs (some too long), broken lines, and pairs that the template refuses."""

    def line(i: int):
        if i % 31 == 0:
            return "{broken"
        answer = "FORBIDDEN" if i % 47 == 0 else "word " * (60 if i % 29 == 0 else i % 9 + 1)
        return record(i, chosen=answer, id=f"r{i}", topic=f"t{i % 3}")

    records = [line(i) for i in range(1, 701)]
    return open_source([str(write_jsonl(tmp_path_factory.mktemp("data") / "d.jsonl", records))])


def write(source, renderer, run: Path, *, workers: int = 1):
    return write_pairs(source, renderer, run, {"k": 1}, part_size=100, max_length=80, workers=workers)


@pytest.fixture(scope="module")
def whole(source, renderer, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    write(source, renderer, run)
    return run


def test_every_record_is_counted_once(whole):
    counts = manifest_of(whole / "pairs")["counts"]
    broken, refused = 700 // 31, 700 // 47  # no multiple of both is in range
    assert counts["rejects/broken_line"] == broken and counts["rejects/bad_messages"] == refused
    assert counts["rejects"] == broken + refused and counts["pairs"] == 700 - broken - refused
    assert counts["too_long"] == 700 // 29
    rejects = parts_of(whole / "rejects")
    lines = [r for t in tables.iter_parts(whole / "rejects", rejects) for r in t["line"].to_pylist()]
    assert lines == sorted(lines) and len(lines) == broken + refused


def test_pairs_lead_back_to_their_file_and_line_beside_columns_of_the_same_names(renderer, tmp_path):
    own = {"source": "mine", "line": 5, "source_line": "L5", "source_file": "own.txt"}
    first = write_jsonl(tmp_path / "a.jsonl", [record(0, **own), "{broken", record(1, **own)])
    second = write_jsonl(tmp_path / "b.jsonl", ["", record(2, **own)])
    write(open_source([str(first), str(second)]), renderer, tmp_path / "run")
    (table,) = tables.iter_parts(tmp_path / "run" / "pairs", parts_of(tmp_path / "run" / "pairs"))
    places = list(zip(table["source_file"].to_pylist(), table["source_line"].to_pylist(), strict=True))
    assert places == [(str(first), 1), (str(first), 3), (str(second), 2)]
    names = {
        "source": "source",
        "line": "line",
        "source_source_line": "source_line",
        "source_source_file": "source_file",
    }
    assert {name: table[name][0].as_py() for name in names} == {name: own[theirs] for name, theirs in names.items()}


def test_the_longest_pair_is_known_after_a_resumed_run(source, renderer, whole, tmp_path):
    rows = [row for t in tables.iter_parts(whole / "pairs", parts_of(whole / "pairs")) for row in t.to_pylist()]
    longest = max(len(r["prompt_ids"]) + max(r["chosen_tokens"], r["rejected_tokens"]) for r in rows)
    assert longest > 80 and manifest_of(whole / "pairs")["longest"] == longest
    write(source, renderer, tmp_path)
    (tmp_path / "pairs" / "part-00006.parquet").write_bytes(b"")  # the last one: few pairs, none of them the longest
    write(source, renderer, tmp_path)
    assert manifest_of(tmp_path / "pairs")["longest"] == longest


@pytest.mark.parametrize("workers", [2, 3])
def test_the_bytes_do_not_depend_on_the_number_of_workers(source, renderer, whole, tmp_path, workers):
    write(source, renderer, tmp_path, workers=workers)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.parametrize("lost", [[2], [0, 3], [6]], ids=str)
@pytest.mark.parametrize("workers", [1, 2])
def test_pairs_of_finished_parts_are_not_rendered_again(
    source, renderer, whole, tmp_path, monkeypatch, capsys, lost, workers
):
    write(source, renderer, tmp_path)
    parts = [tmp_path / "pairs" / f"part-{i:05d}.parquet" for i in lost]
    others = {f: m for f, m in marks(tmp_path, "*.parquet").items() if tmp_path / f not in parts}
    for part in parts:
        part.write_bytes(bytes(part.stat().st_size))
    asked: list[int] = []

    def counted(make, batches, n):
        def seen():
            for batch in batches:
                asked.append(len(batch))
                yield batch

        return render_pool.rendered(make, seen(), n)

    monkeypatch.setattr(pairs_stage, "rendered", counted)
    write(source, renderer, tmp_path, workers=workers)
    rows = {0: 100, 2: 100, 3: 100, 6: 700 - 700 // 31 - 700 // 47 - 600}
    assert sum(asked) == sum(rows[i] for i in lost) + 700 // 47  # and the refused ones, which are in no part
    assert contents(tmp_path) == contents(whole)
    assert {f: m for f, m in marks(tmp_path, "*.parquet").items() if f in others} == others
    assert all(f"{part.name} was damaged and will be rewritten" in capsys.readouterr().err for part in parts[:1])


def test_an_error_in_a_worker_is_raised_here(source, renderer, tmp_path):
    broken = Renderer(make_tokenizer())
    broken.turn_end = None  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="written"):
        write(source, broken, tmp_path, workers=2)


def test_a_worker_ended_from_outside_is_said(renderer):
    def batches():
        for n in count():
            if n == 5:
                multiprocessing.active_children()[0].kill()
            yield []

    with pytest.raises(ProcessingError, match=r"was killed .*finished parts are kept"):
        for _ in render_pool.rendered(render_pool.RowMaker(renderer, tables.PAIR_SCHEMA, 80), batches(), 2):
            pass
    assert not multiprocessing.active_children()


def test_data_that_change_while_they_are_read_are_refused(renderer, tmp_path):
    data = write_jsonl(tmp_path / "d.jsonl", [record(i) for i in range(4)])
    source = open_source([str(data)])
    write_jsonl(data, [record(i) for i in range(5)])
    with pytest.raises(UserError, match=r"the data changed while being read \(4 records, then 5\)"):
        write(source, renderer, tmp_path / "run")


def test_small_data_need_no_workers(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    assert workers_for(19_999) == 1 and workers_for(20_000) == 6
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert workers_for(1_000_000) == processes.MOST_WORKERS


ENDLESS = """
import sys
from pathlib import Path
from itertools import repeat
from rmo_curate.read.render_pool import RowMaker, rendered
from rmo_train.data.rendering import Renderer
from rmo_train.store.tables import PAIR_SCHEMA
from tests.tiny import make_tokenizer
for n, rows in enumerate(rendered(RowMaker(Renderer(make_tokenizer()), PAIR_SCHEMA, 80), repeat([]), 2)):
    if n == 0:
        print("rendering", flush=True)
"""


def children(pid: int) -> list[int]:
    """Processes that `pid` started, and theirs."""
    found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [p for child in found for p in children(child)]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(ending):
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "rendering\n"
    workers = children(process.pid)
    assert len(workers) == 3  # two, and the standard library's process that cleans up
    process.send_signal(ending)
    try:
        process.communicate(timeout=10)
    finally:
        process.kill()
    deadline = time.monotonic() + 5
    while any(_alive(p) for p in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(p) for p in workers)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
