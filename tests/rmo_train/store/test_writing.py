"""Writing that a kill or a full disk cannot spoil: atomic files, a journal that is true whatever happened to it."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest
import typer

from rmo_train.console.errors import ProcessingError, cannot_write
from rmo_train.console.settings import run_app
from rmo_train.store import manifests
from rmo_train.store.files import append_line, write_bytes
from rmo_train.store.manifests import Manifest
from rmo_train.store.tables import JOURNAL, PartWriter

SCHEMA = pa.schema([("n", pa.int64())])


def table(n: int) -> pa.Table:
    return pa.table({"n": [n]}, schema=SCHEMA)


class Made(Manifest):
    stage: Literal["made"] = "made"


def writer(folder: Path) -> PartWriter:
    return PartWriter(folder, Made, {"k": 1}, SCHEMA)


@contextmanager
def no_file_over(n: int) -> Iterator[None]:
    """The system lets no file grow over `n` bytes, in here alone: the tests' own output may go to a larger one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path):
    path = tmp_path / "a"
    write_bytes(path, b"old")
    expected = pytest.raises(ProcessingError, match=r"the file is larger .*; it needs 9.8 KiB and .* free")
    with expected, no_file_over(4096):
        write_bytes(path, bytes(10_000))
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "log"
    append_line(path, "x" * 4000)
    with no_file_over(4096):
        with pytest.raises(ProcessingError):
            append_line(path, "y" * 500)
        append_line(path, "z" * 50)
    assert [line[0] + str(len(line)) for line in path.read_text().splitlines()] == ["x4000", "z50"]


def test_a_full_disk_is_said_with_its_numbers(tmp_path):
    error = cannot_write(tmp_path / "no" / "file", OSError(errno.ENOSPC, "x"), 3 * 2**20)
    text = str(error)
    assert error.exit_code == 3 and text.startswith(f"cannot write {tmp_path / 'no' / 'file'}: the disk is full")
    assert "it needs 3.0 MiB and " in text and f"free on the disk of {tmp_path}." in text
    assert "run the same command again" in text
    assert str(cannot_write(tmp_path, OSError(errno.EACCES, "Permission denied"))).endswith(
        "Permission denied; check that you may write there"
    )


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_what_the_machine_does_to_a_file_is_one_line_wherever_it_is_read(number, monkeypatch, capsys):
    app = typer.Typer()

    @app.command()
    def read() -> None:
        raise OSError(number, os.strerror(number), "runs/run/pairs/part-00000.parquet")

    monkeypatch.setattr(sys, "argv", ["rmo-train"])
    with pytest.raises(SystemExit) as ended:
        run_app(app)
    said = capsys.readouterr().err
    assert ended.value.code == 3 and said.startswith("error: ") and said.count("\n") == 1
    assert "runs/run/pairs/part-00000.parquet" in said and "run the same command again" in said


def test_another_error_of_the_system_is_a_defect_of_ours_with_its_traceback(monkeypatch):
    app = typer.Typer()

    @app.command()
    def read() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    monkeypatch.setattr(sys, "argv", ["rmo-train"])
    with pytest.raises(FileNotFoundError):
        run_app(app)


def test_a_part_recorded_after_a_line_cut_short_is_kept(tmp_path):
    writer(tmp_path).write("part-0.parquet", table(0))
    with (tmp_path / JOURNAL).open("a") as f:
        f.write('{"file": "part-1.parq')  # killed while it wrote
    writer(tmp_path).write("part-1.parquet", table(1))
    again = writer(tmp_path)
    assert sorted(again.finished) == ["part-0.parquet", "part-1.parquet"] and not again.repaired


def test_a_part_made_again_with_other_bytes_is_kept(tmp_path):
    writer(tmp_path).write("part-0.parquet", table(0))
    (tmp_path / "part-0.parquet").write_bytes(b"damaged")
    second = writer(tmp_path)
    assert second.repaired == ["part-0.parquet"] and not (tmp_path / "part-0.parquet").exists()
    second.write("part-0.parquet", table(7))
    third = writer(tmp_path)
    assert list(third.finished) == ["part-0.parquet"] and not third.repaired
    assert len((tmp_path / JOURNAL).read_text().splitlines()) == 2  # its key and one line a part


def test_what_a_kill_left_is_cleared_away(tmp_path):
    first = writer(tmp_path)
    first.write("part-0.parquet", table(0))
    (tmp_path / ".part-1.parquet.tmp").write_bytes(b"half")
    (tmp_path / "part-1.parquet").write_bytes(b"renamed, not recorded")
    journal = (tmp_path / JOURNAL).read_bytes()
    second = writer(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [JOURNAL, "part-0.parquet"]
    second.finish({"pairs": 1})
    (tmp_path / JOURNAL).write_bytes(journal)  # killed between the manifest and the journal's removal
    assert writer(tmp_path).complete
    assert sorted(p.name for p in tmp_path.iterdir()) == [manifests.MANIFEST, "part-0.parquet"]


def test_a_journal_without_a_readable_line_is_begun_again(tmp_path):
    writer(tmp_path).write("part-0.parquet", table(0))
    (tmp_path / JOURNAL).write_bytes(b'"text"\n\xff\n12')
    again = writer(tmp_path)
    assert not again.finished and not list(tmp_path.glob("*.parquet"))
    assert json.loads((tmp_path / JOURNAL).read_text()) == {"key": {"k": 1}}
