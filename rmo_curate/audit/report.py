"""Write an audit: DIR/report.html (one file, opens offline) and DIR/audit.json.

Both come from one `Report`, so a number on the page is the number in the JSON.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmo_curate.audit import findings, suspects
from rmo_curate.audit.charts import band_chart, histogram_chart, length_chart, sparkline
from rmo_curate.audit.collect import AuditSettings, Report, collect
from rmo_curate.audit.numerals import magnitude, number, percent, signed
from rmo_curate.filter_settings import FilterSettings
from rmo_curate.runs import open_run
from rmo_train import tables
from rmo_train.settings import flag_of

if TYPE_CHECKING:
    from markupsafe import Markup

HERE = Path(__file__).parent


@dataclass(frozen=True)
class AuditSummary:
    page: Path
    json: Path
    lines: tuple[str, ...]  # for the terminal


def write_audit(
    run_folder: Path, out: Path, settings: AuditSettings, filter_settings: FilterSettings | None = None
) -> AuditSummary:
    """Audit the scored run in `run_folder`; replaces `out`/report.html and `out`/audit.json.

    Without `filter_settings` the page shows what `filter` does by default, or, on a run that has no proxy, what every
    rule does. With a rule that needs a proxy on such a run: UserError, as from `filter`.
    """
    report = collect(open_run(run_folder), settings, filter_settings)
    page, json_path = out / "report.html", out / "audit.json"
    tables.write_json(json_path, as_json(report))
    tables.write_bytes(page, render(report).encode())
    return AuditSummary(page, json_path, summary_lines(report, page, json_path))


def as_json(value: Any) -> Any:
    """Dataclasses as plain JSON values; a number that is not finite becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: as_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): as_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(v) for v in value]
    if isinstance(value, str):
        return suspects.presentable(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render(report: Report) -> str:
    """The page as one text. Every value is escaped; only the stylesheet and our own charts go in as they are."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    style = (HERE / "style.css").read_text(encoding="utf-8")
    env = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {
        "count": lambda n: f"{n:,}",
        "percent": percent,
        "signed": signed,
        "magnitude": magnitude,
        "prose": prose,
        "value": value,
        "flag": flag_of,
        "number": number,
        "words": lambda text: str(text).replace("_", " "),
        "spark": sparkline,
        "gist": suspects.gist,
    }
    return env.get_template("report.html.j2").render(
        report=report,
        nan=math.nan,
        style=Markup(style),
        style_hash="sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        charts={name: Markup(svg) for name, svg in charts(report).items()},
    )


def value(setting: Any) -> str:
    """A setting or threshold for reading."""
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, float):
        return f"{setting:.4g}"
    return "–" if setting is None else str(setting)


def prose(sentence: str) -> Markup:
    """A sentence of ours, escaped, with `commands` and --flags set as code (a flag never breaks after its dashes)."""
    from markupsafe import Markup, escape

    found = re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(sentence)))
    return Markup(re.sub(r"(?<=[ (])(--[a-z-]+(?: [\d.]+\d)?)(?![^<]*</code>)", r"<code>\1</code>", found))


def charts(report: Report) -> dict[str, str]:
    """Every chart of the page by name, with its text alternative."""
    drawn = {}
    for c in report.checkpoints:
        d = c.reward_margin or c.logp_margin
        if c.histogram and d:
            unit = "reward" if c.reward_margin else "log-prob"
            text = (
                f"Histogram of the {unit} margins of {d.n:,} pairs: median {signed(d.median)}, middle half "
                f"{signed(d.p25)} to {signed(d.p75)} nats, {percent(d.share_above_zero)} above zero."
            )
            title = f"{unit.capitalize()} margins at {c.name}"
            drawn[f"histogram-{c.name}"] = histogram_chart(c.name, c.histogram, unit, title, text)
    if report.bands:
        values = np.array([v for b in report.bands for line in (b.lower, b.upper, *b.lines) for v in line])
        limits = findings.common_limits(values)  # not the extremes: one odd pair would flatten the rest
        for b in report.bands:
            steps = ", ".join(f"{name} {signed(v)}" for name, v in zip(report.path, b.median, strict=True))
            text = f"Reward margins of {b.n:,} pairs over the checkpoints. Medians in nats: {steps}."
            title = f"Trajectories: {b.group}"
            drawn[f"trajectory-{b.group}"] = band_chart(b, report.path, limits, title, text)
    for t in report.length.trends if report.length else ():
        text = (
            f"Over {t.n:,} pairs the rank correlation is {signed(t.spearman, 2)}. Medians, from the relatively "
            f"shortest to the relatively longest chosen answers: {', '.join(signed(v) for v in t.median)} nats."
        )
        drawn[f"length-{t.margin}"] = length_chart(t, f"{t.margin.capitalize()} margin by difference in length", text)
    return drawn


def summary_lines(report: Report, page: Path, json_path: Path) -> tuple[str, ...]:
    """At most 25 lines for the terminal."""
    lines = [report.headline.lead, *report.headline.sentences]
    if report.headline.warning:
        lines.append(f"warning: {report.headline.warning}")
    lines += [f"rejects: {n:,} {reason}" for reason, n in list(report.counts.rejects_by_reason.items())[:5]]
    if report.length:
        lines.append(f"length: the chosen answer is longer in {percent(report.length.chosen_longer)} of the pairs")
    if report.end:
        end = report.checkpoints[-1]
        lines.append(f"reward accuracy at {end.name} ({end.standing}): {percent(end.accuracy.reward)}")
    lines += [
        f"suspect {s.rank}: {s.id} (suspicion {magnitude(s.suspicion)}, {s.decision})" for s in report.suspects[:3]
    ]
    lines += [step.command for step in report.headline.next_steps if step.command]
    return (*lines, f"page: {page}", f"numbers: {json_path}")
