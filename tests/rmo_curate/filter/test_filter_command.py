import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_curate.filter.command import FilterSettings, decide
from rmo_curate.filter.decisions import REASONS, decide_scored
from rmo_curate.filter.settings import PRESETS
from rmo_curate.filter.summary import summary
from rmo_curate.filter.thresholds import draws
from rmo_curate.filter.wording import decision_lines
from rmo_curate.runs.run import Checkpoint, Run, Scores, Trajectory, open_run
from rmo_train.console.errors import UserError
from rmo_train.console.settings import build
from tests.rmo_curate.filter.by_hand import BY_CUT, CUT, D_0, D_T, reasons

BASE = Checkpoint("base", "base", None, None, None, None, 0.01)
OOF = Checkpoint("oof-16", "proxy", "oof", 16, 2, True, 0.01)


@pytest.fixture
def hand(make_run):
    """Ten scorable pairs of eleven."""
    rows = [{"tokens_sha": "the same"} if i in (0, 8) else {} for i in range(len(D_0))]
    return open_run(make_run({"base": D_0, "oof-16": D_T}, rows=rows, too_long=[10]))


def told(run: Run, settings: FilterSettings) -> list[str]:
    decisions = decide(run, settings)
    return decision_lines(decisions, summary(run, decisions))


def scores_of(base, end) -> tuple[Scores, Trajectory]:
    margins = np.stack([base, end], axis=1).astype(float)
    n = len(margins)
    ones = np.ones(n, dtype=int)
    scores = Scores(("base", "oof-16"), margins, np.zeros_like(margins), ones, ones, np.full(n, True, dtype=object))
    return scores, Trajectory((BASE, OOF), OOF)


def decide_margins(base, end, **given):
    no = np.zeros(len(base), dtype=bool)
    ids = pa.array([f"p{i}" for i in range(len(base))])
    return decide_scored(ids, no, no, *scores_of(base, end), FilterSettings(**given))


def test_a_filter_by_hand(hand):
    decisions = decide(hand, FilterSettings(**CUT))
    assert reasons(decisions) == BY_CUT
    assert decisions.thresholds == {"noisy_budget": 2, "suspicion": 2.0, "tau": 2.25, "gamma": None}
    assert decisions.counts == {
        "pairs": 11,
        "kept": 5,
        "noisy": 2,
        "ambiguous": 2,
        "too_long": 1,
        "duplicate": 1,
        "decision": 0,
    }
    assert decisions.suspicion[:4].tolist() == [-8, -6, 4, 2] and np.isnan(decisions.suspicion[10])
    assert decisions.keep_probability[:6].tolist() == [1, 1, 1, 0, 0, 0] and np.isnan(decisions.draw).all()


def test_a_dropped_pair_tells_the_first_reason_that_holds():
    # p0 is too long and a duplicate; p1 a duplicate, noisy and ambiguous; p2 noisy and ambiguous; p3 ambiguous.
    base, end = np.zeros(5), np.array([np.nan, -4.0, -3.0, -1.0, 9.0])
    too_long, duplicate = np.arange(5) < 1, np.arange(5) < 2
    cuts = FilterSettings(
        rule="irm", low_q=1, high_q=0.5, hard=True
    )  # floor(0.5 * 4) = 2 noisy; all but the clearest ambiguous
    decisions = decide_scored(
        pa.array(["p0", "p1", "p2", "p3", "p4"]), too_long, duplicate, *scores_of(base, end), cuts
    )
    assert decisions.reason.tolist() == ["too_long", "duplicate", "noisy", "ambiguous", None]


def test_a_soft_cut_drops_where_the_draw_is_below_its_probability(hand):
    decisions = decide(hand, FilterSettings(low_q=0.25, high_q=1, seed=7))
    a = np.abs(np.subtract(D_T, D_0))[:10]
    p_drop = 0.5 * (1 - np.tanh((a - 2.25) / 1.125))
    draw = draws(7, pa.array([f"p{i}" for i in range(10)]))
    np.testing.assert_allclose(decisions.keep_probability[:10], 1 - p_drop)
    np.testing.assert_array_equal(decisions.draw[:10], draw)
    expected = {f"p{i}" for i in range(10) if draw[i] < p_drop[i]} - {"p8"}
    assert {i for i, r in reasons(decisions).items() if r == "ambiguous"} == expected
    assert decisions.thresholds["tau"] == 2.25 and decisions.thresholds["gamma"] == 1.125


def test_high_q_1_drops_no_noisy_pair_and_high_q_0_every_suspect_one(hand):
    assert decide(hand, FilterSettings(rule="irm", high_q=1, low_q=0)).counts["noisy"] == 0
    every = decide(hand, FilterSettings(rule="irm", high_q=0, low_q=0))
    assert {i for i, r in reasons(every).items() if r == "noisy"} == {"p2", "p3", "p4"}


