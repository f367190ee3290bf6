"""What to read first: the most suspect pairs, and examples of the rejects.

Dataset text is made fit to show here (`presentable`, `clip`); escaping is the page's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rmo_curate.evidence.wording import Reason
from rmo_curate.filter.grounds import Ground

UNSHOWABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # control characters that no page may hold


@dataclass(frozen=True)
class Excerpt:
    """One message, or the part of it that is shown; `hidden` counts the characters left out."""

    role: str
    text: str
    hidden: int


@dataclass(frozen=True)
class Suspect:
    """A pair on the page, without its text. `margins` and `rewards` have one number per checkpoint, in nats; both are
    empty if the pair was not scored."""

    rank: int
    id: str
    source_file: str | None  # the data file that it was read from, as the user named it; null if unknown
    source_line: int | None  # its line there in JSON lines, else the number of its record; from 1
    because: str  # why it is listed, in one sentence
    right: float | None  # P(the label is right)
    reasons: tuple[Reason, ...]  # the evidence for and against the label, the strongest against it first
    suspicion: float | None
    points: int  # sum over its findings
    decision: str  # "kept" or the drop reason; empty if nothing was decided
    decided: Ground | None  # why it was called noisy; null if it was not
    findings: dict[str, str]  # name -> chosen, rejected, both or pair
    slices: dict[str, str]  # column -> value
    why: tuple[str, ...]
    chosen_length: int  # in the unit of the report's length bias
    rejected_length: int
    margins: tuple[float, ...]
    rewards: tuple[float, ...]


@dataclass(frozen=True)
class RejectExample:
    source: str
    line: int | None
    detail: str
    raw: Excerpt


@dataclass(frozen=True)
class RejectGroup:
    """The rejects of one reason, with the first few as examples."""

    reason: str
    count: int
    examples: tuple[RejectExample, ...]


def presentable(text: str) -> str:
    """`text` with lone surrogates and control characters replaced by U+FFFD, so that it encodes and displays."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return UNSHOWABLE.sub("\ufffd", whole)


def clip(role: str, text: str, limit: int) -> Excerpt:
    """The first `limit` characters of `text`, and how many are left out."""
    return Excerpt(presentable(role), presentable(text[:limit]), max(0, len(text) - limit))


def ranking(
    suspicion: np.ndarray | None, points: np.ndarray, flagged: np.ndarray, first: np.ndarray | None = None
) -> np.ndarray:
    """Positions of the pairs to look at: those with a suspicion above zero (by the posterior, labels more likely wrong
    than right), most suspect first, then those with a finding; equal ones by points, then in the order of the data.
    `first` come before all, by points."""
    s = np.zeros(len(points)) if suspicion is None else np.where(np.isfinite(suspicion), suspicion, 0.0)
    s = np.maximum(s, 0.0)
    first = np.zeros(len(points), dtype=bool) if first is None else first
    order = np.lexsort((np.arange(len(s)), -points, ~flagged, -s, -points * first))
    return order[(s > 0)[order] | flagged[order]]


def reject_groups(rejects: pa.Table, examples: int, limit: int) -> tuple[RejectGroup, ...]:
    """Rejects by reason, most frequent first, each with its first `examples`, their raw text cut at `limit`."""
    reasons = np.array(rejects["reason"].to_pylist(), dtype=object)
    groups = []
    for reason in sorted(set(reasons), key=lambda r: (-(reasons == r).sum(), r)):
        positions = np.flatnonzero(reasons == reason)
        rows = rejects.take(pa.array(positions[:examples])).to_pylist()
        groups.append(
            RejectGroup(
                reason=reason,
                count=len(positions),
                examples=tuple(
                    RejectExample(
                        source=presentable(row["source"] or ""),
                        line=row["line"],
                        detail=clip("", row["detail"] or "", limit).text,
                        raw=clip("", row["raw"] or "", limit),
                    )
                    for row in rows
                ),
            )
        )
    return tuple(groups)
