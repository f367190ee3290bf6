"""The lines that an audit prints."""

from __future__ import annotations

from pathlib import Path

from rmo_curate.audit.contents import Report
from rmo_curate.audit.numerals import percent, percent_interval
from rmo_curate.audit.overview import FindingCount
from rmo_curate.audit.scored import CheckpointFindings
from rmo_curate.audit.standing_out import MOST
from rmo_curate.audit.suspects import Suspect
from rmo_train.console.wording import counted, place

MOST_LINES = 25
MOST_FINDINGS, MOST_CHANGES, MOST_SUSPECTS = 7, 4, 3
MOST_CHARACTERS = 320  # of why a pair is listed


def summary_lines(report: Report, page: Path, json_path: Path) -> tuple[str, ...]:
    """At most MOST_LINES lines for the terminal."""
    head = [report.headline.lead, report.headline.certainty]
    if report.headline.warning:
        head.append(f"warning: {report.headline.warning}")
    head += [suspect_line(s) for s in report.suspects[:MOST_SUSPECTS]]
    head += [strong.text for strong in report.standing_out[:MOST]]
    body = [
        f"rejects: {n:,} of {counted(report.counts.records, 'record')} for {reason}"
        for reason, n in list(report.counts.rejects_by_reason.items())[:3]
    ]
    body += report.headline.sentences
    if report.overlap and not report.overlap.pairs:
        body.append(f"no prompt is also in {report.overlap.name}, exactly or nearly")
    if report.end:
        body.append(accuracy_line(report.checkpoints[-1]))
    body += change_lines(report)
    commonest = sorted((f for f in report.findings.values() if f.count and f.of == "pairs"), key=lambda f: -f.count)
    body += [finding_line(f, report.counts.pairs) for f in commonest[:MOST_FINDINGS]]
    step = report.headline.next_step
    tail = [step.text, f"next: {step.command}", f"page: {page}", f"numbers: {json_path}"]
    return (*(head + body)[: MOST_LINES - len(tail)], *tail)


def suspect_line(suspect: Suspect) -> str:
    decision = f" ({suspect.decision})" if suspect.decision else ""
    file, number = suspect.source_file, suspect.source_line
    at = f" at {place(one_line(file), number)}" if file and number is not None else ""
    because = one_line(suspect.because, len(suspect.because))
    if len(because) > MOST_CHARACTERS:
        because = f"{because[:MOST_CHARACTERS].rsplit(' ', 1)[0]} …"
    return f"look at {one_line(suspect.id)}{at}{decision}: {because}"


def accuracy_line(end: CheckpointFindings) -> str:
    of = end.accuracy
    few = ", too few to tell" if of.few else ""
    return (
        f"reward accuracy at {end.name} ({end.standing}): {percent_interval(of.reward)}, of "
        f"{counted(of.pairs, 'scored pair')} of {counted(of.prompts, 'prompt')}{few}"
    )


def finding_line(finding: FindingCount, pairs: int) -> str:
    """pairs: of the whole data."""
    sides = ""
    if finding.chosen_only is not None:
        sides = (
            f" (chosen only {finding.chosen_only:,}, rejected only {finding.rejected_only:,}, both {finding.both:,})"
        )
    return f"{finding.title.lower()}: {finding.count:,} of {counted(pairs, 'pair')}, {percent(finding.share)}{sides}"


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


def one_line(text: str, most: int = 80) -> str:
    """Text of unknown origin, fit for a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)[:most]
