"""Charts as inline SVG text: deterministic, coloured by the page's stylesheet, each with a title and a description.

matplotlib draws with stand-in colours; `inline` turns every style into attributes and classes (`fill-kept`), so that
the page can forbid inline styles, follow the reader's light or dark theme, and set the text in its own font.
"""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rmo_curate.audit.calibration import Decile
from rmo_curate.audit.curve import Curve
from rmo_curate.audit.findings import GROUPS, Band, Histogram, LengthTrend

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
INKS = ("ink", "soft", "grid", *GROUPS)  # style.css has .fill-<ink> and .stroke-<ink> for each
COLOURS = {ink: f"#00000{i + 1}" for i, ink in enumerate(INKS)}
CURVE_MARK = "curve-mark"
PANEL = (4.7, 2.9)  # inches; the page shows panels side by side where there is room, so text keeps its size on a phone


def figure() -> tuple[Any, Axes]:
    """A figure with one quiet panel. No pyplot: its global state would outlive the audit."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    fig = Figure(figsize=PANEL, layout="constrained")
    FigureCanvasSVG(fig)
    axes = fig.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["grid"])
    axes.tick_params(colors=COLOURS["soft"], length=0, labelsize=10.5)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.7)
    return fig, axes


def label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=COLOURS["soft"], fontsize=10.5)
    axes.set_ylabel(y, color=COLOURS["soft"], fontsize=10.5)


def histogram_chart(name: str, hist: Histogram, unit: str, title: str, text: str) -> str:
    """Stacked bars of kept and dropped pairs over a margin (nats)."""
    from matplotlib.ticker import MaxNLocator

    salt = f"histogram-{name}-{unit}"
    fig, axes = figure()
    width = hist.edges[1] - hist.edges[0]
    bottom = [0] * (len(hist.edges) - 1)
    for group in GROUPS:
        counts = hist.counts[group]
        if any(counts):
            axes.bar(hist.edges[:-1], counts, width * 0.9, bottom, align="edge", color=COLOURS[group], linewidth=0)
            bottom = [b + c for b, c in zip(bottom, counts, strict=True)]
    axes.axvline(0, color=COLOURS["ink"], linewidth=1, dashes=(3, 2))
    axes.set_xlim(hist.edges[0], hist.edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    label(axes, f"{unit} margin, nats", "pairs")
    return inline(fig, salt, title, text)


def band_chart(band: Band, names: Sequence[str], limits: tuple[float, float], title: str, text: str) -> str:
    """Reward margins (nats) of one group over the checkpoints: thin lines, the quartiles as a band, the median."""
    salt = f"trajectory-{band.group}"
    fig, axes = figure()
    x = list(range(len(names)))
    colour = COLOURS[band.group]
    for line in band.lines:
        axes.plot(x, line, color=colour, linewidth=0.7, alpha=0.4)
    axes.fill_between(x, band.lower, band.upper, color=colour, alpha=0.22, linewidth=0)
    axes.plot(x, band.median, color=colour, linewidth=2.6, marker="o", markersize=4.5)
    axes.axhline(0, color=COLOURS["ink"], linewidth=1, dashes=(3, 2))
    axes.set_ylim(*limits)
    axes.set_xlim(-0.08, len(names) - 1 + 0.08)
    shown = x if len(x) <= 6 else sorted({0, len(x) - 1, *x[:: -(-len(x) // 5)]})
    axes.set_xticks(shown, [names[i].replace("$", r"\$") for i in shown])  # no formula in a name
    for tick, place in zip(axes.get_xticklabels(), shown, strict=True):  # outer names stay inside the panel
        tick.set_horizontalalignment("left" if place == 0 else "right" if place == x[-1] else "center")
    label(axes, "", "reward margin, nats")
    return inline(fig, salt, title, text)


def length_chart(trend: LengthTrend, title: str, text: str) -> str:
    """A margin (nats) over the difference in length (tokens): a sample of pairs, quartiles and median by bin."""
    salt = f"length-{trend.margin}"
    fig, axes = figure()
    x, y = zip(*trend.points, strict=True)
    axes.scatter(x, y, s=7, color=COLOURS["soft"], alpha=0.4, linewidths=0)
    axes.fill_between(trend.centres, trend.lower, trend.upper, color=COLOURS["kept"], alpha=0.22, linewidth=0)
    axes.plot(trend.centres, trend.median, color=COLOURS["kept"], linewidth=2.4)
    axes.axhline(0, color=COLOURS["ink"], linewidth=1, dashes=(3, 2))
    axes.axvline(0, color=COLOURS["ink"], linewidth=1, dashes=(3, 2))
    label(axes, "chosen − rejected, tokens", f"{trend.margin} margin, nats")
    return inline(fig, salt, title, text)


def difference_chart(hist: Histogram, unit: str, title: str, text: str) -> str:
    """Pairs over the difference in length: which side is longer."""
    from matplotlib.ticker import MaxNLocator

    fig, axes = figure()
    width = hist.edges[1] - hist.edges[0]
    counts = [sum(bars) for bars in zip(*hist.counts.values(), strict=True)]
    axes.bar(hist.edges[:-1], counts, width * 0.9, align="edge", color=COLOURS["kept"], linewidth=0)
    axes.axvline(0, color=COLOURS["ink"], linewidth=1, dashes=(3, 2))
    axes.set_xlim(hist.edges[0], hist.edges[-1])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    label(axes, f"chosen − rejected, {unit}", "pairs")
    return inline(fig, f"difference-{unit}", title, text)


def curve_chart(curve: Curve, title: str, text: str) -> str:
    """What is dropped at each threshold; precision and recall where they are estimated. The line `curve-mark` stands
    at the slider's place: the page moves it."""
    fig, axes = figure()
    x = [step.dropped for step in curve.steps]
    lines = {
        name: [(step.dropped, of) for step in curve.steps if (of := getattr(step, name)) is not None]
        for name in ("precision", "recall")
    }
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    for name, points in lines.items():
        at, intervals = zip(*points, strict=True)
        ink = COLOURS[{"precision": "kept", "recall": "noisy"}[name]]
        axes.fill_between(at, [i.low for i in intervals], [i.high for i in intervals], color=ink, alpha=0.15, lw=0)
        axes.plot(at, [i.value for i in intervals], color=ink, linewidth=2.2)
        end = (at[-1], intervals[-1].value)
        axes.annotate(name, end, (-4, 4), textcoords="offset points", ha="right", color=COLOURS["soft"])
    if lines:
        axes.set_ylim(0, 1)
        label(axes, "pairs dropped", "estimated share")
    else:
        thresholds = [step.threshold or 0.0 for step in curve.steps[1:]]
        axes.plot(x[1:], thresholds, color=COLOURS["kept"], linewidth=2.2, drawstyle="steps-pre")
        axes.set_ylim(bottom=0)
        label(axes, "pairs dropped", f"threshold, {curve.unit}")
    axes.set_xlim(0, max(x[-1], 1))
    mark = axes.axvline(0, color=COLOURS["noisy"], linewidth=1.6)
    mark.set_gid(CURVE_MARK)
    return inline(fig, "curve", title, text, keep=(CURVE_MARK,))


