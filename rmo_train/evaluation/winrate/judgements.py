"""A judge's replies, stored line by line as they arrive, so that an interrupted run requests only the rest."""

from __future__ import annotations

import json
from pathlib import Path

from rmo_train.store.files import append_line, canonical_json, sha256_text, write_bytes


def judgement_key(model: str, tokens: int, text: str) -> str:
    """What a reply depends on: the judge, the tokens it may take, and `text`, which holds the question, the prompt and
    both answers in the order shown."""
    return sha256_text(canonical_json([model, tokens, text]))


class Judgements:
    """The judge's replies by their keys, in `path`: one line of {key, model, reply} each."""

    def __init__(self, path: Path):
        self.path = path
        self.replies: dict[str, str] = {}
        if not path.exists():
            return
        kept = []
        for line in path.read_bytes().split(b"\n"):
            try:
                entry = json.loads(line)
                self.replies[entry["key"]] = entry["reply"]
                kept.append(line)
            except (ValueError, TypeError, KeyError):
                continue  # a line cut short by a kill or a full disk: requested again
        whole = b"".join(line + b"\n" for line in kept)
        if whole != path.read_bytes():
            write_bytes(path, whole)  # otherwise the next line would be appended to a partial one

    def get(self, key: str) -> str | None:
        return self.replies.get(key)

    def add(self, key: str, model: str, reply: str) -> None:
        """Store a reply; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        append_line(self.path, json.dumps({"key": key, "model": model, "reply": reply}, ensure_ascii=False))
        self.replies[key] = reply
