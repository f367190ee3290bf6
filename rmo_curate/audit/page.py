"""A `Report` as one HTML page: template, stylesheet and script in one text; the policy lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rmo_curate.audit import findings
from rmo_curate.audit.charts import (
    band_chart,
    curve_chart,
    difference_chart,
    histogram_chart,
    length_chart,
    reliability_chart,
)
from rmo_curate.audit.contents import Audit, Report
from rmo_curate.audit.explained import explained
from rmo_curate.audit.first_screen import worst_pairs
from rmo_curate.audit.listing import embedded, listing
from rmo_curate.audit.numerals import magnitude, number, percent, percent_interval, signed
from rmo_curate.audit.standing_out import MOST
from rmo_curate.evidence.wording import RANDOM_FLIPS, source_in_words
from rmo_train.console.settings import flag_of
from rmo_train.console.wording import place

if TYPE_CHECKING:
    from markupsafe import Markup

HERE = Path(__file__).parent
LEAST_SPREAD = 0.02  # of expected shares, without which there is nothing to compare them by
LEAST_STEPS = 3  # checkpoints of a trajectory, or thresholds, that are drawn: two say no more than a number does


def render(audit: Audit, characters: int) -> str:
    """The page as one text. Every value is escaped; only our stylesheet, script, charts and explanations, and JSON
    without a character that HTML knows, go in as they are."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    report = audit.report
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "page.js"))
    env = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters |= {
        "place": place,
        "sentence": lambda text: f"{text[0].upper()}{text[1:]}.",
        "count": lambda n: f"{n:,}",
        "percent": percent,
        "interval": percent_interval,
        "signed": signed,
        "magnitude": magnitude,
        "prose": prose,
        "value": value,
        "flag": flag_of,
        "number": number,
        "words": lambda text: str(text).replace("_", " "),
        "markup": Markup,
    }
    env.tests["saying"] = saying
    data, drawn = listing(audit, characters), charts(report)
    return env.get_template("report.html.j2").render(
        report=report,
        nan=math.nan,
        style=Markup(style),
        style_hash=sha256(style),
        script=Markup(script),
        script_hash=sha256(script),
        data=Markup(embedded(data).decode()),
        listed=len(data["pairs"]),
        explained=explained(),
        random_flips=RANDOM_FLIPS,
        sources=listed_in_words([source_in_words(s) for s in report.evidence.sources]) if report.evidence else "",
        worst=worst_pairs(audit),
        most_standing_out=MOST,
        charts={name: Markup(svg) for name, svg in drawn.items()},
        histograms=[c for c in report.checkpoints if f"histogram-{c.name}" in drawn],
        trajectories=[b for b in report.bands if f"trajectory-{b.group}" in drawn],
        trended=[t.margin for t in report.length.trends if f"length-{t.margin}" in drawn] if report.length else [],
    )


def sha256(text: str) -> str:
    """As a Content-Security-Policy names an inline element by its content."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def listed_in_words(parts: list[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def value(setting: Any) -> str:
    """A setting or threshold for reading."""
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, float):
        return f"{setting:.4g}"
    if isinstance(setting, list | tuple):
        return ", ".join(map(value, setting))
    return "–" if setting is None else str(setting)


def saying(setting: Any) -> bool:
    """Whether a setting or threshold says anything: it was asked for, or found."""
    return setting is not None and setting is not False and setting not in ((), [], "")


def prose(sentence: str) -> Markup:
    """A sentence of ours, escaped, with `commands` and --flags set as code (a flag never breaks after its dashes)."""
    from markupsafe import Markup, escape

    marked = re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(sentence)))
    return Markup(re.sub(r"(?<=[ (])(--[a-z-]+(?: [\d.]+\d)?)(?![^<]*</code>)", r"<code>\1</code>", marked))


def charts(report: Report) -> dict[str, str]:
    """Every chart of the page by name, with its text alternative."""
    return {**margin_charts(report), **length_charts(report), **curve_charts(report), **reliability_charts(report)}


def margin_charts(report: Report) -> dict[str, str]:
    drawn = {}
    for c in report.checkpoints:
        d = c.reward_margin or c.logp_margin
        if c.histogram and d and d.sd > 0:
            unit = "reward" if c.reward_margin else "log-prob"
            text = (
                f"Histogram of the {unit} margins of {d.n:,} pairs: median {signed(d.median)}, middle half "
                f"{signed(d.p25)} to {signed(d.p75)} nats, {percent(d.share_above_zero)} above zero."
            )
            title = f"{unit.capitalize()} margins at {c.name}"
            drawn[f"histogram-{c.name}"] = histogram_chart(c.name, c.histogram, unit, title, text)
    if report.bands and len(report.path) >= LEAST_STEPS:
        values = np.array([v for b in report.bands for line in (b.lower, b.upper, *b.lines) for v in line])
        limits = findings.common_limits(values)  # not the extremes: one odd pair would flatten the rest
        for b in report.bands:
            steps = ", ".join(f"{name} {signed(v)}" for name, v in zip(report.path, b.median, strict=True))
            text = f"Reward margins of {b.n:,} pairs over the checkpoints. Medians in nats: {steps}."
            title = f"Trajectories: {b.group}"
            drawn[f"trajectory-{b.group}"] = band_chart(b, report.path, limits, title, text)
    return drawn


def length_charts(report: Report) -> dict[str, str]:
    if report.length is None:
        return {}
    length, drawn = report.length, {}
    text = (
        f"Histogram of the difference in length, chosen minus rejected, of {length.n:,} pairs: the chosen answer is "
        f"longer in {percent(length.chosen_longer)}, the rejected one in {percent(length.rejected_longer)}; the median "
        f"difference is {signed(length.median_difference, 0)} {length.unit}."
    )
    if length.equal < 1:
        drawn["difference"] = difference_chart(length.histogram, length.unit, "Difference in length", text)
    for t in length.trends:
        if math.isnan(t.spearman):  # one of the two is the same for all pairs
            continue
        text = (
            f"Over {t.n:,} pairs the rank correlation is {signed(t.spearman, 2)}. Medians, from the relatively "
            f"shortest to the relatively longest chosen answers: {', '.join(signed(v) for v in t.median)} nats."
        )
        drawn[f"length-{t.margin}"] = length_chart(t, f"{t.margin.capitalize()} margin by difference in length", text)
    return drawn


def reliability_charts(report: Report) -> dict[str, str]:
    if report.evidence is None or not report.evidence.reliability:
        return {}
    deciles = report.evidence.reliability
    if max(d.expected for d in deciles) - min(d.expected for d in deciles) < LEAST_SPREAD:
        return {}
    told = "; ".join(f"{percent(d.expected)} expected, {percent(d.observed)} observed" for d in deciles)
    text = f"Share of labels that agree with the evidence, from the weakest evidence to the strongest: {told}."
    return {"reliability": reliability_chart(deciles, "Expected and observed agreement with the evidence", text)}


def curve_charts(report: Report) -> dict[str, str]:
    steps = report.curve.steps
    if len(steps) < LEAST_STEPS:
        return {}
    some = [steps[i] for i in findings.evenly(len(steps), 5)[1:]]
    told = "; ".join(f"at {magnitude(s.threshold or 0)} {s.dropped:,} ({percent(s.share)})" for s in some)
    text = f"Pairs dropped by threshold, in {report.curve.unit}: {told}."
    return {"curve": curve_chart(report.curve, "What each threshold drops", text)}
