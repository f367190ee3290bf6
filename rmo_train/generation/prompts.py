"""Reads prompts to answer from JSON lines, a JSON list, Parquet, or a run or shard folder.

A record has an `instruction` (text, with an optional `input` below it), a `prompt` (text or messages), `turns` (the
user's messages, each answered before the next), `messages`, or chosen and rejected messages that begin alike. In
preference data, each prompt is taken once, however many pairs it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.lib
import pyarrow.parquet as pq

from rmo_train.console.errors import UserError
from rmo_train.data.tool_calls import ANSWERING
from rmo_train.store.files import canonical_json, canonical_text, compact_json
from rmo_train.store.manifests import Manifest, PairsManifest, ShardsManifest, read_manifest, stage_of
from rmo_train.store.tables import iter_parts

PARQUET = b"PAR1"
# The columns read from a Parquet file; other columns, such as token ids, are most of a run folder's bytes.
COLUMNS = (
    "instruction", "input", "prompt", "messages", "turns", "chosen", "rejected", "tools", "chat_template_kwargs",
    "dataset", "uid", "question_id", "key", "instruction_id_list", "kwargs",
)  # fmt: skip
FORM_FIELDS = ("instruction", "prompt", "turns", "uid", "question_id", "key", "instruction_id_list", "kwargs")
EXPECTED = "an `instruction`, a `prompt` (text or messages), `turns`, `messages`, or chosen and rejected messages"


@dataclass(frozen=True)
class Prompt:
    """One prompt and its location."""

    where: str  # file and record, for messages to the user
    messages: tuple[dict[str, Any], ...]
    tools: str | None = None  # JSON, as passed to the chat template
    template_kwargs: str | None = None  # JSON
    dataset: str | None = None  # named by the record
    later: tuple[str, ...] = ()  # the user's further messages, each asked after the one before is answered
    record: Mapping[str, Any] = field(default_factory=dict)  # its FORM_FIELDS, unchanged

    @property
    def text(self) -> str:
        """The text shown to a judge: that of a single message; several messages each follow their role."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n\n".join(f"{m['role']}: {m.get('content') or ''}" for m in self.messages)

    @property
    def content(self) -> str:
        """A text that is the same for two prompts if and only if they are the same."""
        later = [list(self.later)] if self.later else []
        settings = [text and canonical_text(text) for text in (self.tools, self.template_kwargs)]
        return canonical_json([list(self.messages), *settings, *later])


