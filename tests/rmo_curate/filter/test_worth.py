"""What labels are worth under each action, and the cut and the softening that pay."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from rmo_curate.evidence.label_noise import Resampled, fit_noise
from rmo_curate.filter.wording import worth_line
from rmo_curate.filter.worth import (
    CELLS,
    Cut,
    Worth,
    best_cut,
    best_softness,
    clean_pairs,
    worth,
)
from rmo_train.data.pairs import softened


class Drawn(Resampled):
    """Draws of noise that a test chooses, every pair once in each."""

    def __init__(self, rates: list[float], slopes: list[float], pairs: int):
        self.known = np.full(pairs, True)
        self.group, self.size = np.arange(pairs), pairs
        self.times = np.ones((len(rates), pairs), dtype=int)
        self.rates, self.slopes = np.array(rates), np.array(slopes)


def right_of(margin: np.ndarray, rate: float, slope: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.log((1 - rate) / rate) + slope * margin)))


def simulated(pairs: int, rate: float, seed: int, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """(margins that are log-odds of the labels as given, wrong), of labels flipped at `rate`."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(pairs) < rate
    margin = rng.normal(skill**2 / 2, skill, pairs) * (1 - 2 * rate)
    return np.where(wrong, -margin, margin), wrong


def test_clean_pairs_by_hand():
    # 100 pairs of which 20 are wrong, and nothing tells which: 100 x 0.6^2, whatever the weights.
    blind = np.full(100, 0.8)
    assert [clean_pairs(blind, w) for w in (1.0, blind, 2 * blind - 1)] == pytest.approx([36, 36, 36])
    # Known for certain: dropping the wrong leaves 80 clean ones; soft labels turn the wrong ones round.
    known = np.repeat([1.0, 0.0], [80, 20])
    assert [clean_pairs(known, w) for w in (known >= 0.5, known, 2 * known - 1)] == pytest.approx([80, 80, 100])


def test_a_cut_is_worth_what_the_formula_of_its_rates_says():
    rng = np.random.default_rng(0)
    right = rng.beta(4, 1, 5000)
    kept = right >= 0.5
    e, left, q = 1 - right.mean(), 1 - right[kept].mean(), 1 - kept.mean()
    gain = (1 - q) * (1 - 2 * left) ** 2 / (1 - 2 * e) ** 2
    assert clean_pairs(right, kept) / clean_pairs(right) == pytest.approx(gain)


def test_no_weights_are_worth_more_than_soft_labels():
    rng = np.random.default_rng(1)
    right = rng.beta(2, 1, 300)
    best = clean_pairs(right, 2 * right - 1)
    for _ in range(20):
        assert clean_pairs(right, rng.normal(size=300)) <= best
    assert clean_pairs(right, right >= 0.5) <= best and clean_pairs(right, right) <= best <= 300


def test_what_is_known_of_labels_by_simulation():
    """Means of n draws +-1 with P(+1) = p, weighed: (mean / sd)^2 of the sum is the worth."""
    rng = np.random.default_rng(2)
    right = rng.beta(3, 1, 200)
    weight = 2 * right - 1
    signs = np.where(rng.random((20_000, 200)) < right, 1, -1) + rng.normal(0, 30, (20_000, 200))  # noise outweighs it
    sums = signs @ weight
    assert (sums.mean() / sums.std() * 30) ** 2 == pytest.approx(clean_pairs(right, weight), rel=0.1)


@pytest.mark.parametrize("instead", [0.0, -1.0], ids=["dropped", "exchanged"])
def test_the_best_cut_is_the_best_of_all_by_the_mean_of_draws_in_which_noise_is_rare(instead):
    """By hand: every cut under either draw, of which the one with twice the noise counts a quarter."""
    margin = np.random.default_rng(3).normal(0.5, 1.0, 60)
    order = np.argsort(margin)[:20]
    draws = [(0.2, 1.0), (0.4, 3.0)]
    right = right_of(margin, 0.2, 1.5)

    def gain(gone: int, rate: float, slope: float) -> float:
        weight = np.ones(60)
        weight[order[:gone]] = instead
        p = right_of(margin, rate, slope)
        return clean_pairs(p, weight) / clean_pairs(p)

    of = np.array([[gain(m, *draw) for m in range(21)] for draw in draws])
    chance = np.array([4, 1]) / 5
    mean = np.exp(chance @ np.log(of))
    low, high = of.min(axis=0), of.max(axis=0)  # the middles of two steps are in them
    drawn, everyone = Drawn([r for r, _ in draws], [k for _, k in draws], 60), np.full(60, True)
    cut = best_cut(order, right, margin, drawn, instead)
    best = mean.argmax()
    assert (cut.pairs, cut.of) == (best, 20) and best > 0
    decided = np.where(np.isin(np.arange(60), order[:best]), instead, 1.0)
    times = worth(right, margin, drawn, 1.0, everyone, everyone, decided).decided
    assert times.value == pytest.approx(mean[best], rel=1e-5)
    assert low[best] - 1e-5 < times.low < times.high < high[best] + 1e-5


