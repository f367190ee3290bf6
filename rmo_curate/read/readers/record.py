"""One input record, and the bytes of a file that may be packed."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from rmo_train.store.files import canonical_json

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # how packed files start
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Record:
    """One input record: its value, or the reason why none could be read."""

    line: int  # 1-based line of a jsonl file, elsewhere 1-based number of the record
    value: Any = None
    text: str | None = None  # the line as read; None where the file has no text per record
    problem: str | None = None

    @property
    def raw(self) -> str:
        return encodable(canonical_json(self.value)) if self.text is None else self.text


def encodable(text: str) -> str:
    """`text` with what UTF-8 cannot hold (lone surrogates) as backslash escapes: fit for an Arrow string."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked if they are gzip or zstd (told by content: a packed file may have lost its suffix)."""
    with path.open("rb") as f:
        start = f.read(len(ZSTD))
    if start.startswith(GZIP):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    if start == ZSTD:
        return io.BufferedReader(pa.input_stream(path, compression="zstd"))
    return path.open("rb")
