"""`rmo-curate inspect --to FILE.jsonl`: data of any form in one, with the rejects beside it.

A line is a pair: id, prompt, chosen and rejected as lists of messages, tools and chat_template_kwargs where there are
some, and the source's other columns. Reading the file again gives the same pairs with the same ids.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from rmo_curate.read.pair_rendering import full
from rmo_curate.read.sources import Pair, Reject, Source
from rmo_train.console.errors import UserError, cannot_write
from rmo_train.console.progress import progress
from rmo_train.console.wording import counted
from rmo_train.store.files import opened_alone, sync_folder

SUFFIX = ".jsonl"


def rejects_beside(path: Path) -> Path:
    """Where the records that are no pairs are written."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".rejects" + SUFFIX)


def temporary(path: Path) -> Path:
    """What a file is called while it is written."""
    return path.with_name(f".{path.name}.tmp")


def check_target(path: Path) -> None:
    """A UserError before anything is read where the file cannot be written, or is there."""
    if path.suffix != SUFFIX:
        raise UserError(f"--to {path}: expected a name that ends in {SUFFIX}")
    beside = rejects_beside(path)
    killed = temporary(path).exists() and not path.exists()  # between the two renames: the rejects are its own
    for file in (path,) if killed else (path, beside):
        if file.exists():
            raise UserError(f"--to {path}: {file} already exists; give a new name, or remove it")


def write_pairs_as_lines(source: Source, path: Path) -> list[str]:
    """Write the pairs to `path` and the rejects beside it, each whole or not at all; returns the lines to print."""
    beside = rejects_beside(path)
    partial = {file: temporary(file) for file in (path, beside)}
    total = sum(source.counts.values())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened_alone(partial[path]) as pairs, opened_alone(partial[beside]) as rejects:
            check_target(path)  # again: another command may have written it while this one waited
            with progress("write", total, "records") as bar:
                for record in source.records():
                    _write(rejects if isinstance(record, Reject) else pairs, _line(record, source))
                    bar.advance(1)
            for file in (pairs, rejects):
                file.flush()
                os.fsync(file.fileno())
            if rejected := total - source.counts["pairs"]:
                partial[beside].replace(beside)
            partial[path].replace(path)
        sync_folder(path.parent)
    except OSError as e:
        raise cannot_write(path, e) from e
    said = [f"{counted(source.counts['pairs'], 'pair')}: {path}"]
    return [*said, f"{counted(rejected, 'reject')}, each with its reason: {beside}"] if rejected else said


def _write(file: IO[bytes], value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False).encode("utf-8", errors="backslashreplace") + b"\n")


def _line(record: Pair | Reject, source: Source) -> dict[str, Any]:
    if isinstance(record, Reject):
        reason = {"reason": record.reason.value, "detail": record.detail, "raw": record.raw}
        return {"source": record.source, "line": record.line, **reason}
    sides = {"prompt": record.prompt, "chosen": record.chosen, "rejected": record.rejected}
    line: dict[str, Any] = {"id": record.id, **{name: [full(m) for m in side] for name, side in sides.items()}}
    for name, text in (("tools", record.tools), ("chat_template_kwargs", record.chat_template_kwargs)):
        if text is not None:
            line[name] = json.loads(text)
    as_json = {extra.name for extra in source.extras if extra.as_json}
    for name, value in record.extra.items():
        line[name] = json.loads(value) if name in as_json and value is not None else value
    return line
