"""`--fail-on 'length_bias>0.8'`: numbers of audit.json that end the command with exit code 4."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rmo_train.console.errors import RmoError, UserError, nearest

COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
GATE = re.compile(r"\s*([\w.-]+)\s*(>=|<=|>|<)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
NO_GATES = ("identity", "filter", "versions", "thresholds")  # settings and names, not what was found


class GateTripped(RmoError):
    """A number of the audit is beyond what --fail-on allows."""

    exit_code = 4


@dataclass(frozen=True)
class Gate:
    name: str
    comparison: str
    limit: float

    def __str__(self) -> str:
        return f"{self.name}{self.comparison}{self.limit:g}"

    def trips(self, value: float) -> bool:
        return bool(COMPARISONS[self.comparison](value, self.limit))


@dataclass(frozen=True)
class TrippedGate:
    gate: Gate
    value: float

    def __str__(self) -> str:
        return f"--fail-on {self.gate}: {self.gate.name} is {self.value:.6g}"


def parse_gate(text: str) -> Gate:
    """`name>0.2` with >, >=, < or <=; ValueError otherwise."""
    match = GATE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r}: expected a name, one of > >= < <=, and a number, such as 'length_bias>0.8'")
    return Gate(match[1], match[2], float(match[3]))


def scalars(audit: Mapping[str, Any], under: str = "") -> dict[str, float | None]:
    """Every number of an audit.json by its path (`counts.pairs`); None: a number that is not known there."""
    numbers: dict[str, float | None] = {}
    for key, value in audit.items():
        if not under and key in NO_GATES:
            continue
        if isinstance(value, Mapping):
            numbers |= scalars(value, f"{under}{key}.")
        elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            numbers[under + key] = value
    return numbers


def tripped(gates: Sequence[str], audit: Mapping[str, Any]) -> list[TrippedGate]:
    """Those of `gates` that trip; a UserError for a name that audit.json has not, or not for these data."""
    known = scalars(audit)
    trips = []
    for gate in map(parse_gate, gates):
        parts = gate.name.split(".")
        parents = {".".join(parts[:k]) for k in range(1, len(parts))}
        if gate.name not in known and not any(p in known and known[p] is None for p in parents):
            raise UserError(
                f"--fail-on {gate}: audit.json has no number {gate.name!r}{nearest(gate.name, known)}; "
                "docs/audit.md lists them"
            )
        value = known.get(gate.name)
        if value is None or math.isnan(value):
            raise UserError(
                f"--fail-on {gate}: {gate.name} is unknown for these data, so it cannot be checked; "
                + why_unknown(gate.name, audit)
            )
        if gate.trips(value):
            trips.append(TrippedGate(gate, value))
    return trips


def why_unknown(name: str, audit: Mapping[str, Any]) -> str:
    if name.split(".")[0] == "overlap":
        return "give the held-out data with --against"
    if name.startswith(("noise_rate", "at_cut", "self_check", "evidence")) and audit["not_estimated"]:
        return str(audit["not_estimated"])
    if audit["kind"] == "data":
        return "it needs scores: `rmo-curate score DATA --model MODEL --out RUN`, then `rmo-curate audit RUN`"
    return audit["not_estimated"] or "this run has none; leave this condition out"
