"""Parts of an audit by themselves, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rmo_curate.audit.baseline import changes
from rmo_curate.audit.curve import curve
from rmo_curate.audit.gates import parse_gate, scalars
from rmo_curate.audit.listing import embedded
from rmo_curate.audit.preferences import Preferences, circles, reversals
from rmo_curate.audit.scored import Movement
from rmo_curate.audit.slices import SliceRow, longer_wins, parts, slice_rows, thirds
from rmo_curate.audit.suspects import ranking
from rmo_curate.audit.why import because, movement_sentences
from rmo_curate.audit.wording import untold_text
from rmo_curate.evidence.label_noise import Judgeable
from rmo_curate.evidence.swapped_copies import telling
from rmo_curate.evidence.wording import Reason
from rmo_train.evaluation.metrics import Interval


def preferences(*edges: tuple[int, int, int]) -> Preferences:
    found = np.array(edges, np.int64).reshape(-1, 3)
    return Preferences(found[:, 0], found[:, 1], found[:, 2])


def test_reversals_name_their_counterpart():
    assert reversals(preferences((0, 1, 2), (0, 2, 1), (0, 1, 3), (0, 2, 1))) == {0: 1, 1: 0, 3: 0}


def test_circles_are_strongly_connected_answers():
    # 1 > 2 > 3 > 1 is a circle of three; 3 > 4 leaves it and 5 > 1 leads to it.
    found = preferences((0, 1, 2), (0, 2, 3), (0, 3, 1), (0, 3, 4), (0, 5, 1))
    assert circles(found, []) == {0: 3, 1: 3, 2: 3}
    # The two arrows of an outright reversal are left out, and with them the circle that they close.
    assert circles(preferences((0, 1, 2), (0, 2, 1), (0, 2, 3), (0, 3, 1)), [0, 1]) == {}
    assert circles(preferences(), []) == {}


def test_a_chain_of_a_hundred_thousand_answers_is_no_circle():
    found = preferences(*((0, i, i + 1) for i in range(100_000)))
    assert circles(found, []) == {}


def test_the_curve_counts_what_goes_at_each_threshold():
    found = curve(np.array([3.0, 2.0, 2.0, 1.0, 0.0, -1.0, np.nan]), "nats")
    assert [(s.threshold, s.dropped) for s in found.steps] == [(None, 0), (3.0, 1), (2.0, 3), (1.0, 4)]
    assert found.steps[-1].share == pytest.approx(4 / 6) and found.pairs == 6
    assert [(s.threshold, s.dropped) for s in curve(np.array([-1.0, np.nan]), "nats").steps] == [(None, 0)]


def test_the_curve_of_many_pairs_has_a_hundred_steps_and_falls():
    values = np.random.default_rng(0).normal(size=5000)
    steps = curve(values, "nats").steps
    assert len(steps) == 101 and steps[-1].dropped == (values > 0).sum()
    thresholds = [s.threshold for s in steps[1:]]
    assert thresholds == sorted(thresholds, reverse=True)
    assert [(values >= t).sum() for t in thresholds] == [s.dropped for s in steps[1:]]


def test_the_curve_has_a_step_at_the_cut_that_is_proposed_and_starts_there():
    values = np.random.default_rng(0).normal(size=5000)
    cut = float(np.sort(values)[-1234])
    found = curve(values, "nats", cut=cut)
    assert found.steps[found.start].threshold == cut and found.steps[found.start].dropped == 1234
    assert curve(values, "nats").start == 0 == curve(-np.abs(values), "nats", cut=None).start


def test_an_interval_that_says_nothing_is_left_out():
    assert telling(Interval(0.5, 0.1, 0.7)) == Interval(0.5, 0.1, 0.7)
    assert telling(Interval(0.9, 0.34, 1.0)) is None


def test_slices():
    assert parts(["a", "b", "a", None, "a"], 5)
    assert not parts(["a", "a", "a"], 3) and not parts([str(i) for i in range(50)], 50)
    assert not parts(["a", "b", None, None, None], 5)  # most pairs have none
    assert thirds(np.arange(1, 10)) == ["up to 3 words"] * 3 + ["4 to 6 words"] * 3 + ["over 6 words"] * 3
    assert longer_wins(np.array([5, -1, 0, 2])) == pytest.approx(2 / 3)
    assert np.isnan(longer_wins(np.array([0, 0])))


def test_slice_rows_by_hand():
    flagged, noisy = np.array([True, False, False]), np.array([False, True, False])
    rows = slice_rows({"source": ["a", "b", "b"]}, np.array([2, -1, 3]), flagged, np.array([-1.0, np.nan, 2.0]), noisy)
    of_b = SliceRow("source", "b", 2, 2, 1, 0.5, 0.0, 0.0, 0.0)  # the noisy one was not scored
    assert rows == (of_b, SliceRow("source", "a", 1, 1, 1, 1.0, 1.0, 1.0, 0.0))
    unscored = slice_rows({"source": ["a", "b", "b"]}, np.array([2, -1, 3]), flagged, np.full(3, np.nan), None)
    assert all(row.scored == 0 and np.isnan([row.against, row.noisy]).all() for row in unscored)


def test_gates():
    gate = parse_gate(" findings.refusal.share >= 2e-1 ")
    assert str(gate) == "findings.refusal.share>=0.2" and gate.trips(0.2) and not gate.trips(0.19)
    for text in ("a", "a>", ">1", "a=1", "a>b", "a>1>2"):
        with pytest.raises(ValueError, match="expected a name, one of"):
            parse_gate(text)
    audit = {"a": 1, "b": {"c": None, "d": [1]}, "e": "text", "f": True, "identity": {"x": 3}}
    assert scalars(audit) == {"a": 1, "b.c": None}


def test_changes_come_largest_first():
    found = changes({"a": 10, "b": 1.0, "c": None, "d": 5}, {"a": 11, "b": 2.0, "c": 3, "d": 5})
    assert [(c.name, c.before, c.after) for c in found if c.name != "c"] == [("b", 1.0, 2.0), ("a", 10, 11)]
    assert {c.name for c in found} == {"a", "b", "c"}


def test_where_a_margin_went_is_said_as_its_numbers_say():
    fell = movement_sentences(Movement(-2.0, 0.9, steadily_down=True, turned=False), "Training moved it")
    assert fell == [
        "Training moved it 2.00 nats towards the rejected answer; 90% of the scored pairs have a higher reward margin.",
        "It moved that way at every checkpoint.",
    ]
    turned = movement_sentences(Movement(-2.0, 0.9, steadily_down=False, turned=True), "Training moved it")
    assert turned[1:] == ["It first moved towards the chosen answer, then away from it."]
    rose = movement_sentences(Movement(0.5, 0.25, steadily_down=False, turned=False), "Training moved it")
    assert len(rose) == 1 and "0.500 nats towards the chosen answer; 25% of" in rose[0]
    stayed = movement_sentences(Movement(-0.0004, 0.5, steadily_down=False, turned=False), "Training moved it")
    assert stayed[0].startswith("Training moved it less than 0.001 nats towards the rejected answer;")


def test_why_there_is_no_noise_rate_is_told_by_what_there_is_too_little_of():
    assert "there are 99 pairs" in untold_text(Judgeable(99, 99))
    assert untold_text(Judgeable(1, 2)).startswith("there is 1 pair to judge")
    assert "there are 400 pairs of 19 prompts, and a noise rate needs at least 20" in untold_text(Judgeable(400, 19))
    assert "all pairs have the same prompt" in untold_text(Judgeable(400, 1))
    assert "on 400 pairs, the evidence predicts held-out labels no better than chance" in untold_text(
        Judgeable(400, 90)
    )


def test_embedded_json_holds_nothing_that_html_knows():
    text = embedded({"a": "</script><!-- & \u2028 ]]>"}).decode()
    assert not set("<>&\u2028") & set(text)


# ------------------------------------------------------------------------------------------------- the order of pairs


def test_pairs_are_listed_by_suspicion_then_findings_and_some_before_all():
    suspicion = np.array([0.5, 2.0, -1.0, -3.0, -3.0])
    points = np.array([0, 0, 1, 3, 0])
    flagged = points > 0
    assert ranking(suspicion, points, flagged).tolist() == [1, 0, 3, 2]  # the last one has nothing to look at
    assert ranking(suspicion, points, flagged, points >= 3).tolist() == [3, 1, 0, 2]
    assert ranking(None, points, flagged).tolist() == [3, 2]


AGAINST, FOR = Reason("style", -2.0, "its style is odd"), Reason("states", 0.5, "the states favour it")
FAINTLY, TOO = Reason("states", 0.4, "hardly"), Reason("reference", -0.5, "also odd")
STATES_FOR = "; in its favour: the model's hidden states"


@pytest.mark.parametrize(
    ("right", "reasons", "visible", "said"),
    [
        (0.1, (AGAINST, FAINTLY), False, "The label is 10% likely to be right: its style is odd."),
        (0.1, (AGAINST, FOR), False, f"The label is 10% likely to be right: its style is odd{STATES_FOR}."),
        (0.1, (AGAINST,), False, "By the answers' style alone, the label is 10% likely to be right: its style is odd."),
        (0.1, (AGAINST, FOR), True, f"It refuses. The label is 10% likely to be right: its style is odd{STATES_FOR}."),
        (0.9, (AGAINST, FOR), True, "It refuses."),
        (
            None,
            (AGAINST, TOO, FOR),
            False,
            f"Against the label: its style is odd; also against the label: the reference's log-probs{STATES_FOR}.",
        ),
        (None, (FOR,), False, "It refuses."),
    ],
)
def test_a_pair_says_why_it_is_listed(right, reasons, visible, said):
    assert because(right, reasons, ["It moved."], ["It refuses."], visible=visible) == said
