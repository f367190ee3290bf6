"""Two commands that make one thing: the second is refused with the first one's name, or waits for its turn."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from rmo_train.store.files import opened_alone, write_bytes
from rmo_train.store.folder_lock import making
from tests.command_line import curate, train


@pytest.fixture(scope="module")
def chain(full_run: Path, tiny_model_folder: Path, tmp_path_factory) -> Path:
    """A folder with `shards`, and an adapter trained on them."""
    folder = tmp_path_factory.mktemp("chain")
    assert curate("filter", full_run, "--out", folder / "shards", "--rule", "none").code == 0
    line = ("--model", tiny_model_folder, "--out", folder / "adapter", "--lora", 2, "--learning-rate", 1e-3)
    assert train("run", folder / "shards", *line, "--max-steps", 1).code == 0
    return folder


def test_the_second_is_refused_with_the_name_of_the_first(chain, full_run, tiny_model_folder, tmp_path):
    out, shards = tmp_path / "made", chain / "shards"
    commands = [
        lambda: curate("filter", full_run, "--out", out, "--rule", "none"),
        lambda: curate("export", shards, "--to", "trl", "--out", out),
        lambda: train("run", shards, "--model", tiny_model_folder, "--out", out, "--learning-rate", 1e-3),
        lambda: train("merge", chain / "adapter", "--out", out),
    ]
    for command in commands:
        with making(out, "rmo-curate"):
            assert command().refused(
                str(out), f"(pid {os.getpid()}, on ", "is writing to this folder; wait until it ends"
            )
        assert not list(tmp_path.iterdir())
        assert command().code == 0
        assert [p.name for p in tmp_path.iterdir()] == ["made"]
        shutil.rmtree(out)


def test_the_lock_that_a_kill_left_behind_finished_shards_is_cleared_away(full_run, tmp_path):
    line = ("filter", full_run, "--out", tmp_path / "made", "--rule", "none")
    assert curate(*line).code == 0
    (tmp_path / ".made.filling").write_text("pid 1, on a machine")
    assert curate(*line).code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_two_writers_of_one_file_take_turns(tmp_path):
    path, temporary = tmp_path / "a.json", tmp_path / ".a.json.tmp"
    with opened_alone(temporary) as f:
        f.write(b"first")
        second = threading.Thread(target=write_bytes, args=(path, b"second"))
        second.start()
        second.join(0.2)
        assert second.is_alive() and not path.exists()
        f.flush()
        temporary.replace(path)
        assert path.read_bytes() == b"first"
    second.join(5)
    assert path.read_bytes() == b"second" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_writer_left_is_written_over(tmp_path):
    (tmp_path / ".a.json.tmp").write_bytes(b"half of something long")
    write_bytes(tmp_path / "a.json", b"new")
    assert (tmp_path / "a.json").read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["a.json"]
