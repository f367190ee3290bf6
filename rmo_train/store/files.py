"""Files: hashes, JSON, and atomic writes.

Every file is written to a temporary name, fsynced and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from rmo_train.console.errors import UserError, cannot_write


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, UTF-8. All hashes of values are hashes of this text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def compact_json(value: Any) -> str:
    """`value` as JSON in one line, its keys in their own order: for what a chat template writes out."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@lru_cache(maxsize=64)  # many pairs have the same tools
def canonical_text(text: str) -> str:
    """JSON text with its keys sorted, so that their order counts for no hash; other text as it is."""
    try:
        return canonical_json(json.loads(text))
    except (ValueError, RecursionError):
        return text


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """File -> sha256 of a folder's files, except subfolders and hidden files; `damaged_file` compares with it."""
    return {p.name: sha256_file(p) for p in sorted(folder.iterdir()) if p.is_file() and p.name[0] != "."}


def damaged_file(folder: Path, hashes: Mapping[str, str]) -> str | None:
    """Describes the first file of `folder` that differs from `hashes`, or None."""
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if sha256_file(folder / name) != expected:
            return f"{name} is damaged"
    return None


# ---------------------------------------------------------------------------------------------------- writing


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`: temporary name, fsync, rename. A full disk leaves nothing behind."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened_alone(temporary) as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
            temporary.replace(path)
        sync_folder(path.parent)
    except OSError as e:
        raise cannot_write(path, e, len(data)) from e


@contextlib.contextmanager
def opened_alone(temporary: Path) -> Iterator[IO[bytes]]:
    """The file, empty and ours until the block ends: another process that wants to write it waits for that.

    Otherwise it would write into the file that this one renames. What is not renamed is removed. Where files cannot be
    locked, nobody waits.
    """
    while True:
        f = open(temporary, "ab", opener=no_link)  # noqa: SIM115 (held until the block ends)
        with contextlib.suppress(OSError):
            fcntl.flock(f, fcntl.LOCK_EX)
        if _is_named(f, temporary):
            break
        f.close()  # the process before renamed it
    with f:
        try:
            f.truncate(0)
            yield f
        finally:
            if _is_named(f, temporary):
                with contextlib.suppress(OSError):
                    temporary.unlink()


def check_can_be_written(path: Path) -> None:
    """Say before the work, not after it, that `path` cannot be written; what is there stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened_alone(path.with_name(f".{path.name}.tmp")):
            pass
    except OSError as e:
        raise cannot_write(path, e) from e


def _is_named(f: IO[bytes], path: Path) -> bool:
    """Whether the open file still has that name."""
    try:
        return os.path.samestat(os.fstat(f.fileno()), path.stat())
    except OSError:
        return False


def no_link(path: str, flags: int) -> int:
    """An opener that follows no link: in a folder that came from elsewhere one could lead to any file of the user's."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """`value` as JSON, indented; a list of numbers stays on one line."""
    write_bytes(path, (_json_text(value, "\n") + "\n").encode())


def _json_text(value: Any, newline: str) -> str:
    """Indented as by json.dumps; `newline`: a line break and the current indentation."""
    inner = newline + "  "
    if isinstance(value, Mapping) and value:
        texts = [f"{json.dumps(str(k), ensure_ascii=False)}: {_json_text(v, inner)}" for k, v in value.items()]
        return "{" + inner + f",{inner}".join(texts) + newline + "}"
    if isinstance(value, list | tuple) and value and not all(isinstance(v, int | float) for v in value):
        return "[" + inner + f",{inner}".join(_json_text(v, inner) for v in value) + newline + "]"
    return json.dumps(value, ensure_ascii=False)


def append_line(path: Path, line: str) -> None:
    """Append one line and fsync it. A full disk leaves the file as it was."""
    data = (line + "\n").encode()
    try:
        with open(path, "ab", buffering=0, opener=no_link) as f:
            before = f.seek(0, os.SEEK_END)
            try:
                if f.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(f.fileno())
            except OSError:
                f.truncate(before)
                raise
    except OSError as e:
        raise cannot_write(path, e, len(data)) from e


# ---------------------------------------------------------------------------------------------------- names


def check_inside(name: str) -> None:
    """ValueError where a path that a file names leads out of the folder that it is relative to, on any system, or has
    characters that are not shown."""
    path = PureWindowsPath(name)  # which both slashes part
    if not path.parts or path.anchor or ".." in path.parts or not name.isprintable():
        raise ValueError(f"{name!r} is not the name of a file in its folder")


# ---------------------------------------------------------------------------------------------------- reading


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: not valid JSON ({e}); restore the file, or run the stage again from the start") from e
