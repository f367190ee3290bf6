"""`--baseline old/audit.json`: what changed since an earlier audit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmo_curate.audit.gates import scalars
from rmo_train.console.errors import UserError

LEAST = 1e-9  # below this a number did not change


@dataclass(frozen=True)
class Change:
    """A number of audit.json that has changed; None: unknown then, or unknown now."""

    name: str
    before: float | None
    after: float | None

    @property
    def weight(self) -> float:
        """How much it changed, relative to its size; what appears or is gone comes first."""
        if self.before is None or self.after is None:
            return 2.0
        return abs(self.after - self.before) / max(abs(self.before), abs(self.after))


def read_baseline(path: str, schema: str) -> Mapping[str, Any]:
    """An earlier audit.json; a UserError when it is not one of this schema."""
    try:
        audit = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"--baseline {path}: {e.strerror or e}; expected the audit.json of an earlier audit") from e
    except ValueError as e:
        raise UserError(f"--baseline {path}: not JSON ({e}); expected the audit.json of an earlier audit") from e
    if not isinstance(audit, dict) or audit.get("schema") != schema:
        what = audit.get("schema") if isinstance(audit, dict) else type(audit).__name__
        raise UserError(
            f"--baseline {path}: its schema is {what!r}, expected {schema!r}; audit that data again with this version"
        )
    return audit


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Every number that differs between two audit.json, the largest relative change first."""
    old, new = scalars(before), scalars(after)
    changed = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name), new.get(name)
        if a is None and b is None:
            continue
        if a is None or b is None or abs(a - b) > LEAST * max(abs(a), abs(b)):
            changed.append(Change(name, a, b))
    return tuple(sorted(changed, key=lambda c: (-c.weight, c.name)))