def reliability_chart(deciles: Sequence[Decile], title: str, text: str) -> str:
    """Labels that agree with the evidence: observed over expected shares, with 95% by the binomial's normal limit."""
    fig, axes = figure()
    x, y = [d.expected for d in deciles], [d.observed for d in deciles]
    error = [1.96 * (v * (1 - v) / d.pairs) ** 0.5 for v, d in zip(y, deciles, strict=True)]
    low = min(0.45, *(v - e - 0.02 for v, e in zip(y, error, strict=True)))
    axes.plot([low, 1], [low, 1], color=COLOURS["ink"], linewidth=1, dashes=(3, 2))
    axes.vlines(
        x,
        [v - e for v, e in zip(y, error, strict=True)],
        [v + e for v, e in zip(y, error, strict=True)],
        color=COLOURS["kept"],
        linewidth=1.4,
    )
    axes.plot(x, y, color=COLOURS["kept"], linewidth=0, marker="o", markersize=5)
    axes.set_xlim(low, 1.01)
    axes.set_ylim(low, 1.01)
    label(axes, "expected share that agrees", "observed share")
    return inline(fig, "reliability", title, text)


def inline(fig: Any, salt: str, title: str, text: str, keep: Sequence[str] = ()) -> str:
    """The figure's SVG with classes in place of colours, no inline style, and a text alternative. `keep`: ids that
    the page uses; the axes' left and right edges (SVG units) are written beside them."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):  # text stays text, ids repeat
        fig.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    ET.register_namespace("", SVG)
    root = ET.fromstring(out.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("metadata", "style")):  # matplotlib's <style> would apply to the whole page
                parent.remove(child)
    referenced = {"url(#" + e.get("id", "") + ")" for e in root.iter(f"{{{SVG}}}clipPath")}
    targets = {e.get(XLINK, "")[1:] for e in root.iter() if e.get(XLINK)}
    for element in root.iter():
        if element.get("id") in keep:
            box = fig.axes[0].get_window_extent()
            for side, place in (("left", box.x0), ("right", box.x1)):
                element.set(f"data-{side}", f"{place * 72 / fig.dpi:.2f}")
        elif element.get("id") and element.get("id") not in targets and f"url(#{element.get('id')})" not in referenced:
            del element.attrib["id"]  # figure_1, axes_1 …: the same in every chart
        if (href := element.attrib.pop(XLINK, None)) is not None:
            element.set("href", href)
        restyle(element)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    identity = "".join(c if c.isalnum() else "-" for c in salt)
    root.attrib.update(
        {
            "class": "chart",
            "role": "img",
            "aria-labelledby": f"{identity}-title",
            "aria-describedby": f"{identity}-text",
        }
    )
    for position, (tag, suffix, content) in enumerate((("title", "title", title), ("desc", "text", text))):
        element = ET.Element(f"{{{SVG}}}{tag}", {"id": f"{identity}-{suffix}"})
        element.text = content
        root.insert(position, element)
    return ET.tostring(root, encoding="unicode")


def restyle(element: ET.Element) -> None:
    """Turn a style attribute into presentation attributes, and the stand-in colours into classes."""
    inks = {colour: ink for ink, colour in COLOURS.items()}
    classes = []
    for declaration in element.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key in ("fill", "stroke") and value in inks:
            classes.append(f"{key}-{inks[value]}")
        elif key and key != "font-family":
            element.set(key, value)
    if classes:
        element.set("class", " ".join(classes))
