"""Evidence in sentences, of numbers made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rmo_curate.evidence.contributions import Contribution, OtherComparisons, StyleOfChosen, contributions
from rmo_curate.evidence.expected import Measured, Outlook
from rmo_curate.evidence.lengths import Lengths
from rmo_curate.evidence.posterior import Lack, Missing
from rmo_curate.evidence.style import Gap
from rmo_curate.evidence.wording import (
    evidence_line,
    gap_lines,
    lengths_line,
    missing_text,
    outlook_lines,
    reason_text,
    source_in_words,
)
from tests.rmo_curate.evidence.made import posterior_of


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (Contribution("states", -1.25, None), "the model's hidden states favour the rejected answer 3.5 to 1"),
        (Contribution("reference", 0.5), "the reference's own log-probs favour the chosen answer 1.6 to 1"),
        (Contribution("oof-8", 2.0), "the margins of oof-8 favour the chosen answer 7.4 to 1"),
        (Contribution("oof-8", 3.0), "the margins of oof-8 favour the chosen answer 20 to 1"),
        (Contribution("oof-8", 9.0), "the margins of oof-8 favour the chosen answer over 1,097 to 1"),
        (
            Contribution("generators", -0.4),
            "the model that wrote the rejected answer usually wins on other prompts (odds of 1.5 to 1)",
        ),
        (
            Contribution("answers", -0.4, comparisons=OtherComparisons((0, 3), (1, 4))),
            "the chosen answer loses 1 of 1 other comparison; the rejected answer wins 3 of 4 other comparisons",
        ),
        (Contribution("answers", 0.4, comparisons=OtherComparisons((2, 0), (2, 0))), "the chosen answer wins 2 of 2"),
        (
            Contribution("style", -1.0, style=StyleOfChosen((("length", False), ("commas", True)), "verse")),
            "the chosen answer's style (shorter, more commas), judged by what wins in “verse”, favours the rejected",
        ),
        (
            Contribution("style", 0.1, style=StyleOfChosen((), None)),
            "the chosen answer's style favours the chosen answer 1.1 to 1",
        ),
        (Contribution("oof-8", -0.04), "the margins of oof-8 hardly favour either answer"),
        (
            Contribution("style", 0.04, style=StyleOfChosen((), None)),
            "the chosen answer's style hardly favours either answer",
        ),
        (
            Contribution("generators", -0.04),
            "the two models that wrote these answers win about equally often elsewhere",
        ),
    ],
    ids=lambda value: value.source if isinstance(value, Contribution) else "",
)
def test_each_source_says_what_its_numbers_say(one, text):
    assert reason_text(one).startswith(text)


def test_contributions_and_the_prior_are_the_log_odds():
    posterior = posterior_of(np.array([-2.0, 0.0, 3.0]), 0.2, 1.5)
    assert contributions(posterior, 0) == [Contribution("given", -3.0)]
    assert contributions(posterior, 1) == []  # what says nothing is not told
    assert posterior.noise.prior - 3.0 == pytest.approx(posterior.log_odds[0])


def test_what_is_missing_is_told_with_its_reason():
    for lack in Lack:
        assert missing_text(Missing(lack, checkpoint="mine-ab", prompts=1))
    line = evidence_line(("style",), (Missing(Lack.NOT_HELD_OUT, checkpoint="mine-ab"), Missing(Lack.PROXY)))
    assert line == (
        "evidence: style; missing: mine-ab: not known to be held out; it may have memorised these labels; "
        "no held-out proxy"
    )
    assert evidence_line(("style", "answers"), ()) == "evidence: style, answers"
    assert missing_text(Missing(Lack.PROMPTS, prompts=1)) == "style: a held-out fit needs 2 different prompts, found 1"
    assert source_in_words("oof-3") == "the margins of oof-3"


def test_lengths_say_which_rule_suits():
    alike = lengths_line(Lengths(0.55, 0.5, 20, 30))
    assert alike.startswith("length does not decide here (the chosen answer is the longer one in 55% of 20 scored")
    unlike = lengths_line(Lengths(0.2, 0.9, 20, 30))
    assert unlike.startswith("the chosen answer is the shorter one in 80% of 20 scored pairs that differ in length")
    assert "agree with the label in 90% of 30 scored pairs" in unlike


def test_more_pairs_are_said_to_help_only_where_more_were_measured():
    measured = (Measured("verse", 0.61, 0.72, 250, 1000, 0.8), Measured("prose", 0.51, 0.52, 500, 500, 0.7))
    assert outlook_lines(Outlook(0, True, measured)) == []
    assert outlook_lines(Outlook(249, True, measured)) == []  # fewer than anything was measured at
    assert outlook_lines(Outlook(1000, True, measured))[0].endswith(": 0.61 on verse and 0.51 on prose.")
    assert len(outlook_lines(Outlook(1000, True, measured))) == 1
    assert outlook_lines(Outlook(999, False, measured))[1:] == [
        "With scores of a 135M model it is 0.72 and 0.52.",
        "With scores and as many pairs as were measured at most, it was 0.80 on verse (1,000 of them) and 0.70 on "
        "prose (500 of them).",
    ]


def test_a_gap_that_decisions_leave_as_it_is_is_told_once():
    said = gap_lines([Gap("length", 0.5, 0.25), Gap("bold", -0.331, -0.329)])
    assert said == [
        "mean difference between chosen and rejected answers, in sd: length +0.50 before, +0.25 after; bold -0.33"
    ]
