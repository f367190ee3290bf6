"""Two commands on one run folder: the second is told of the first, and a killed one leaves no lock behind."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rmo_curate.runs.run_lock import LOCK, check_not_held, only_one
from rmo_curate.score import job as score_job
from rmo_train.console.errors import UserError
from tests.command_line import curate
from tests.rmo_curate.scored import contents, demo_records, score, write_jsonl

HOLDER = """
import sys, time
from pathlib import Path
from rmo_curate.runs.run_lock import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def data(tmp_path) -> Path:
    return write_jsonl(tmp_path / "pairs.jsonl", demo_records(12))


@pytest.fixture
def run(data, tiny_model_folder, tmp_path) -> Path:
    score(data, tiny_model_folder, tmp_path / "run")
    return tmp_path / "run"


def hold(folder: Path) -> subprocess.Popen[str]:
    """A process of its own that holds the folder."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


@pytest.fixture
def holder(run):
    found = hold(run)
    yield found
    found.kill()
    found.communicate()


def test_the_second_command_is_refused_with_the_name_of_the_first(holder, data, run, tiny_model_folder):
    name = f"another rmo-curate (pid {holder.pid}, on {socket.gethostname()}) is writing to this folder"
    before = contents(run)
    line = ("score", data, "--model", tiny_model_folder, "--out", run)
    assert curate(*line).refused(str(run), name)
    assert curate(*line, "--overwrite").refused(name)
    assert curate("proxy", run).refused(name)
    assert contents(run) == before


def test_reading_commands_and_dry_runs_need_no_lock(holder, data, run, tiny_model_folder, tmp_path):
    line = ("--model", tiny_model_folder, "--out", run, "--dry-run", "--proxy", "none")
    assert curate("status", run).out.count("lock") == curate("status", run).out.count(LOCK) == 0
    assert curate("status", run).code == curate("proxy", run, "--dry-run").code == 0
    assert curate("score", data, *line, "--part-size", 4, "--dtype", "float32").code == 0
    assert curate("filter", run, "--out", tmp_path / "shards", "--rule", "none").code == 0


def test_a_killed_holder_leaves_a_file_that_locks_nothing(holder, data, run, tiny_model_folder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (run / LOCK).is_file()
    score(data, tiny_model_folder, run)
    assert not (run / LOCK).exists()


def test_a_finished_folder_shows_no_trace_of_the_lock(run):
    assert LOCK not in {p.name for p in run.rglob("*")}


def test_a_file_that_its_holder_removed_is_not_mistaken_for_the_lock(tmp_path, monkeypatch):
    """Opened while held, locked after the holder removed it and another holds a new one: only the new one counts."""
    first = only_one(tmp_path)
    first.__enter__()
    second = only_one(tmp_path)
    real = fcntl.flock

    def late(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        first.__exit__(None, None, None)
        second.__enter__()
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match=f"pid {os.getpid()}"), only_one(tmp_path):
        pass
    second.__exit__(None, None, None)
    with only_one(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_holder_ends_at_that_moment_is_free(tmp_path, monkeypatch):
    holder = only_one(tmp_path)
    holder.__enter__()
    real = fcntl.flock

    def late(file: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        holder.__exit__(None, None, None)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with only_one(tmp_path):
        assert f"pid {os.getpid()}, " in (tmp_path / LOCK).read_text()


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_is_used_without(tmp_path, monkeypatch, error):
    def unknown(*given: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", unknown)
    check_not_held(tmp_path)
    with only_one(tmp_path), only_one(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_another_command_filled_after_this_one_looked_is_not_written_over(
    data, tiny_model_folder, tmp_path, monkeypatch
):
    run, real = tmp_path / "run", score_job.settled_engine

    def slow(*given):
        monkeypatch.setattr(score_job, "settled_engine", real)
        score(data, tiny_model_folder, run)
        return real(*given)

    monkeypatch.setattr(score_job, "settled_engine", slow)
    with pytest.raises(UserError, match="another rmo-curate process has written to this folder"):
        score(data, tiny_model_folder, run, part_size=8)
    score(data, tiny_model_folder, run)
