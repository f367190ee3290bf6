"""Data files: the paths of a command line -> the files they name, and the records of these, one by one."""

from __future__ import annotations

import atexit
import csv
import lzma
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path

import pyarrow as pa

from rmo_curate.read.dataset_info import ranking_files
from rmo_curate.read.hub import HUB, hub_files
from rmo_curate.read.memory import InMemory
from rmo_curate.read.readers import KINDS, Reader, Record, reader_of, reader_of_content
from rmo_train.console.errors import UserError, nearest
from rmo_train.console.wording import counted
from rmo_train.store.files import read_json, sha256_file
from rmo_train.store.manifests import InputFile, stage_of

DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, csv.Error, pa.ArrowException)
STDIN = "-"
LFS_POINTER = b"version https://git-lfs"
STATE = "state.json"  # beside the Arrow files of `save_to_disk`: which of them are the data
# Descriptions of a data set that lie beside its data files and are no data themselves.
NOT_DATA = frozenset({"manifest.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", STATE})


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
        except DAMAGED as e:
            raise UserError(
                f"{self.name}: cannot be read ({e}); the file is damaged, truncated, or not of the type its suffix says"
            ) from e

    def identity(self) -> InputFile:
        """Name, size in bytes and sha256 of the file as stored, for a manifest."""
        return InputFile(name=self.name, bytes=self.path.stat().st_size, sha256=sha256_file(self.path))


@dataclass
class Sources:
    """What the paths name."""

    files: list[DataFile | InMemory] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was read of a folder, and what was passed over
    columns: dict[str, str] = field(default_factory=dict)  # as `open_source` takes them; told by the data's description


def read(files: Sequence[DataFile | InMemory], limit: int | None) -> Iterator[tuple[int, Record]]:
    """(number of the file, record), at most `limit` of them over all files."""
    return islice(((i, record) for i, file in enumerate(files) for record in file.records()), limit)


def find_files(paths: Sequence[str | InMemory]) -> Sources:
    """The data files that are named, in order (a folder's sorted by name); data in memory as they are."""
    if not paths:
        raise UserError("no data given; expected one or more files or folders")
    sources = Sources()
    for given in paths:
        if isinstance(given, InMemory):
            sources.files.append(given)
            continue
        path = Path(given)
        if given.startswith(HUB):
            files = hub_files(given)
            sources.files += [DataFile(name, file, _reader(file)) for name, file in files]
            sources.notes.append(f"{given}: {', '.join(str(file) for _, file in files)}")
        elif given == STDIN:
            sources.files.append(DataFile(STDIN, spooled := spooled_input(), reader_of_content(spooled)))
        elif path.is_file():
            sources.files.append(_data_file(path))
        elif path.is_dir():
            _find_in_folder(given, path, sources)
        else:
            beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise UserError(
                f"{given}: no such file or folder{nearest(path.name, beside)}; supported file types are {KINDS}; "
                "for a data set on the Hugging Face Hub, give hf:owner/name; for standard input, give -"
            )
    return sources


@cache
def spooled_input() -> Path:
    """The standard input as a file, since data are read more than once; it is removed when the process ends."""
    with tempfile.NamedTemporaryFile(prefix="rmo-stdin-", delete=False) as f:
        atexit.register(Path(f.name).unlink, missing_ok=True)
        shutil.copyfileobj(sys.stdin.buffer, f)
    return Path(f.name)


def _find_in_folder(given: str, path: Path, sources: Sources) -> None:
    """Its data files, sorted by name; where it has a description that names them, those."""
    inside = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith((".", "_")))
    described = ranking_files(path)
    if described is not None:
        data = list(described.files)
        _agree(sources.columns, described.columns, given)
    else:
        listed = _listed(path)
        data = [p for p in inside if (p.name in listed if listed else reader_of(p) and p.name not in NOT_DATA)]
    if not data and (stage := stage_of(path)) is not None:
        raise UserError(
            f"{given}: a folder that rmo made ({stage}), not preference data; give the file of pairs that it was made "
            "from (to audit or filter, the run folder)"
        )
    if not data:
        raise UserError(f"{given}: the folder has no data files ({KINDS}){_where_data_are(path)}")
    sources.files += [_data_file(p) for p in data]
    names = ", ".join(p.name for p in data[:5]) + (f" and {len(data) - 5} more" if len(data) > 5 else "")
    sources.notes.append(f"{given}: {counted(len(data), 'data file')}: {names}")
    if passed := [p.name for p in inside if p not in data]:
        sources.notes.append(f"{given}: skipped {', '.join(passed)} (not data files)")
    others = sorted(p for p in path.iterdir() if not p.is_file() and not p.name.startswith((".", "_")))
    if folders := [p.name for p in others if p.is_dir()]:
        sources.notes.append(f"{given}: skipped the folders {', '.join(folders)}; give them too if they are data")
    if links := [p.name for p in others if not p.is_dir()]:
        sources.notes.append(f"{given}: skipped {', '.join(links)} (broken links, or not files)")


def _where_data_are(folder: Path) -> str:
    """A hint on what to give instead of a folder without data files, or an empty string."""
    below = sorted(
        {p.parent.as_posix() for p in folder.rglob("*") if p.is_file() and reader_of(p)} - {folder.as_posix()}
    )
    return f"; there are some in {', '.join(below[:3])}" if below else ""


def _listed(path: Path) -> set[str]:
    """The Arrow files that `save_to_disk` lists; others in such a folder are caches of transformations."""
    state = read_json(path / STATE) if (path / STATE).is_file() else {}
    files = state.get("_data_files") if isinstance(state, dict) else None
    return {f["filename"] for f in files} if files else set()


def _agree(columns: dict[str, str], more: Mapping[str, str], given: str) -> None:
    for role, column in more.items():
        if columns.setdefault(role, column) != column:
            raise UserError(
                f"{given}: the column {role} is {column!r} here and {columns[role]!r} in another folder; "
                "give the folders one at a time"
            )


def _reader(path: Path) -> Reader:
    reader = reader_of(path)
    if reader is None:
        raise UserError(f"{path}: unknown file type; supported types are {KINDS}")
    return reader


def _data_file(path: Path) -> DataFile:
    reader = _reader(path)
    try:
        with path.open("rb") as f:
            start = f.read(len(LFS_POINTER))
    except OSError as e:
        raise UserError(
            f"{path}: cannot be opened ({e.strerror}); check that the file is there and that you may read it"
        ) from e
    if start == LFS_POINTER:
        raise UserError(f"{path}: a Git LFS pointer, not the data; fetch the file with `git lfs pull`")
    return DataFile(path.as_posix(), path, reader)
