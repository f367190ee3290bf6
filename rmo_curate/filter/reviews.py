"""A reviewer's decisions: a JSON file of ids and what to do with each, as the audit's page writes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from rmo_train.console.errors import UserError, nearest
from rmo_train.store.id_hash import Strings, places

SCHEMA = "rmo-decisions-1"
ACTIONS = ("keep", "drop", "flip")
KEEP, DROP, FLIP = range(1, 4)  # their codes
EXPECTED = '{"schema": "rmo-decisions-1", "decisions": [{"id": "...", "action": "keep"}]}'


def file_sha256(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"--decisions {path}: no such file; expected JSON, {EXPECTED}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_decisions(path: Path) -> dict[str, str]:
    """id -> action; UserError where the file is not what the audit writes."""
    if not path.is_file():
        raise UserError(f"--decisions {path}: no such file; expected JSON, {EXPECTED}")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeDecodeError) as e:
        raise UserError(f"--decisions {path}: not JSON: {e}; expected {EXPECTED}") from e
    if (
        not isinstance(content, dict)
        or content.get("schema") != SCHEMA
        or not isinstance(content.get("decisions"), list)
    ):
        raise UserError(f"--decisions {path}: not a decisions file; expected {EXPECTED}")
    actions: dict[str, str] = {}
    for number, row in enumerate(content["decisions"], start=1):
        where = f"--decisions {path}, decision {number}"
        if not (isinstance(row, dict) and isinstance(row.get("id"), str)):
            raise UserError(f"{where}: {row!r:.60} has no id; expected {EXPECTED}")
        action = row.get("action")
        if action not in ACTIONS:
            raise UserError(f"{where}: action {action!r} for {row['id']!r}; expected one of {', '.join(ACTIONS)}")
        if actions.get(row["id"], action) != action:
            raise UserError(
                f"{where}: {row['id']!r} has two decisions, {actions[row['id']]} and {action}; keep only one"
            )
        actions[row["id"]] = action
    return actions


def reviewed(path: Path, ids: Strings) -> np.ndarray:
    """What was decided for each pair: int8 [pairs], 0 for nothing, else KEEP, DROP or FLIP."""
    import pyarrow as pa

    decisions = read_decisions(path)
    at = places(pa.array(list(decisions), pa.string()), ids)
    unknown = [i for i, row in zip(decisions, at, strict=True) if row < 0]
    if unknown:
        raise UserError(
            f"--decisions {path}: {len(unknown)} of its {len(decisions)} ids are not in the run, the first "
            f"{unknown[0]!r}; was this file made for other data?{nearest(unknown[0], ids.to_pylist()[:10_000])}"
        )
    code = np.zeros(len(ids), dtype=np.int8)
    code[at] = [1 + ACTIONS.index(action) for action in decisions.values()]
    return code
