"""A folder takes the place of an older one whole, or the older one stays."""

from __future__ import annotations

import pytest

from rmo_curate.runs.replacing import replacing
from rmo_train.console.errors import ProcessingError
from rmo_train.store.files import write_json


@pytest.fixture
def out(tmp_path):
    write_json(tmp_path / "out" / "manifest.json", {"stage": "export"})
    (tmp_path / "out" / "data").write_text("older")
    return tmp_path / "out"


def replace(out):
    return replacing(out, "export", "rmo-curate export")


def test_the_new_folder_is_seen_when_it_is_whole_and_the_older_one_is_gone(out):
    with replace(out) as partial:
        (partial / "data").write_text("newer")
        assert (out / "data").read_text() == "older"
    assert (out / "data").read_text() == "newer" and [p.name for p in out.parent.iterdir()] == ["out"]


def test_a_renaming_that_fails_brings_the_older_folder_back(out):
    with pytest.raises(ProcessingError, match="cannot write"), replace(out) as partial:
        partial.rmdir()  # nothing to rename when the older folder has been moved away
    assert (out / "data").read_text() == "older" and [p.name for p in out.parent.iterdir()] == ["out"]


def test_what_a_kill_between_the_two_renames_left_is_brought_back(out):
    out.rename(out.with_name(".out.old"))
    (out.with_name(".out.partial")).mkdir()
    with pytest.raises(KeyboardInterrupt), replace(out):
        raise KeyboardInterrupt
    assert (out / "data").read_text() == "older" and [p.name for p in out.parent.iterdir()] == ["out"]
