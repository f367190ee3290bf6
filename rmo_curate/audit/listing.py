"""The list of pairs as the page's script reads it: JSON with every text once, cut to a budget, safe inside HTML."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rmo_curate.audit.checks import KINDS
from rmo_curate.audit.contents import Audit
from rmo_curate.audit.suspects import Suspect, presentable
from rmo_curate.filter import reviews
from rmo_curate.read.messages import Message
from rmo_train.console.wording import place
from rmo_train.evaluation.metrics import Interval

BUDGET = 3_700_000  # bytes of embedded JSON: with charts and explanations the page stays below 5 MB
ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass
class Strings:
    """Texts of the page, each held once: prompts and answers come again in many pairs."""

    limit: int  # characters shown of each

    def __post_init__(self) -> None:
        self.numbers: dict[tuple[str, int], int] = {}  # by what is shown: a whole text may be megabytes
        self.shown: list[list[Any]] = []  # [text, characters left out]
        self.bytes = 0

    def number(self, text: str) -> int:
        key = text[: self.limit], max(0, len(text) - self.limit)
        if key not in self.numbers:
            self.numbers[key] = len(self.shown)
            cut = presentable(key[0])
            self.shown.append([cut, key[1]])
            self.bytes += len(embedded(cut)) + 5
        return self.numbers[key]

    def messages(self, messages: list[Message]) -> list[list[Any]]:
        return [[presentable(m["role"] or ""), self.number(m["content"] or "")] for m in messages]


def embedded(value: Any) -> bytes:
    """JSON that no HTML parser can leave: no tag, comment or entity is left in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character, escape in ESCAPES.items():
        text = text.replace(character, escape)
    return text.encode("utf-8")


def listing(audit: Audit, characters: int) -> dict[str, Any]:
    """What the script shows: pairs worst first, as many as BUDGET holds, and the curve."""
    report, texts = audit.report, audit.texts
    strings, used = Strings(characters), 0
    rows: list[dict[str, Any]] = []
    columns: dict[str, list[str]] = {}
    for suspect, i in zip(report.suspects, audit.positions.tolist(), strict=True):
        sides = [
            strings.messages(m)
            for m in (texts.prompt_messages[i], texts.chosen_messages[i], texts.rejected_messages[i])
        ]
        parts = {name: number_of(columns.setdefault(name, []), value) for name, value in suspect.slices.items()}
        row = pair_row(suspect, texts.ids[i], sides, parts)
        used += len(embedded(row))
        if rows and used + strings.bytes > BUDGET:
            break
        rows.append(row)
    return {
        "decisions": reviews.SCHEMA,
        "kind": report.kind,
        "name": report.name,
        "unit": report.suspicion_unit,
        "length": report.length.unit if report.length else "words",
        "path": list(report.path),
        "titles": {name: kind.title for name, kind in KINDS.items()},
        "slices": columns,
        "texts": strings.shown,
        "pairs": rows,
        "found": report.suspects_found,
        "probable": report.by_probability,
        "prior": rounded(report.evidence.prior) if report.evidence else None,
        "estimated": not report.not_estimated,
        "valued": report.curve.pairs,
        "judged": report.judged_pairs,
        "start": report.curve.start,
        "cuts": report.counts.dropped.get("noisy", 0) > 0,
        "curve": [
            [s.threshold, s.dropped, s.share, interval(s.precision), interval(s.recall)] for s in report.curve.steps
        ],
    }


def number_of(values: list[str], value: str) -> int:
    if value not in values:
        values.append(value)
    return values.index(value)


def pair_row(suspect: Suspect, own_id: str, sides: list[Any], parts: dict[str, int]) -> dict[str, Any]:
    row = {
        "id": own_id,  # as it stands in the data: decisions are joined by it
        "at": place(suspect.source_file or "", suspect.source_line) if suspect.source_line is not None else None,
        "s": rounded(suspect.suspicion),
        "q": None
        if suspect.right is None
        else max(1e-6, round(suspect.right, 6)),  # above 0, so that it reads as <0.1%
        "e": [[presentable(reason.text), rounded(reason.log_odds)] for reason in suspect.reasons],
        "n": suspect.points,
        "d": suspect.decision,
        "f": suspect.findings,
        "v": parts,
        "why": list(suspect.why),
        "len": [suspect.chosen_length, suspect.rejected_length],
        "m": [rounded(value) for value in suspect.margins],
        "r": [rounded(value) for value in suspect.rewards],
        "p": sides[0],
        "c": sides[1],
        "j": sides[2],
    }
    return {key: value for key, value in row.items() if value not in (None, "", [], {})}


def interval(estimate: Interval | None) -> list[float | None] | None:
    return None if estimate is None else [rounded(v) for v in (estimate.value, estimate.low, estimate.high)]


def rounded(value: float | None) -> float | None:
    """Three digits after the point: what the page shows."""
    return None if value is None else round(value, 3)
