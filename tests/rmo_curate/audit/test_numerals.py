"""Numbers as a reader wants them: no sign on zero, no false certainty."""

from __future__ import annotations

import math

import pytest

from rmo_curate.audit.numerals import magnitude, number, percent, signed


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0%"), (1, "100%"), (0.0004, "<0.1%"), (0.9996, ">99.9%"), (0.048, "4.8%"), (0.38, "38%"), (math.nan, "–")],
)
def test_a_share_is_0_or_100_percent_only_where_it_is_exact(share: float, text: str):
    assert percent(share) == text


@pytest.mark.parametrize(("value", "text"), [(-0.3, "0"), (0.0, "0"), (-1.2, "−1"), (1234.0, "+1,234"), (None, "–")])
def test_what_rounds_to_zero_has_no_sign(value: float | None, text: str):
    assert signed(value, 0) == text
    assert number(-0.04) == "0.0"


def test_a_margin_has_its_sign_and_a_magnitude_three_digits():
    assert [signed(v) for v in (1.25, -1.26, 0.0, math.nan)] == ["+1.2", "−1.3", "0.0", "–"]
    assert [magnitude(v) for v in (1234.5, 12.34, 1.234, 0.01234)] == ["1,234.5", "12.3", "1.23", "0.012"]
