"""Packed files that would fill a memory are refused while they are read; others of any size are not."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmo_curate.read.readers import arrow_files, unpacking
from rmo_curate.read.readers.arrow_files import read_parquet
from rmo_curate.read.readers.record import BUFFER, open_bytes
from rmo_curate.read.sources import open_source
from rmo_train.console.errors import UserError


def zipped(content: bytes, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", content)


PACK: dict[str, Callable[[bytes, Path], object]] = {
    ".gz": lambda content, path: path.write_bytes(gzip.compress(content)),
    ".bz2": lambda content, path: path.write_bytes(bz2.compress(content)),
    ".xz": lambda content, path: path.write_bytes(lzma.compress(content)),
    ".zst": lambda content, path: path.write_bytes(pa.compress(content, "zstd", asbytes=True)),
    ".zip": zipped,
}
PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.fixture
def small(monkeypatch) -> None:
    """A limit that a test reaches: 1 MiB in place of 256."""
    monkeypatch.setattr(unpacking, "FREE", 2**20)


@pytest.mark.parametrize("packed", PACK)
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, small, packed):
    path = tmp_path / f"bomb.jsonl{packed}"
    PACK[packed](b" " * 2**25, path)
    with open_bytes(path) as stream, pytest.raises(UserError, match="and more, over 200 times"):
        stream.read()
    allowed = max(unpacking.FREE, unpacking.RATIO * path.stat().st_size)
    assert allowed < stream.raw.unpacked <= allowed + BUFFER < 2**25  # type: ignore[attr-defined]


@pytest.mark.parametrize("packed", PACK)
def test_a_bomb_in_one_line_is_refused_as_data(tmp_path, small, packed):
    path = tmp_path / f"bomb.jsonl{packed}"
    PACK[packed](json.dumps({**PAIR, "chosen": "a" * 2**25}).encode(), path)
    with pytest.raises(UserError, match="unpack it yourself"):
        open_source([str(path)])


@pytest.mark.parametrize("packed", PACK)
def test_data_that_pack_as_text_does_may_have_any_size(tmp_path, small, packed):
    path = tmp_path / f"a.jsonl{packed}"
    letters = random.Random(0)
    lines = [json.dumps({**PAIR, "id": i, "chosen": letters.randbytes(40).hex() * 5}) for i in range(8000)]
    content = "\n".join(lines).encode()
    PACK[packed](content, path)
    assert len(content) > 3 * unpacking.FREE
    assert open_source([str(path)]).counts["pairs"] == 8000


def test_a_small_file_may_pack_well(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    PACK[".gz"](json.dumps({**PAIR, "chosen": "a" * 2**20}).encode(), path)
    assert open_source([str(path)]).counts["pairs"] == 1  # 1 MiB of 1 KiB


def test_a_parquet_bomb_is_refused(tmp_path, small):
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"chosen": ["a" * 2**20 + str(i % 2) for i in range(64)]}), path, compression="zstd")
    with pytest.raises(UserError, match="unpack to"):
        list(read_parquet(path))


def test_long_texts_of_a_table_are_not_held_together(tmp_path, monkeypatch):
    """Rows that are turned into Python values at a time: as many as have `BATCH_BYTES`."""
    monkeypatch.setattr(arrow_files, "BATCH_BYTES", 2**16)
    letters = random.Random(0)
    texts = [letters.randbytes(2**13).hex() for _ in range(40)]  # 16 KiB each
    pq.write_table(pa.table({"chosen": texts}), tmp_path / "a.parquet")
    seen: list[int] = []
    rows = arrow_files._rows
    monkeypatch.setattr(arrow_files, "_rows", lambda batch: seen.append(batch.num_rows) or rows(batch))
    assert [r.value["chosen"] for r in read_parquet(tmp_path / "a.parquet")] == texts
    assert 1 < max(seen) <= 4
