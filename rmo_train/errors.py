"""Errors with an exit code: what a command line prints instead of a traceback.

Exit codes: 0 done · 2 the user's input or settings · 3 processing failed after retries ·
1 a defect of ours (any other exception, with its traceback).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RmoError(Exception):
    """Base of every expected failure; `exit_code` is the process's exit status."""

    exit_code = 1


class UserError(RmoError):
    """The user's input or settings: says what was found, where, what was expected and how to fix it."""

    exit_code = 2


class ProcessingError(RmoError):
    """Processing failed for some part after retries (out of memory, a full disk, a dead engine)."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint `; did you mean 'x'?` naming the closest of `known`, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
