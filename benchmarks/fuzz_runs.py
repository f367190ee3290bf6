"""Scored runs, settings of the filter and damaged folders, as `benchmarks.fuzz` draws them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.fuzz_files import CHANGES, TEXT, Change, damaged
from rmo_curate.evidence.rules import RULES
from rmo_curate.export.formats import Trainer

# Numbers at which ties, signs and sums go wrong, among ordinary ones.
MARGINS = st.sampled_from([0.0, -0.0, 1e-300, -1e-12, 1e6, -1e6, 1e300]) | st.floats(-50, 50, allow_nan=False)
CONTENT = TEXT | st.sampled_from(
    ["</script><script>x()</script>", "=1+1", "<|im_end|>", "a\x00b", "\u202e", "x" * 5000]
)


@dataclass(frozen=True)
class FilterCase:
    """A run and what is asked of it."""

    run: dict[str, Any]  # arguments of `write_run`
    settings: tuple[str, ...]
    decisions: bytes | None  # the file
    meant: dict[str, str] = field(default_factory=dict)  # its decisions, where it is whole
    to: Trainer = Trainer.TRL
    audited: bool = False

    def flags(self, folder: Path) -> list[str]:
        if self.decisions is None:
            return list(self.settings)
        (folder / "decisions.json").write_bytes(self.decisions)
        return [*self.settings, "--decisions", str(folder / "decisions.json")]

    def followed(self, ids: Sequence[str]) -> dict[str, str]:
        """The decisions on pairs that have scores: what is too long is dropped, whatever was decided."""
        long = {ids[i] for i in self.run["too_long"]}
        return {name: action for name, action in self.meant.items() if name not in long}


@dataclass(frozen=True)
class Damage:
    """A run, and what happens to one file of it or of its shards."""

    run: dict[str, Any]
    of: str  # run or shards
    file: int  # which of its files, by place
    changes: tuple[Change, ...]  # none: it is removed
    audited: bool

    def apply(self, folder: Path) -> Path:
        """Damage the file; returns it."""
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        hit = files[self.file % len(files)]
        content = hit.read_bytes()
        for change in self.changes:
            content = change.apply(content)
        if self.changes:
            hit.write_bytes(content)
        else:
            hit.unlink()
        return hit


@st.composite
def runs(draw: st.DrawFn, most: int = 24) -> dict[str, Any]:
    """Arguments of `write_run`: margins of all kinds, texts of all kinds, too long and repeated pairs."""
    n = draw(st.integers(1, most))
    margins = {name: draw(st.lists(MARGINS, min_size=n, max_size=n)) for name in ("base", "oof-16")}
    if draw(st.integers(0, 4)) == 0:
        del margins["oof-16"]
    rows = []
    for i in range(n):
        row: dict[str, Any] = {"id": f"p{i}" if draw(st.integers(0, 5)) else f"{draw(TEXT)}-{i}"}
        row["prompt"], row["chosen"], row["rejected"] = (f"{draw(CONTENT)} {part} {i}" for part in "pcr")
        row["chosen_tokens"], row["rejected_tokens"] = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        if draw(st.integers(0, 7)) == 0:
            row["tokens_sha"] = "00" * 32
        rows.append(row)
    too_long = draw(st.lists(st.integers(0, n - 1), unique=True, max_size=3))
    groups = draw(st.lists(st.sampled_from("abcdefgh"), min_size=n, max_size=n))
    extra = {"source": draw(st.lists(st.sampled_from("xyz"), min_size=n, max_size=n))}
    if draw(st.booleans()):
        extra["margin"] = draw(st.lists(MARGINS, min_size=n, max_size=n))  # type: ignore[assignment]
    return {"margins": margins, "rows": rows, "too_long": too_long, "groups": groups, "extra": extra}


@st.composite
def settings_of_filter(draw: st.DrawFn) -> tuple[str, ...]:
    """Flags of `filter`, those that exclude each other included."""
    share = st.sampled_from(["0", "0.05", "0.1", "0.5", "0.9", "0.95", "1", "1e-9"] * 3 + ["-1", "nan", "x"])
    flags: list[str] = []
    for name, values, often in (
        ("--rule", st.sampled_from([*RULES, "auto", "none", "nonsense"]), 2),
        ("--high-q", share, 3),
        ("--low-q", share, 4),
        ("--noise-rate", st.sampled_from(["auto", "0", "0.2", "0.5", "x"]), 9),
        ("--precision", share, 12),
        ("--action", st.sampled_from(["drop", "weight", "soft-label", "flip", "auto"]), 3),
        ("--margin", st.sampled_from(["reward", "logp", "mean_logp"]), 4),
        ("--preset", st.sampled_from(["paper", "authors-code"]), 12),
        ("--score-column", st.sampled_from(["margin", "source", "nowhere"]), 14),
        ("--protect", st.sampled_from(["source=x", "source=y", "source=nothing", "nowhere=1", "x"]), 6),
        ("--end", st.sampled_from(["base", "oof-16", "nowhere"]), 12),
        ("--seed", st.integers(-1, 2**40).map(str), 6),
    ):
        if draw(st.integers(0, often)) == often:  # the simplest draw is none of them
            flags += [name, draw(values)]
    return (*flags, "--hard") if draw(st.integers(0, 4)) == 4 else tuple(flags)


@st.composite
def filter_cases(draw: st.DrawFn) -> FilterCase:
    run = draw(runs())
    decisions, meant = None, {}
    if draw(st.integers(0, 2)) == 0:
        ids = draw(st.lists(st.sampled_from([row["id"] for row in run["rows"]]), unique=True, max_size=5))
        meant = {name: draw(st.sampled_from(["keep", "drop", "flip"])) for name in ids}
        listed = [{"id": name, "action": action} for name, action in meant.items()]
        decisions = json.dumps({"schema": "rmo-decisions-1", "decisions": listed}).encode()
        if draw(st.booleans()):
            decisions, meant = draw(damaged(decisions)), {}
    to, audited = draw(st.sampled_from(list(Trainer))), draw(st.integers(0, 3)) == 3
    return FilterCase(run, draw(settings_of_filter()), decisions, meant, to, audited)


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    run = draw(runs(8)) | {"too_long": []}
    run["margins"].setdefault("oof-16", [float(i) for i in range(len(run["rows"]))])
    changes = [] if draw(st.integers(0, 5)) == 0 else draw(CHANGES)
    of, audited = draw(st.sampled_from(["run", "shards"])), draw(st.integers(0, 3)) == 3
    return Damage(run, of, draw(st.integers(0, 40)), tuple(changes), audited)
