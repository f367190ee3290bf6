"""A disk that is really full (a small tmpfs): said, nothing half-written, and the same result once there is space."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rmo_curate.score.run_folder import run_status
from tests.command_line import curate
from tests.disks import mounted
from tests.rmo_curate.scored import contents, demo_records, marks, write_jsonl


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "pairs.jsonl", demo_records(16))


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A file system of 2 MiB of its own."""
    with mounted(tmp_path_factory.mktemp("disk"), "size=2m") as folder:
        yield folder


def fill(disk: Path, leave: int) -> Path:
    """A file that takes all but `leave` bytes (rounded down to pages)."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - leave)))
    return ballast


def score(data: Path, model: Path, run: Path):
    """Trained proxies and a probe."""
    command = ("score", data, "--model", model, "--out", run, "--part-size", 4, "--dtype", "float32")
    return curate(*command, "--proxy", "lora")


@pytest.fixture(scope="module")
def whole(data, tiny_model_folder, disk) -> dict[str, bytes]:
    """What the disk holds after an undisturbed run and filter."""
    assert score(data, tiny_model_folder, disk / "run").code == 0
    assert curate("filter", disk / "run", "--out", disk / "shards").code == 0
    found = contents(disk)
    shutil.rmtree(disk / "run")
    shutil.rmtree(disk / "shards")
    return found


# How much room there is -> the stages that do not fit any more, one after the other.
@pytest.mark.parametrize("leave", [0, 24_000, 90_000, 140_000, 230_000, 310_000])
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_space(data, tiny_model_folder, disk, whole, leave):
    run = disk / "run"
    try:
        ballast = fill(disk, leave)
        stopped = score(data, tiny_model_folder, run)
        assert stopped.code == 3 and "Traceback" not in stopped.err, stopped
        error = stopped.err[stopped.err.index("error: ") :]
        assert "the disk is full" in error and str(run) in error and "free on the disk of" in error
        assert "run the same command again" in error and error.count("\n") == 1
        left = [p for p in run.rglob("*") if p.name.endswith(".tmp") or p.name == ".saving"] if run.exists() else []
        assert not left
        finished = marks(run, "part-*.parquet") if run.exists() else {}
        if finished:
            assert run_status(run)[-1] == "to resume, run the same command again"
        ballast.unlink()
        assert score(data, tiny_model_folder, run).code == 0
        assert {f: m for f, m in marks(run, "part-*.parquet").items() if f in finished} == finished

        ballast = fill(disk, 12_000)
        stopped = curate("filter", run, "--out", disk / "shards")
        assert stopped.code == 3 and "the disk is full" in stopped.err and "Traceback" not in stopped.err
        assert sorted(p.name for p in disk.iterdir()) == ["ballast", "run"]
        ballast.unlink()
        assert curate("filter", run, "--out", disk / "shards").code == 0
        assert contents(disk) == whole
    finally:
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
