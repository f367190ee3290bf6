"""Data files: the paths of a command line -> the records as they stand in the files, one by one.

To add a kind of file, write a reader (`Path -> Iterator[Record]`) and enter it in `READERS`.
"""

from __future__ import annotations

import datetime
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from rmo_train.errors import UserError, nearest
from rmo_train.tables import canonical_json, sha256_file

LFS_POINTER = b"version https://git-lfs"
# Descriptions of a data set that lie beside its data files and are no data themselves.
NOT_DATA = frozenset({"manifest.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})


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


# ---------------------------------------------------------------------------------------------------- readers


def _open(path: Path) -> IO[bytes]:
    """The file's bytes, unpacked if they are gzip (told by content: a `.gz` may have lost its suffix)."""
    with path.open("rb") as f:
        packed = f.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")  # type: ignore[return-value]


def _parse_line(number: int, line: bytes) -> Record:
    text = line.decode("utf-8", errors="backslashreplace").rstrip("\r\n")
    try:
        line.decode("utf-8")
        return Record(number, json.loads(text), text)
    except UnicodeDecodeError as e:
        return Record(number, text=text, problem=f"not UTF-8 at byte {e.start + 1} of the line")
    except json.JSONDecodeError as e:
        return Record(number, text=text, problem=f"not JSON at column {e.colno}: {e.msg}")
    except (ValueError, RecursionError) as e:  # an integer of thousands of digits, lists nested too deep
        return Record(number, text=text, problem=f"not readable as JSON: {e}")


def read_jsonl(path: Path) -> Iterator[Record]:
    """One object a line; blank lines are not records, but count as lines."""
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield _parse_line(number, line)


def read_json(path: Path) -> Iterator[Record]:
    """A list of objects, or an object that holds one list; JSON lines under this suffix are read as such."""
    with _open(path) as f:
        content = f.read()
    if not content.strip():
        return
    if _is_json_lines(content):
        yield from read_jsonl(path)
        return
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except json.JSONDecodeError as e:
        raise UserError(f"{path}:{e.lineno}:{e.colno}: not JSON: {e.msg}; correct the file there") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: not readable as JSON: {e}") from e
    if isinstance(value, dict):
        lists = {k: v for k, v in value.items() if isinstance(v, list)}
        if len(lists) != 1:
            raise UserError(
                f"{path}: an object with {len(lists)} lists (keys: {', '.join(map(repr, value)) or 'none'}); "
                "expected a list of records, or an object that holds exactly one list"
            )
        value = next(iter(lists.values()))
    if not isinstance(value, list):
        raise UserError(f"{path}: expected a list of records, found {type(value).__name__}")
    for number, item in enumerate(value, start=1):
        yield Record(number, item)


def _is_json_lines(content: bytes) -> bool:
    """Whether the first line is an object of its own and more follows."""
    first, _, rest = content.lstrip().partition(b"\n")
    return bool(rest.strip()) and isinstance(_parse_line(1, first.removeprefix(b"\xef\xbb\xbf")).value, dict)


def read_parquet(path: Path) -> Iterator[Record]:
    """Rows; dates, bytes and decimals become text, so that every value is one that JSON can hold."""
    number = 0
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=1024):
            for row in _rows(batch):
                number += 1
                if row is None:
                    yield Record(number, text="", problem="a text of the row is not UTF-8")
                else:
                    yield Record(number, {k: _plain(v) for k, v in row.items()})


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | None]:
    """The batch's rows; None for a row with a text that is not UTF-8 (Arrow does not check when it reads)."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    if isinstance(value, Decimal | datetime.timedelta | UUID):
        return str(value)
    return repr(value)


Reader = Callable[[Path], Iterator[Record]]
READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".json": read_json,
    ".json.gz": read_json,
    ".parquet": read_parquet,
}


# ---------------------------------------------------------------------------------------------------- paths


@dataclass(frozen=True)
class DataFile:
    """A file of records."""

    name: str  # the path as the user gave it
    path: Path
    reader: Reader

    def records(self) -> Iterator[Record]:
        """The records; a UserError where the file itself is damaged."""
        try:
            yield from self.reader(self.path)
        except (OSError, EOFError, zlib.error, pa.ArrowException) as e:
            raise UserError(
                f"{self.name}: cannot be read ({e}); it is damaged, cut short, or not what its suffix says"
            ) from e

    def identity(self) -> dict[str, Any]:
        """Name, size in bytes and sha256 of the file as stored, for a manifest."""
        return {"name": self.name, "bytes": self.path.stat().st_size, "sha256": sha256_file(self.path)}


def _reader(path: Path) -> Reader | None:
    name = path.name.lower()
    return next((READERS[s] for s in sorted(READERS, key=len, reverse=True) if name.endswith(s)), None)


def _data_file(path: Path) -> DataFile:
    reader = _reader(path)
    if reader is None:
        raise UserError(f"{path}: unknown kind of file; the kinds read are {', '.join(READERS)}")
    try:
        with path.open("rb") as f:
            start = f.read(len(LFS_POINTER))
    except OSError as e:
        raise UserError(f"{path}: cannot be opened ({e.strerror})") from e
    if start == LFS_POINTER:
        raise UserError(f"{path}: a git-LFS pointer, not the data; fetch the file itself with `git lfs pull`")
    return DataFile(path.as_posix(), path, reader)


def read(files: Sequence[DataFile], limit: int | None) -> Iterator[tuple[int, Record]]:
    """(number of the file, record), at most `limit` of them over all files."""
    return islice(((i, record) for i, file in enumerate(files) for record in file.records()), limit)


def find_files(paths: Sequence[str]) -> tuple[list[DataFile], list[str]]:
    """The data files that the paths name, in order (a folder's sorted by name), and notes on what was passed over."""
    if not paths:
        raise UserError("no data given; expected one or more files or folders")
    found, notes = [], []
    for given in paths:
        path = Path(given)
        if path.is_file():
            found.append(_data_file(path))
        elif path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith((".", "_")))
            data = [p for p in inside if _reader(p) and p.name not in NOT_DATA]
            if not data:
                below = sorted({p.parent.as_posix() for p in path.rglob("*") if p.is_file() and _reader(p)})
                hint = f"; there are some in {', '.join(below[:3])}" if below and below != [path.as_posix()] else ""
                raise UserError(f"{given}: a folder without data files ({', '.join(READERS)}){hint}")
            found += [_data_file(p) for p in data]
            if passed := [p.name for p in inside if p not in data]:
                notes.append(f"{given}: passed over {', '.join(passed)} (not data files)")
        else:
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(
                f"{given}: not a local file or folder{nearest(path.name, beside)}; "
                f"the kinds of file read are {', '.join(READERS)}"
            )
    return found, notes
