"""One input record, and the bytes of a file that may be packed."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from rmo_curate.read.readers.unpacking import Unpacking
from rmo_train.console.errors import UserError
from rmo_train.store.files import canonical_json

# The keys of an object that stands for messages or an answer: with these a cell is data, without them it is text.
SHAPES = (
    *({role, content} for role in ("role", "from") for content in ("content", "value", "parts")),
    {"role", "tool_calls"},
    {"messages"},
    {"answer", "rank"},
    {"completion", "rank"},
    {"completion", "score"},
    {"response", "overall_score"},
    {"text", "pm_score"},
)
UTF16 = (b"\xff\xfe", b"\xfe\xff")
BOM = b"\xef\xbb\xbf"
BUFFER = 1 << 17  # bytes that are unpacked at a time


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


def said_in_json(cell: str) -> Any:
    """The messages or answers that a cell's JSON holds; None for a cell that is text."""
    if not cell.lstrip().startswith(("[", "{")):
        return None
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return None
    items = value if isinstance(value, list) else [value]
    fits = all(isinstance(item, dict) and any(shape <= item.keys() for shape in SHAPES) for item in items)
    return value if fits else None


def open_bytes(path: Path) -> IO[bytes]:
    """The bytes of a text file, unpacked if they are packed (told by content: a packed file may have lost its suffix);
    of a zip archive its one member. A UserError for UTF-16."""
    stream = _unpacked(path)
    start = stream.peek(2)[:2]  # type: ignore[attr-defined]
    if start in UTF16 or (len(start) == 2 and (start[0] == 0) != (start[1] == 0)):
        stream.close()
        raise UserError(f"{path}: UTF-16, expected UTF-8; convert it: iconv -f UTF-16 -t UTF-8 {path.name} > NEW")
    return stream


def _unpacked(path: Path) -> IO[bytes]:
    with path.open("rb") as f:
        start = f.read(8)
    for magic, unpack in UNPACK.items():
        if start.startswith(magic):
            return io.BufferedReader(Unpacking(path, unpack(path)), BUFFER)
    return path.open("rb")


def zip_member(path: Path) -> str:
    """The name of the one file in a zip archive; macOS' descriptions of it do not count."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX/")]
    if len(names) != 1:
        raise UserError(f"{path}: an archive of {len(names)} files, expected one; unpack it and give the files")
    return names[0]


def _open_member(path: Path) -> IO[bytes]:
    try:
        return zipfile.ZipFile(path).open(zip_member(path))
    except RuntimeError as e:  # an encrypted member
        raise UserError(f"{path}: cannot be unpacked ({e}); unpack it and give the file") from e


UNPACK: dict[bytes, Callable[[Path], Any]] = {  # how packed files start
    b"\x1f\x8b": gzip.open,
    b"\x28\xb5\x2f\xfd": lambda path: pa.input_stream(path, compression="zstd"),
    b"\xfd7zXZ\x00": lzma.open,
    b"BZh": bz2.open,
    b"PK\x03\x04": _open_member,
}
