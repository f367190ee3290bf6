"""What to read first: the most suspect pairs, and examples of the rejects, with the reason in words.

Dataset text is made fit to show here (`presentable`, `clip`); escaping is the template's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rmo_curate.audit.numerals import magnitude, percent

UNSHOWABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # control characters that no page may hold


@dataclass(frozen=True)
class Excerpt:
    """One message, or the part of it that is shown; `hidden` counts the characters left out."""

    role: str
    text: str
    hidden: int


@dataclass(frozen=True)
class Suspect:
    """A pair near the top of the suspicion ranking. Log-probs and margins are one per checkpoint, in nats."""

    rank: int
    id: str
    suspicion: float
    decision: str  # "kept" or the drop reason
    why: tuple[str, ...]
    chosen_tokens: int
    rejected_tokens: int
    chosen_logps: tuple[float, ...]
    rejected_logps: tuple[float, ...]
    margins: tuple[float, ...]
    rewards: tuple[float, ...]
    prompt: tuple[Excerpt, ...]
    chosen: tuple[Excerpt, ...]
    rejected: tuple[Excerpt, ...]


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


def excerpts(messages: Sequence[Mapping[str, Any]], limit: int) -> tuple[Excerpt, ...]:
    """Messages as excerpts that share one budget of `limit` characters."""
    shown = []
    for message in messages:
        shown.append(clip(message["role"] or "", message["content"] or "", limit))
        limit = max(0, limit - len(shown[-1].text))
    return tuple(shown)


def most_suspect(suspicion: np.ndarray, n: int) -> np.ndarray:
    """Positions of the `n` most suspect pairs with a suspicion above zero, worst first (a tie: first in the data)."""
    order = np.argsort(np.where(np.isfinite(suspicion), -suspicion, np.inf), kind="stable")[:n]
    return order[suspicion[order] > 0]


def pick_texts(tables: Iterable[pa.Table], wanted: frozenset[str]) -> dict[str, dict[str, Any]]:
    """The rows of `tables` (with a column id) whose id is `wanted`, by id: one part in memory at a time."""
    value_set = pa.array(sorted(wanted), pa.string())
    found = {}
    for table in tables:
        rows = table.filter(pc.is_in(table["id"], value_set=value_set))
        found.update({row["id"]: row for row in rows.to_pylist()})
    return found


def reasons_to_look(
    rewards: Sequence[float], base_margin: float, tokens: tuple[int, int], population: np.ndarray, moved_by: str
) -> tuple[str, ...]:
    """Why a pair is suspect, in sentences, from its reward margins (one per checkpoint) and those of all at the end.

    `population` is the end's reward margin of every scored pair [n]; `moved_by` names what moved the model there.
    """
    said = []
    end = rewards[-1]
    if len(rewards) > 1:
        lower_than = float((population > end).mean())
        direction = "the rejected answer" if end < 0 else "the chosen answer"
        said.append(
            f"{moved_by} moved the model {magnitude(abs(end))} nats towards {direction}; "
            f"{percent(lower_than)} of the scored pairs have a higher reward margin."
        )
        if len(rewards) > 2:
            steps = np.diff(rewards)
            if (steps < 0).all():
                said.append("It moved that way at every checkpoint.")
            elif end < 0 < max(rewards):
                said.append("It first moved towards the chosen answer, then away from it.")
    favourite = "rejected" if base_margin < 0 else "chosen"
    said.append(f"The base model by itself gives the {favourite} answer {magnitude(abs(base_margin))} nats more.")
    difference = tokens[0] - tokens[1]
    if difference and max(tokens) >= 1.5 * min(tokens):
        said.append(
            f"The chosen answer is {abs(difference)} tokens {'longer' if difference > 0 else 'shorter'} "
            "than the rejected one: part of the base's margin may be length alone."
        )
    return tuple(said)


def reject_groups(rejects: pa.Table, examples: int, limit: int) -> tuple[RejectGroup, ...]:
    """Rejects by reason, most frequent first, each with its first `examples`, their raw text cut at `limit`."""
    reasons = np.array(rejects["reason"].to_pylist(), dtype=object)
    found = []
    for reason in sorted(set(reasons), key=lambda r: (-(reasons == r).sum(), r)):
        places = np.flatnonzero(reasons == reason)
        rows = rejects.take(pa.array(places[:examples])).to_pylist()
        found.append(
            RejectGroup(
                reason=reason,
                count=len(places),
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
    return tuple(found)


def gist(suspect: Suspect, length: int = 160) -> str:
    """The last message of the prompt on one line."""
    text = " ".join(suspect.prompt[-1].text.split()) if suspect.prompt else ""
    return text[:length] or suspect.id
