"""Eleven pairs whose margins and cuts are worked out by hand, and what the filter makes of them."""

from __future__ import annotations

import json
from pathlib import Path

from rmo_curate.filter.reviews import SCHEMA
from rmo_train.store import tables
from tests.manifests import manifest_of, parts_of

#        p0   p1   p2    p3   p4    p5   p6   p7    p8   p9   p10
D_0 = [1.0, 2.0, -1.0, 3.0, -2.0, 0.0, 1.0, -4.0, 2.0, 1.0, 0.0]
D_T = [9.0, 8.0, -5.0, 1.0, -3.0, 0.5, 6.0, -1.0, 9.0, 5.0, 0.0]
# D_T-D_0  8    6   -4   -2    -1   0.5    5     3    7    4   p8 may have p0's tokens; p10 is too long
CUT = {"rule": "irm", "low_q": 0.25, "high_q": 0.8, "hard": True}
FLAGS = ("--rule", "irm", "--low-q", 0.25, "--high-q", 0.8, "--hard")
# irm suspicion: p2 4, p3 2, p4 1, the rest below 0; floor(0.2 * 10) = 2 of them go.
# |reward|: 0.5 1 2 3 4 4 5 6 7 8; its 0.25 quantile is 2.25, so p5, p4 and p3 are below; p3 is noisy already.
BY_CUT = {"p2": "noisy", "p3": "noisy", "p4": "ambiguous", "p5": "ambiguous", "p8": "duplicate", "p10": "too_long"}


def reasons(decided) -> dict[str, str]:
    return {i: r for i, r in zip(decided.ids.to_pylist(), decided.reason, strict=True) if r is not None}


def kept_rows(out: Path) -> dict[str, dict]:
    manifest = manifest_of(out)
    assert manifest is not None
    rows = {row["id"]: row for part in tables.iter_parts(out, parts_of(out)) for row in part.to_pylist()}
    assert manifest["counts"]["pairs"] == len(rows) + sum(p["rows"] for p in manifest["dropped"]["parts"])
    return rows


def text(messages: list[dict]) -> str:
    return messages[-1]["content"]


def decisions_file(path: Path, **actions: str) -> Path:
    rows = [{"id": i, "action": action} for i, action in actions.items()]
    path.write_text(json.dumps({"schema": SCHEMA, "decisions": rows}))
    return path
