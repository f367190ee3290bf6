"""A limit to what a packed file may unpack to, since a few kilobytes can unpack to terabytes.

Text packs to a third or a tenth, and a file of one pair again and again to a hundredth. What unpacks to more than
`RATIO` times its size was made to fill a memory: it is refused as soon as `FREE` bytes of it were read, so that small
files of any kind pass. Nothing is unpacked in advance, and a file that unpacks in proportion may have any size.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from rmo_train.console.errors import UserError, size_text

FREE = 2**28  # bytes that any file may unpack to
RATIO = 200  # unpacked / packed, beyond that


class Unpacking(io.RawIOBase):
    """The bytes that a packed file unpacks to, counted."""

    def __init__(self, path: Path, stream: Any):
        self.path, self.stream = path, stream
        self.packed, self.unpacked = path.stat().st_size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n: int = self.stream.readinto(buffer)
        self.unpacked += n
        check_unpacked(self.path, self.packed, self.unpacked)
        return n

    def close(self) -> None:
        if not self.closed:
            self.stream.close()
        super().close()


def counted_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches of a columnar file, whose pages are packed each for itself."""
    packed, unpacked = path.stat().st_size, 0
    for batch in batches:
        unpacked += batch_bytes(batch)
        check_unpacked(path, packed, unpacked)
        yield batch


def batch_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of a batch's rows, without dictionaries, which are the same in batch after batch."""
    columns = [c.indices if pa.types.is_dictionary(c.type) else c for c in batch.columns]
    return sum(c.nbytes for c in columns)


def check_unpacked(path: Path, packed: int, unpacked: int) -> None:
    """UserError where a file of `packed` bytes has unpacked to so many that no data would."""
    if unpacked > FREE and unpacked > RATIO * packed:
        raise UserError(
            f"{path}: {size_text(packed)} that unpack to {size_text(unpacked)} and more, over {RATIO} times as much; "
            "data do not compress that well, so it was probably made to fill the memory. If it is what you mean to "
            "read, unpack it yourself and give the file"
        )