def test_the_paper_preset_is_its_rule_and_a_soft_cut_of_log_prob_margins(hand):
    decisions = decide(hand, FilterSettings(preset="paper"))
    # D_0 < 0 and D_T < D_0: p2 (-1, -5) and p4 (-2, -3), whatever their number
    assert {i for i, r in reasons(decisions).items() if r == "noisy"} == {"p2", "p4"}
    # |D_T|: 0.5 1 1 3 5 5 6 8 9 9; 0.1 quantile at index 0.9
    assert decisions.thresholds["tau"] == pytest.approx(0.95)
    np.testing.assert_array_equal(decisions.ambiguity[:10], np.abs(D_T[:10]))


def test_the_authors_preset_is_their_scripts_two_sets():
    #           both small, at the bound, D_0 too large, D_T too large, the paper's rule, its rule and small
    base = np.array([0.0, 10.0, 12.0, 4.0, -12.0, -4.0])
    end = np.array([2.0, -10.0, 4.0, 36.0, -20.0, -5.0])
    decisions = decide_margins(base, end, preset="authors-code")
    assert decisions.reason.tolist() == ["ambiguous", "ambiguous", None, None, "noisy", "noisy"]
    assert decisions.thresholds["tau"] == 10


@given(
    st.lists(st.tuples(st.integers(-14, 14), st.integers(-14, 14)), min_size=2, max_size=30).filter(
        lambda d: len({min(-a, a - b) for a, b in d}) > 1  # not all equally suspect
    )
)
def test_the_authors_preset_decides_as_their_script_does(differences):
    base, end = np.array(differences, dtype=float).T
    noisy = (base < 0) & (end < base)
    near = (np.abs(base) <= 10) & (np.abs(end) <= 10)
    decisions = decide_margins(base, end, preset="authors-code")
    np.testing.assert_array_equal(decisions.reason == "noisy", noisy)
    np.testing.assert_array_equal(decisions.reason == "ambiguous", near & ~noisy)
    np.testing.assert_array_equal(decisions.keep_probability, 1.0 - near)
    np.testing.assert_array_equal(decisions.suspicion > 0, noisy)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize(
    "given", [{"rule": "rmo"}, {"low_q": 0.1}, {"high_q": 0.5}, {"margin": "logp"}, {"hard": True}], ids=str
)
def test_a_preset_excludes_the_flags_that_it_sets(preset, given):
    flag = "--" + next(iter(given)).replace("_", "-")
    with pytest.raises(UserError, match=rf"--preset {preset} sets .* together, and {flag} is also given"):
        build(FilterSettings, "filter", {"filter": {"preset": preset}}, given)


def test_the_rule_is_the_posterior_unless_given():
    assert FilterSettings().rule == FilterSettings(rule="auto").rule == "posterior"
    assert FilterSettings(rule="irm").rule == "irm" and not FilterSettings(rule="irm", high_q=0.95).weighs_evidence


def test_labels_are_softened_unless_a_cut_is_named():
    own = FilterSettings()
    assert (own.action, own.noise_rate, own.high_q, own.low_q) == ("auto", None, None, 0)
    quantiles = FilterSettings(low_q=0.1, high_q=0.95)
    assert (quantiles.action, quantiles.noise_rate, quantiles.high_q, quantiles.low_q) == ("drop", None, 0.95, 0.1)
    assert FilterSettings(low_q=0.1).action == "auto"
    assert FilterSettings(noise_rate="auto").action == FilterSettings(rule="irm").action == "drop"
    assert FilterSettings(preset="paper").action == FilterSettings(rule="none").action == "drop"
    assert FilterSettings(action="drop").noise_rate == FilterSettings(rule="irm").noise_rate == "auto"
    assert FilterSettings(precision=0.8).noise_rate is FilterSettings(action="weight").noise_rate is None
    assert FilterSettings(rule="none", low_q=0.2).low_q == 0.2 and FilterSettings(rule="none").noise_rate is None
    assert FilterSettings(preset="paper").noise_rate is None
    assert build(FilterSettings, "filter", {"filter": {"low_q": 0.3}}, {"rule": "none"}).low_q == 0.3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"low_q": 1.5}, r"--low-q .*less than or equal to 1, got 1.5"),
        ({"high_q": -0.1}, r"--high-q .*greater than or equal to 0, got -0.1"),
        ({"low_q": float("nan")}, "--low-q .*finite"),
        ({"rule": "rom"}, "--rule rom.*did you mean 'rmo'"),
        ({"margin": "logits"}, r"--margin .*'reward', 'logp' or 'mean_logp'"),
        ({"preset": "papers"}, "--preset .*'paper' or 'authors-code'"),
        ({"preset": ["paper"]}, "--preset "),
    ],
    ids=str,
)
def test_a_bad_setting_names_its_flag(given, message):
    with pytest.raises(UserError, match=message):
        build(FilterSettings, "filter", {}, given)