def read_prompts(source: Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of the first `limit` records, in order; UserError at the first record without one."""
    if not source.exists():
        raise UserError(f"{source}: no such file; expected JSON lines, a JSON list or Parquet")
    prompts: list[Prompt] = []
    of_pairs: set[str] = set()
    for number, (where, record) in enumerate(_records(source), start=1):
        prompt = _prompt(where, record)
        if "chosen" in record or "rejected" in record:
            if prompt.content not in of_pairs:
                prompts.append(prompt)
            of_pairs.add(prompt.content)
        else:
            prompts.append(prompt)
        if number == limit:
            break
    if not prompts:
        raise UserError(f"{source}: no records; expected records with {EXPECTED}")
    return prompts


# ---------------------------------------------------------------------------------------------------- records


def _records(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each record with its location."""
    if source.is_dir():
        yield from _of_folder(source)
        return
    with source.open("rb") as f:
        start = f.read(len(PARQUET))
    try:
        if start == PARQUET:
            yield from _of_parquet(source)
        else:
            yield from _of_json(source)
    except (UnicodeDecodeError, json.JSONDecodeError, pyarrow.lib.ArrowInvalid) as e:
        raise UserError(f"{source}: not JSON lines, a JSON list or Parquet: {e}") from e


def _of_parquet(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    file = pq.ParquetFile(source)
    columns = [name for name in file.schema_arrow.names if name in COLUMNS]
    if not columns:
        raise UserError(f"{source}: its columns are {', '.join(file.schema_arrow.names)}; expected {EXPECTED}")
    row = 0
    for batch in file.iter_batches(batch_size=1024, columns=columns):
        for record in batch.to_pylist():
            row += 1
            yield f"{source}, row {row}", record


def json_records(source: Path) -> Iterator[tuple[str, Any]]:
    """Each record of a file of JSON lines or a JSON list, with its location."""
    if not source.is_file():
        raise UserError(f"{source}: no such file; expected JSON lines or a JSON list")
    try:
        yield from _of_json(source)
    except (UnicodeDecodeError, json.JSONDecodeError) as e:
        raise UserError(f"{source}: not JSON lines or a JSON list: {e}") from e


def _of_json(source: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = source.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        for number, record in enumerate(json.loads(text), start=1):
            yield f"{source}, record {number}", record
        return
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would also split inside JSON text
        if not line.strip():
            continue
        try:
            yield f"{source}, line {number}", json.loads(line)
        except json.JSONDecodeError as e:
            raise UserError(f"{source}, line {number}: not JSON at column {e.colno}: {e.msg}") from e


def _of_folder(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pairs of a run or shard folder, verified."""
    manifest: Manifest | None = None
    if (stage := stage_of(folder)) == "run":
        folder = folder / "pairs"
        manifest = read_manifest(folder, PairsManifest)
    elif stage == "shards":
        manifest = read_manifest(folder, ShardsManifest)
    if manifest is None:
        raise UserError(
            f"{folder}: this is not a finished run or shard folder; expected one of these, or a file of JSON "
            "lines, a JSON list or Parquet"
        )
    row = 0
    for table in iter_parts(folder, manifest, ["prompt", "chosen", "rejected", "tools", "chat_template_kwargs"]):
        for record in table.to_pylist():
            row += 1
            yield f"{folder}, pair {row}", record


# ---------------------------------------------------------------------------------------------------- one prompt


def _prompt(where: str, record: Any) -> Prompt:
    if not isinstance(record, dict):
        raise UserError(f"{where}: {type(record).__name__} {str(record)[:40]!r}; expected an object with {EXPECTED}")
    dataset = record.get("dataset")
    turns = record.get("turns")
    return Prompt(
        where,
        tuple(_messages(where, record)),
        _json_text(record.get("tools")),
        _json_text(record.get("chat_template_kwargs")),
        dataset if isinstance(dataset, str) else None,
        tuple(turns[1:]) if isinstance(turns, list) else (),
        {name: record[name] for name in FORM_FIELDS if record.get(name) is not None},
    )


def _messages(where: str, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    instruction, prompt = record.get("instruction"), record.get("prompt")
    if isinstance(instruction, str):
        below = record.get("input")
        text = f"{instruction}\n{below}" if isinstance(below, str) and below.strip() else instruction
        messages: Any = [{"role": "user", "content": text}]
    elif isinstance(prompt, str):
        messages = [{"role": "user", "content": prompt}]
    elif prompt is not None:
        messages = prompt
    elif record.get("turns") is not None:
        messages = [{"role": "user", "content": _turns(where, record["turns"])[0]}]
    elif record.get("messages") is not None:
        messages = record["messages"]
    elif isinstance(record.get("chosen"), list) and isinstance(record.get("rejected"), list):
        messages = _shared_start(record["chosen"], record["rejected"])
    else:
        raise UserError(f"{where}: it has {', '.join(record) or 'no fields'}; expected {EXPECTED}")
    return _checked(where, messages)


def _turns(where: str, turns: Any) -> list[str]:
    """The user's messages in a conversation of several turns."""
    if not (isinstance(turns, list) and turns and all(isinstance(t, str) and t.strip() for t in turns)):
        raise UserError(f"{where}: the turns are {turns!r:.60}; expected a list of texts, the user's messages")
    return turns


def _shared_start(chosen: list[Any], rejected: list[Any]) -> list[Any]:
    """The messages before the first one that differs between two conversations."""
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    return chosen[:shared]


def _checked(where: str, messages: Any) -> list[dict[str, Any]]:
    """The messages, checked to be answerable, without the null fields that Parquet adds."""
    if not (isinstance(messages, list) and messages):
        raise UserError(f"{where}: the prompt is {messages!r:.60}; expected text, or a list of messages")
    for message in messages:
        if not (isinstance(message, dict) and isinstance(message.get("role"), str)):
            raise UserError(f"{where}: the message {message!r:.60} has no role; expected {{role, content}}")
    if messages[-1]["role"] in ANSWERING:
        raise UserError(
            f"{where}: the prompt ends with an assistant message; expected a user or tool message at the end"
        )
    if not str(messages[-1].get("content") or "").strip():
        raise UserError(f"{where}: the prompt is empty; add its text, or leave it out")
    return [{k: v for k, v in message.items() if v is not None} for message in messages]


def _json_text(value: Any) -> str | None:
    """A setting of the chat template as JSON text; in a run folder it is text already."""
    if not value:
        return None
    return value if isinstance(value, str) else compact_json(value)
