"""Numbers as text for reading: counts, shares, margins."""

from __future__ import annotations

import math

from rmo_train.evaluation.metrics import Interval


def magnitude(value: float) -> str:
    """A number above zero as text, with about three digits."""
    return number(value, 1 if value >= 10 else 2 if value >= 1 else 3)


def percent(share: float) -> str:
    """A share as text, never 0% or 100% unless it is exact."""
    if math.isnan(share):
        return "–"
    if share in (0, 1):
        return f"{100 * share:.0f}%"
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{100 * share:.1f}%" if share < 0.1 or share > 0.9 else f"{100 * share:.0f}%"


def percent_interval(share: Interval) -> str:
    """A share with its 95% interval as text."""
    return f"{percent(share.value)} ({percent(share.low)} to {percent(share.high)})"


def number(value: float | None, digits: int = 1) -> str:
    """A number for reading; a dash where there is none, no sign on what rounds to zero."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.") else text.replace("-", "−")


def signed(value: float | None, digits: int = 1) -> str:
    """A margin for reading: always with its sign, but no sign on zero."""
    text = number(value, digits)
    return text if text[0] in "−–" or not text.strip("0.") else f"+{text}"