def test_rates_below_two_and_a_half_percent_count_alike():
    margin, _ = simulated(1000, 0.3, 0)
    right, everyone = right_of(margin, 0.3, 1.0), np.full(1000, True)

    def soft_label(*rates: float) -> float:
        drawn = Drawn(list(rates), [1.0] * len(rates), 1000)
        return np.log(worth(right, margin, drawn, 1.0, everyone, everyone).times["soft-label"].value)

    assert soft_label(0.005, 0.02) == pytest.approx((soft_label(0.005) + soft_label(0.02)) / 2)
    assert soft_label(0.025, 0.05) == pytest.approx(0.8 * soft_label(0.025) + 0.2 * soft_label(0.05))


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_pairs_taken_together_give_the_figures_of_each_for_itself(monkeypatch, rate):
    margin, _ = simulated(6000, rate, 0)
    groups = np.arange(6000) // 2
    noise, resampled = fit_noise(margin, groups), Resampled(margin, groups)
    right = right_of(margin, noise.rate, noise.slope)
    order = np.argsort(margin)[: int((right < 0.5).sum())]
    kept = right >= 0.5
    assert len(margin) > CELLS

    def all_of_it() -> tuple[Cut, Worth, float]:
        softness = best_softness(right, margin, resampled)
        found = worth(right, margin, resampled, softness, kept, np.full(6000, True))
        return best_cut(order, right, margin, resampled), found, softness

    together = all_of_it()
    monkeypatch.setattr("rmo_curate.filter.worth.CELLS", 6000)
    apart = all_of_it()
    assert together[0].pairs == apart[0].pairs and together[1].as_given == apart[1].as_given
    assert together[2] == apart[2] > 0.5
    for one, other in zip(together[1].times.values(), apart[1].times.values(), strict=True):
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), rel=2e-3)


def test_nothing_goes_where_the_rate_may_be_nothing():
    margin = np.linspace(-1, 2, 50)
    order = np.argsort(margin)[:10]
    cut = best_cut(order, right_of(margin, 0.3, 2.0), margin, Drawn([0.0, 0.4], [1.0, 3.0], 50))
    assert cut == Cut(0, 10)
    assert best_cut(order[:0], right_of(margin, 0.3, 2.0), margin, Drawn([0.1], [1.0], 50)) == Cut(0, 0)


RATES, SIZES = [0.0, 0.05, 0.1, 0.2, 0.3, 0.4], [150, 400, 4000]


@cache
def against_the_truth(pairs: int, rate: float) -> np.ndarray:
    """Five draws of simulated labels [5, 2]: what the best cut and what the best softness make the labels worth by the
    truth, as multiples of the labels as given."""
    rows = []
    for seed in range(5):
        margin, wrong = simulated(pairs, rate, seed)
        groups = np.arange(pairs)
        noise, resampled = fit_noise(margin, groups), Resampled(margin, groups)
        right = 1 / (1 + np.exp(-noise.log_odds(margin)))
        order = np.argsort(margin)[: int((right < 0.5).sum())]
        cut = best_cut(order, right, margin, resampled)
        kept = np.ones(pairs)
        kept[order[: cut.pairs]] = 0
        softness = best_softness(right, margin, resampled)
        truth = (~wrong).astype(float)
        worth_of = [clean_pairs(truth, weight) for weight in (kept, 2 * softened(right, softness) - 1)]
        rows.append(np.array(worth_of) / clean_pairs(truth))
    return np.array(rows)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("pairs", SIZES)
def test_the_best_cut_costs_next_to_nothing_on_any_data_and_pays_on_many(pairs, rate):
    times, _ = against_the_truth(pairs, rate).T
    assert min(times) > 0.94 and np.mean(times) > 0.96
    if pairs == 4000:
        assert min(times) > 0.99 and np.mean(times) > {0.2: 1.25, 0.3: 2.1, 0.4: 4}.get(rate, 0.99)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("pairs", SIZES)
