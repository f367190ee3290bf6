"""Numbers with their nouns."""

from __future__ import annotations


def counted(n: float, noun: str, plural: str | None = None) -> str:
    """`n` and its noun: "1 pair", "2,048 pairs"; `plural` if it is not the noun with an s."""
    number = f"{n:,}" if isinstance(n, int) else f"{n:,g}"
    return f"{number} {noun_for(n, noun, plural)}"


def noun_for(n: float, noun: str, plural: str | None = None) -> str:
    """The noun in singular or plural, depending on `n`."""
    return noun if n == 1 else plural or f"{noun}s"
