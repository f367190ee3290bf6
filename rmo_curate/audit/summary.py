"""The lines that an audit prints."""

from __future__ import annotations

from pathlib import Path

from rmo_curate.audit.contents import Report
from rmo_curate.audit.numerals import magnitude, percent
from rmo_curate.audit.overview import FindingCount

MOST_LINES = 25
MOST_FINDINGS, MOST_CHANGES, MOST_SUSPECTS = 7, 4, 2


def summary_lines(report: Report, page: Path, json_path: Path) -> tuple[str, ...]:
    """At most MOST_LINES lines for the terminal."""
    head = [report.headline.lead, *report.headline.sentences]
    if report.headline.warning:
        head.append(f"warning: {report.headline.warning}")
    body = [f"rejects: {n:,} {reason}" for reason, n in list(report.counts.rejects_by_reason.items())[:3]]
    commonest = sorted((f for f in report.findings.values() if f.count and f.of == "pairs"), key=lambda f: -f.count)
    body += [finding_line(f) for f in commonest[:MOST_FINDINGS]]
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


def finding_line(finding: FindingCount) -> str:
    sides = ""
    if finding.chosen_only is not None:
        sides = (
            f" (chosen only {finding.chosen_only:,}, rejected only {finding.rejected_only:,}, both {finding.both:,})"
        )
    return f"{finding.title.lower()}: {finding.count:,} pairs, {percent(finding.share)}{sides}"


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
