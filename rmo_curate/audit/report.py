"""Write an audit: DIR/report.html (one file, opens offline) and DIR/audit.json.

Both come from one `Report`, so a number on the page is the number in the JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from rmo_curate.audit import baseline, suspects
from rmo_curate.audit.collect import SCHEMA, Audit, Report, collect_data, collect_run
from rmo_curate.audit.gates import GateTripped, tripped
from rmo_curate.audit.numerals import magnitude, percent
from rmo_curate.audit.page import render
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.read.sources import open_source
from rmo_curate.runs.run import open_run
from rmo_train.console.errors import UserError
from rmo_train.store import tables

MOST_LINES = 25
MOST_FINDINGS, MOST_CHANGES, MOST_SUSPECTS = 7, 4, 2


@dataclass(frozen=True)
class AuditSummary:
    page: Path
    json: Path
    lines: tuple[str, ...]  # for the terminal
    tripped: tuple[str, ...]  # the --fail-on that trip

    def check(self) -> None:
        """GateTripped (exit code 4) where a --fail-on trips."""
        if self.tripped:
            raise GateTripped("; ".join(self.tripped))


def is_run(path: str) -> bool:
    """Whether `path` is a folder that `rmo-curate score` fills or filled."""
    folder = Path(path)
    return (folder / "pairs").is_dir() or (tables.read_manifest(folder) or {}).get("stage") == "run"


def write_audit(
    run_folder: Path, out: Path, settings: AuditSettings, filter_settings: FilterSettings | None = None
) -> AuditSummary:
    """Audit the scored run in `run_folder`; replaces `out`/report.html and `out`/audit.json.

    Without `filter_settings` the page shows what `filter` does by default, or, on a run that has no proxy, what every
    rule does. With a rule that needs a proxy on such a run: UserError, as from `filter`.
    """
    before = read_before(settings, out)
    return write(collect_run(open_run(run_folder), settings, filter_settings), out, settings, before)


def write_data_audit(
    data: Sequence[str], out: Path, settings: AuditSettings, *, columns: Mapping[str, str] | None = None
) -> AuditSummary:
    """Audit data that no model has scored: files, folders, `hf:` names, as `score` takes them."""
    if runs := [path for path in data if is_run(path)]:
        raise UserError(f"{runs[0]} is a run folder: audit it alone, or give data files only")
    if len(data) == 1 and not data[0].startswith("hf:") and not Path(data[0]).exists():
        raise UserError(
            f"{data[0]}: no such file or folder; give data, or the run folder that `rmo-curate score` makes of them"
        )
    before = read_before(settings, out)
    source = open_source(data, limit=settings.limit, columns=columns)
    return write(collect_data(source, tuple(data), settings), out, settings, before)


def read_before(settings: AuditSettings, out: Path) -> Mapping[str, Any] | None:
    """The --baseline, read before there is any work, and before a new audit.json in `out` can take its place."""
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: a file; give a folder, new or one that an audit was written to")
    return None if settings.baseline is None else baseline.read_baseline(settings.baseline, SCHEMA)


def write(audit: Audit, out: Path, settings: AuditSettings, before: Mapping[str, Any] | None) -> AuditSummary:
    numbers = as_json(audit.report)
    failed = tripped(settings.fail_on, numbers)
    if before is not None:
        audit = replace(audit, report=replace(audit.report, changes=baseline.changes(before, numbers)))
        numbers = as_json(audit.report)
    page, json_path = out / "report.html", out / "audit.json"
    tables.write_bytes(page, render(audit, settings.characters).encode())  # the larger one: a disk fills here first
    tables.write_bytes(json_path, json.dumps(numbers, indent=1, ensure_ascii=False).encode())
    return AuditSummary(page, json_path, summary_lines(audit.report, page, json_path), tuple(failed))


def as_json(value: Any) -> Any:
    """Dataclasses as plain JSON values; a number that is not finite becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {suspects.presentable(str(k)): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if isinstance(value, str):
        return suspects.presentable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary_lines(report: Report, page: Path, json_path: Path) -> tuple[str, ...]:
    """At most MOST_LINES lines for the terminal."""
    head = [report.headline.lead, *report.headline.sentences]
    if report.headline.warning:
        head.append(f"warning: {report.headline.warning}")
    body = [f"rejects: {n:,} {reason}" for reason, n in list(report.counts.rejects_by_reason.items())[:3]]
    found = sorted((f for f in report.findings.values() if f.count and f.of == "pairs"), key=lambda f: -f.count)
    body += [finding_line(f) for f in found[:MOST_FINDINGS]]
    if report.length and report.kind == "run":
        body.append(f"length: the chosen answer is longer in {percent(report.length.chosen_longer)} of the pairs")
    if report.end:
        end = report.checkpoints[-1]
        body.append(f"reward accuracy at {end.name} ({end.standing}): {percent(end.accuracy.reward)}")
    body += change_lines(report)
    for s in report.suspects[:MOST_SUSPECTS]:
        if not s.suspicion or s.suspicion < 0:
            weight = f"points {s.points}"
        elif report.by_probability:
            weight = f"P(label right) {percent(s.right or 0.0)}"
        else:
            weight = f"suspicion {magnitude(s.suspicion)}"
        body.append(f"look at {one_line(s.id)} ({weight}{', ' if s.decision else ''}{s.decision})")
    steps = [step.command for step in report.headline.next_steps if step.command]
    tail = [*steps, f"page: {page}", f"numbers: {json_path}"]
    return (*(head + body)[: MOST_LINES - len(tail)], *tail)


def finding_line(found: Any) -> str:
    sides = ""
    if found.chosen_only is not None:
        sides = f" (chosen only {found.chosen_only:,}, rejected only {found.rejected_only:,}, both {found.both:,})"
    return f"{found.title.lower()}: {found.count:,} pairs, {percent(found.share)}{sides}"


def change_lines(report: Report) -> list[str]:
    if not report.changes:
        return []
    told = [c for c in report.changes if c.name.split(".")[0] not in ("sizes", "texts")] or list(report.changes)
    lines = [f"since the baseline: {c.name} {plain(c.before)} -> {plain(c.after)}" for c in told[:MOST_CHANGES]]
    if len(report.changes) > len(lines):
        lines.append(f"since the baseline: {len(report.changes):,} numbers changed in all")
    return lines


def plain(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.6g}"


def one_line(text: str) -> str:
    """An id of unknown origin, fit for a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:80]
