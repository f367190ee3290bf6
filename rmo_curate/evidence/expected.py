"""What to expect of the evidence at a number of pairs: what the audit says of it, from a measured learning curve."""

from __future__ import annotations


def lines(pairs: int, scored: bool) -> list[str]:
    """Sentences about `pairs` pairs, scored by a model or not; empty where nothing was measured."""
    return []
