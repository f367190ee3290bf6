"""Numbers in sentences, and words of others in ours."""

from __future__ import annotations

import re

LINED = re.compile(r"\.(jsonl|ndjson)(\.\w+)?$", re.I)  # files of one record per line
# What a terminal obeys, but for line ends and tabs, and marks that turn the direction of writing.
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    """`text` with nothing that a terminal obeys: ids, names and column titles come from strangers."""
    return OBEYED.sub(lambda match: match.group().encode("unicode_escape").decode(), text)


def place(source: str, number: int) -> str:
    """Where a record was read: its line in JSON lines, else its number."""
    return f"{source}:{number}" if LINED.search(source) else f"{source}, record {number}"


def counted(n: float, noun: str, plural: str | None = None) -> str:
    """`n` and its noun: "1 pair", "2,048 pairs"; `plural` if it is not the noun with an s."""
    number = f"{n:,}" if isinstance(n, int) else f"{n:,g}"
    return f"{number} {noun_for(n, noun, plural)}"


def noun_for(n: float, noun: str, plural: str | None = None) -> str:
    """The noun in singular or plural, depending on `n`."""
    return noun if n == 1 else plural or f"{noun}s"
