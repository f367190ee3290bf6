"""How long a pair may be, resolved once per folder; and what is lost to length is said by every later command."""

from __future__ import annotations

import json

import pytest

from rmo_curate.runs.run import open_run
from rmo_curate.score import length_limit, pairs_stage
from rmo_curate.score.length_limit import LengthLimit, sum_line
from rmo_curate.score.settings import ScoreSettings
from rmo_train.console.errors import UserError
from rmo_train.forward.memory import RowMemory
from rmo_train.report import keeping_them
from rmo_train.store.manifests import TooLong
from tests.command_line import curate, train
from tests.manifests import manifest_of
from tests.rmo_curate.scored import Killed, record, score, score_line, write_jsonl

GIB = 2**30


def limit_of(model, run=None, **settings):
    return length_limit.length_limit(ScoreSettings(**settings), str(model), "float32", run=run)


@pytest.fixture
def memory(monkeypatch):
    """memory(bytes): what the machine has from then on."""
    return lambda count: monkeypatch.setattr(length_limit, "device_memory", lambda: ("cpu", count))


def test_the_limit_is_the_context_or_what_memory_allows(tiny_model_folder, memory):
    memory(16 * GIB)
    found = limit_of(tiny_model_folder)
    assert (found.tokens, found.context, found.why) == (2048, 2048, "the context")
    assert limit_of(tiny_model_folder, max_length=64).tokens == 64
    memory(8_000_000)
    small = limit_of(tiny_model_folder)
    assert small.why == "by memory" and small.tokens % 64 == 0 and 64 < small.tokens < 2048
    weights = sum(p.stat().st_size for p in tiny_model_folder.glob("*.safetensors"))
    room = 0.5 * (8_000_000 - weights)
    assert small.row.scoring(small.tokens) <= room < small.row.scoring(small.tokens + 64)


def test_a_model_over_two_gpus_leaves_more_room_on_each(tiny_model_folder, memory):
    memory(8_000_000)
    weights = sum(p.stat().st_size for p in tiny_model_folder.glob("*.safetensors"))
    split = limit_of(tiny_model_folder, tensor_parallel_size=2)
    assert split.row.scoring(split.tokens) <= 0.5 * (8_000_000 - weights / 2) < split.row.scoring(split.tokens + 64)


def test_a_folder_keeps_the_limit_that_it_was_begun_with(tiny_model_folder, tmp_path, memory, monkeypatch):
    data, run = write_jsonl(tmp_path / "d.jsonl", [record(i) for i in range(8)]), tmp_path / "run"
    memory(8_000_000)
    expected = limit_of(tiny_model_folder).tokens

    def killed(self, rows):
        write(self, rows)
        raise Killed

    write = pairs_stage._Parts._write
    monkeypatch.setattr(pairs_stage._Parts, "_write", killed)
    with pytest.raises(Killed):
        score(data, tiny_model_folder, run)
    monkeypatch.setattr(pairs_stage._Parts, "_write", write)
    memory(16 * GIB)
    assert limit_of(tiny_model_folder, run).tokens == expected  # begun, with no manifest yet
    score(data, tiny_model_folder, run)
    assert manifest_of(run)["max_length"] == expected
    assert limit_of(tiny_model_folder, run).why == "as when the folder was started"
    with pytest.raises(UserError, match=f"the folder has {expected}, you asked for 64"):
        score(data, tiny_model_folder, run, max_length=64)


def test_the_sum_warns_where_a_pair_takes_more_than_is_safe():
    row = RowMemory(layers=1, hidden=1, layer=1000, segment_masks=0)
    line = sum_line(LengthLimit(4096, 8192, 1024, row, "as when the folder was started"), 3000)
    assert line.startswith("warning: longest pair 3,000 tokens, context 8,192, memory for 1,024: up to 4,096 tokens")
    assert not sum_line(LengthLimit(4096, 8192, 1024, row, "as asked"), 1000).startswith("warning")
    assert "no limit by the model" in sum_line(LengthLimit(4096, None, 9999, row, "by memory"), 10)


@pytest.mark.parametrize(
    ("limit", "longest", "context", "said"),
    [
        (1024, 3912, 8192, "score with --max-length 3912 to keep them"),
        (1024, 3912, None, "score with --max-length 3912 to keep them"),
        (1024, 9000, 8192, "score with --max-length 8192 to keep those that fit the model (the longest has 9,000"),
        (8192, 9000, 8192, "the model's context is 8,192: score with a model that has a longer context"),
        (1024, None, None, "a larger --max-length"),
    ],
)
def test_the_flag_that_keeps_them_is_one_that_the_model_takes(limit, longest, context, said):
    assert said in keeping_them(TooLong(1, 10, limit, longest, context))


def test_what_is_lost_to_length_is_said_by_every_later_command(working_folder, tiny_model_folder):
    records = [record(i, id=f"q{i}", chosen="word " * (300 if i == 3 else 2)) for i in range(8)]
    data = write_jsonl(working_folder / "pairs.jsonl", records)
    scored = score_line(data, tiny_model_folder, "--max-length", 100)
    pairs = open_run(working_folder / "run").pairs(["id", "prompt_ids", "chosen_tokens"]).to_pylist()
    (longest,) = (len(p["prompt_ids"]) + p["chosen_tokens"] for p in pairs if p["id"] == "q3")
    flag = f"--max-length {longest}"
    assert f"longest pair {longest:,} tokens, context 2,048" in scored.err and flag in scored.out
    assert flag in curate("status", "run").out
    filtered = curate("filter", "run", "--out", "shards", "--rule", "none").out
    assert "7 scored of 8 pairs = 7 kept + 0 noisy" in filtered and flag in filtered
    assert flag in curate("filter", "run", "--out", "shards", "--rule", "none").out  # already done
    card = (working_folder / "shards" / "README.md").read_text()
    assert "| not scored: too long | 1 |" in card and flag in card
    audited = curate("audit", "run", "--out", "report")
    numbers = json.loads((working_folder / "report" / "audit.json").read_text())
    assert flag in audited.out and flag in (working_folder / "report" / "report.html").read_text()
    assert numbers["too_long"] == {"pairs": 1, "of": 8, "max_length": 100, "longest": longest, "context": 2048}
    assert "q3" not in [s["id"] for s in numbers["suspects"]]
    batch = ("--per-device-train-batch-size", 1, "--gradient-accumulation-steps", 1, "--dry-run")
    trained = train("run", "shards", "--model", tiny_model_folder, "--out", "out", *batch)
    assert flag in trained.out + trained.err
    assert score_line(data, tiny_model_folder, flag.split()[0], longest, "--overwrite").out.count("0 pairs too long")