def test_the_best_softening_costs_little_on_any_data_and_brings_more_than_the_best_cut(pairs, rate):
    of_cuts, times = against_the_truth(pairs, rate).T
    assert min(times) > 0.92 and np.mean(times) > 0.94
    if rate >= 0.2:
        assert np.mean(times) > 1.05 * np.mean(of_cuts)
        assert np.mean(times) > {0.2: 1.25, 0.3: 1.7, 0.4: 1.7}[rate]
    if pairs == 4000:
        assert min(times) > 0.99 and np.mean(times) > {0.1: 1.05, 0.2: 1.45, 0.3: 2.7, 0.4: 5}.get(rate, 0.99)


def test_labels_stay_as_they_are_where_the_rate_may_be_nothing():
    margin = np.linspace(-1, 2, 50)
    assert best_softness(right_of(margin, 0.3, 2.0), margin, Drawn([0.0, 0.4], [1.0, 3.0], 50)) == 0


def test_labels_are_softened_in_part_where_full_softening_may_cost():
    margin, _ = simulated(1000, 0.3, 0)
    right = right_of(margin, 0.3, 1.0)
    assert 0.3 < best_softness(right, margin, Drawn([0.12, 0.3], [1.0, 1.0], 1000)) < 0.9


def test_labels_are_softened_in_full_where_the_noise_is_known():
    margin, _ = simulated(1000, 0.3, 0)
    right = right_of(margin, 0.3, 1.0)
    assert best_softness(right, margin, Drawn([0.3, 0.3], [1.0, 1.0], 1000)) == 1


def test_each_action_is_told_with_its_interval():
    margin, _ = simulated(1000, 0.3, 0)
    groups = np.arange(1000)
    noise, resampled = fit_noise(margin, groups), Resampled(margin, groups)
    right = 1 / (1 + np.exp(-noise.log_odds(margin)))
    cut = best_cut(np.argsort(margin)[: int((right < 0.5).sum())], right, margin, resampled)
    kept = np.full(1000, True)
    kept[np.argsort(margin)[: cut.pairs]] = False
    everyone = np.full(1000, True)
    found = worth(right, margin, resampled, 1.0, kept, everyone)
    assert found.as_given == found.left == pytest.approx(clean_pairs(right)) and found.decided is None
    assert list(found.times) == ["auto", "soft-label", "weight", "drop"]
    assert found.times["auto"] == found.times["soft-label"]
    assert all(of.low < of.value < of.high for of in found.times.values())
    told, drop = worth_line(found), found.times["drop"]
    assert cut.pairs and f"drop {drop.value:.2f} times [{drop.low:.2f}, {drop.high:.2f}] as many" in told
    assert f"; with --action auto or soft-label {found.times['auto'].value:.2f} times [" in told
    none = worth(right, margin, resampled, 0.0, everyone, everyone)
    told = worth_line(none)
    assert "auto 1.00 times (labels stay as they are), soft-label " in told and "drop 1.00 times (none is drop" in told


def test_pairs_that_other_steps_drop_are_counted_apart():
    """As if they were not there; and a cut or flip at hand is told beside the actions."""
    margin, _ = simulated(1000, 0.3, 0)
    right, resampled = right_of(margin, 0.3, 1.0), Drawn([0.3, 0.3], [1.0, 1.0], 1000)
    left, stays = np.arange(1000) % 5 > 0, np.arange(1000) % 7 > 0
    flipped = np.where(right < 0.2, -1.0, 1.0)
    found = worth(right, margin, resampled, 0.5, stays, left, flipped)
    of_left = clean_pairs(right[left])
    assert (found.as_given, found.left) == pytest.approx((clean_pairs(right), of_left))
    wanted = {
        "auto": clean_pairs(right[left], right[left]),  # softened half the way: 1 - (1 - P), twice P - 1/2
        "soft-label": clean_pairs(right[left], 2 * right[left] - 1),
        "weight": clean_pairs(right[left], right[left]),
        "drop": clean_pairs(right[left & stays]),
    }
    assert {action: of.value for action, of in found.times.items()} == pytest.approx(
        {action: worth_of / of_left for action, worth_of in wanted.items()}
    )
    assert found.decided.value == pytest.approx(clean_pairs(right[left], flipped[left]) / of_left)
    told = worth_line(found)
    assert f"worth {found.as_given:,.0f} clean pairs, {of_left:,.0f} without the pairs that other steps drop; " in told
    assert f"these decisions make that {found.decided.value:.2f} times [" in told