def test_rule_none_needs_no_proxy_and_drops_only_what_cannot_be_trained_on(make_run):
    rows = [{"tokens_sha": "same"}, {"tokens_sha": "same"}, {}, {}]
    run = open_run(make_run({"base": [1.0, 2.0, -3.0, 4.0]}, rows=rows, too_long=[3]))
    decisions = decide(run, FilterSettings(rule="none"))
    assert reasons(decisions) == {"p1": "duplicate", "p3": "too_long"}
    assert np.isnan(decisions.suspicion).all() and decisions.thresholds["tau"] is None


def test_without_a_proxy_an_ambiguity_cut_needs_the_bases_own_margin(make_run):
    run = open_run(make_run({"base": [0.5, 2.0, -3.0, 4.0]}))
    with pytest.raises(
        UserError, match=rf"--low-q 0.25 with --margin reward.*--margin logp.*rmo-curate proxy {run.folder}"
    ):
        decide(run, FilterSettings(rule="none", low_q=0.25))
    cut = decide(run, FilterSettings(rule="none", low_q=0.25, margin="logp", hard=True))
    assert reasons(cut) == {"p0": "ambiguous"}


@pytest.mark.parametrize(
    "given", [{"rule": "irm"}, {"rule": "rmo-ln"}, {"preset": "paper"}, {"preset": "authors-code"}], ids=str
)
def test_a_rule_on_a_run_without_a_proxy_names_the_command(make_run, given):
    run = open_run(make_run({"base": [1.0, 2.0]}))
    with pytest.raises(UserError, match=r"rmo-curate proxy"):
        decide(run, FilterSettings(**given))


def test_data_that_say_nothing_are_refused(make_run):
    same = open_run(make_run({"base": [1.0, 2.0, 3.0], "oof-16": [1.0, 2.0, 3.0]}))
    with pytest.raises(UserError, match="--rule irm: all 3 pairs get the same suspicion"):
        decide(same, FilterSettings(rule="irm"))
    with pytest.raises(UserError, match="every pair has the same reward margin"):
        decide(same, FilterSettings(rule="none", low_q=0.1))
    assert decide(same, FilterSettings(rule="none")).counts["kept"] == 3
    long = open_run(make_run({"base": [1.0, 2.0]}, too_long=[0, 1], name="long"))
    with pytest.raises(UserError, match=r"all of its pairs \(2\) are longer than"):
        decide(long, FilterSettings(rule="none"))


def test_a_soft_cut_drops_about_low_q():
    rng = np.random.default_rng(0)
    base = rng.normal(size=20_000)
    decisions = decide_margins(base, base + rng.normal(size=20_000), rule="irm", low_q=0.1, high_q=1)
    # sd of the count is below sqrt(20000 * 0.1) = 45; four of them are 0.9%
    assert decisions.counts["ambiguous"] / 20_000 == pytest.approx(0.1, abs=0.009)


values = st.lists(st.tuples(st.integers(-8, 8), st.integers(-8, 8)), min_size=3, max_size=25)


@settings(deadline=None)
@given(values, st.floats(0, 1), st.floats(0, 1), st.booleans(), st.randoms())
def test_decisions_do_not_depend_on_the_order_and_add_up(pairs, low_q, high_q, hard, random):
    base, end = np.array(pairs, dtype=float).T
    end[0], end[1] = base[0] + 50, base[1] - 49  # never constant
    ids = [f"id-{i}" for i in range(len(base))]
    too_long = np.zeros(len(base), dtype=bool)
    order = list(range(len(base)))
    random.shuffle(order)
    settings = FilterSettings(rule="irm", low_q=low_q, high_q=high_q, hard=hard)

    def run(picked):
        scores, trajectory = scores_of(base[picked], end[picked])
        return decide_scored(pa.array([ids[i] for i in picked]), too_long, too_long, scores, trajectory, settings)

    first, second = run(range(len(base))), run(order)
    assert reasons(first) == reasons(second)
    assert first.counts["kept"] + sum(first.counts[r] for r in REASONS) == first.counts["pairs"]
    assert first.counts["noisy"] <= first.thresholds["noisy_budget"]


def test_what_is_said_adds_up_and_warns(hand):
    settings = FilterSettings(**CUT)
    said = "\n".join(told(hand, settings))
    assert "10 scored of 11 pairs = 5 kept + 2 noisy, 2 ambiguous, 1 duplicate" in said
    assert "last checkpoint: oof-16 (2 folds), held out" in said
    assert "finds at most" not in said and "tau = 2.25 nats" in said
    assert "warning: 4 of 10 scored pairs (40%) are dropped as noisy or ambiguous" in said
    assert "finds at most 25%" in "\n".join(told(hand, FilterSettings(high_q=0.95)))


def test_an_in_sample_proxy_is_said_to_be_one(make_run):
    run = open_run(make_run({"base": [1.0, 2.0, 3.0], "insample-16": [2.0, 1.0, 9.0]}))
    assert any("NOT held out" in line for line in told(run, FilterSettings()))
    run = open_run(make_run({"base": [1.0, 2.0, 3.0], "mine-ab": [2.0, 1.0, 9.0]}, name="users"))
    assert any("not known to be held out" in line for line in told(run, FilterSettings()))
