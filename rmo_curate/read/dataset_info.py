"""LLaMA-Factory's folders: `dataset_info.json` says which files hold pairs, and the names of their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmo_train.console.errors import UserError
from rmo_train.store.files import check_inside, read_json

INFO = "dataset_info.json"  # `datasets` writes a file of this name, too, which describes something else
# Their name of a column -> ours, by formatting.
ROLES = {
    "alpaca": {"prompt": "instruction", "query": "input"},
    "sharegpt": {"messages": "conversations"},
}
READ = ("system", "tools", "chosen", "rejected", "history")  # called alike there and here
TAGS = {
    "role_tag": ("from", "role"),
    "content_tag": ("value", "content"),
    "user_tag": ("human", "user"),
    "assistant_tag": ("gpt", "assistant"),
    "observation_tag": ("observation", "tool"),
    "function_tag": ("function_call",),
    "system_tag": ("system",),
}


@dataclass(frozen=True)
class Ranking:
    """The files of a folder that hold preference pairs, and the columns that are called otherwise in them."""

    files: tuple[Path, ...]
    columns: Mapping[str, str]


def ranking_files(folder: Path) -> Ranking | None:
    """What the folder's description says; None where there is no such description.

    The entries that count are those with `"ranking": true` whose `file_name` is there. They must name their columns
    alike, since they are read as one source.
    """
    path = folder / INFO
    info = read_json(path) if path.is_file() else None
    if not isinstance(info, dict) or not all(isinstance(e, dict) for e in info.values()):
        return None
    entries = {name: e for name, e in info.items() if isinstance(e.get("file_name"), str)}
    for name, entry in entries.items():
        _check_in_folder(path, name, entry["file_name"])
    ranking = {n: e for n, e in entries.items() if e.get("ranking") is True and (folder / e["file_name"]).is_file()}
    if entries and not ranking:
        raise UserError(
            f'{path}: no entry with "ranking": true whose file exists, so it describes no preference pairs; give '
            "the data file itself"
        )
    if not ranking:
        return None
    columns = {name: _columns(path, name, entry) for name, entry in ranking.items()}
    first = next(iter(columns))
    for name in columns:
        if columns[name] != columns[first] or ranking[name].get("formatting") != ranking[first].get("formatting"):
            raise UserError(f"{path}: {first!r} and {name!r} have different formats; give one of their files by itself")
    return Ranking(tuple(dict.fromkeys(folder / e["file_name"] for e in ranking.values())), columns[first])


def _check_in_folder(path: Path, name: str, file: str) -> None:
    try:
        check_inside(file)
    except ValueError as e:
        raise UserError(
            f"{path}: {name!r} names the file {file!r}, which is not in the folder; give that file itself"
        ) from e


def _columns(path: Path, name: str, entry: Mapping[str, Any]) -> dict[str, str]:
    formatting = entry.get("formatting", "alpaca")
    if formatting not in ROLES:
        raise UserError(f"{path}: {name!r} has the formatting {formatting!r}; expected {' or '.join(ROLES)}")
    for tag, value in entry.get("tags", {}).items():
        if tag in TAGS and value not in TAGS[tag]:
            raise UserError(f"{path}: {name!r} has the {tag} {value!r}; expected {' or '.join(TAGS[tag])}")
    by_role = {ROLES[formatting].get(k, k): column for k, column in entry.get("columns", {}).items() if column}
    known = {*READ, *ROLES[formatting].values()}
    if unread := [column for role, column in by_role.items() if role not in known]:
        raise UserError(f"{path}: {name!r} has columns that rmo cannot read: {', '.join(map(str, unread))}")
    return {role: column for role, column in by_role.items() if role != column}
