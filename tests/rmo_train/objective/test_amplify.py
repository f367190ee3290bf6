"""Margin amplification: its gradient in closed form, its slope at the median, its calibration by hand."""

import numpy as np
import pytest
import torch

from rmo_train.console.errors import UserError
from rmo_train.objective.amplify import AUTHORS, Amplifier, calibrate
from rmo_train.objective.losses import LOSSES, LossParameters, PairLogps

PARAMETERS = LossParameters(beta=0.5)


def columns(d):
    """Columns whose summed log-prob margin less the reference's is `d`; all responses have 5 tokens."""
    d = np.asarray(d, dtype=np.float64)
    fives = np.full(len(d), 5)
    return d - 20.0, np.full(len(d), -22.0), np.full(len(d), -30.0), np.full(len(d), -32.0), fives, fives


def test_gradient_equals_the_closed_form():
    amplifier = Amplifier(weight=0.7, median=1.5, scale=0.4)
    d = torch.linspace(-3, 6, 50, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(amplifier.value(d).sum(), d)
    s = 1 / (1 + torch.exp(-(1.5 - d) / 0.4))
    torch.testing.assert_close(slope, -0.7 / 0.4 * s * (1 - s))
    assert slope.abs().argmax() == (d - 1.5).abs().argmin(), "steepest at the median"


def test_value_by_hand():
    d = torch.tensor([2.0, 0.0, 1e6, -1e6])
    assert Amplifier(weight=3.0, median=2.0, scale=2.0).value(d).tolist() == pytest.approx([1.5, 2.1931757, 0.0, 3.0])


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("slope", [0.25, 1.0])
def test_slope_at_the_median_is_the_given_share_of_dpos_one_half(name, slope):
    amplifier = calibrate(name, PARAMETERS, *columns(np.linspace(-4, 9, 31)), slope)
    d = torch.tensor([amplifier.median], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(amplifier.value(d).sum(), d)
    assert -found.item() == pytest.approx(slope * 0.5)
    assert amplifier.weight / (4 * amplifier.scale) == pytest.approx(slope / 2)


def test_median_and_scale_are_the_losss_own_margins():
    raw = [1.0, 2.0, 3.0, 6.0, 10.0]  # median 3, absolute deviations 2 1 0 3 7: MAD 2
    dpo = calibrate("dpo", PARAMETERS, *columns(raw), 0.25)
    assert (dpo.median, dpo.scale, dpo.weight) == pytest.approx((1.5, 1.4826, 2 * 1.4826 * 0.25))  # times beta
    assert dpo.unit == "loss"
    ipo = calibrate("ipo", PARAMETERS, *columns(raw), 0.25)
    assert (ipo.median, ipo.scale) == pytest.approx((0.6, 1.4826 * 0.4))  # per token, without beta
    simpo = calibrate("simpo", PARAMETERS, *columns(raw), 0.25)
    assert (simpo.median, simpo.scale) == pytest.approx((0.5, 1.4826 * 0.2))  # beta ((d - 20) + 22) / 5, no reference


def test_equal_margins_get_the_smallest_scale_and_no_weight_to_speak_of():
    amplifier = calibrate("dpo", PARAMETERS, *columns([2.0] * 9), 0.25)
    assert (amplifier.median, amplifier.scale, amplifier.weight) == pytest.approx((1.0, 1e-3, 5e-4))


def test_reach_is_the_share_of_pairs_within_two_scales():
    d = torch.tensor([1.0, 2.9, 3.0, -0.9, -1.1])
    assert Amplifier(weight=1.0, median=1.0, scale=1.0).reach(d).item() == pytest.approx(3 / 5)


def test_the_authors_preset_takes_log_prob_margins_without_a_reference():
    one = torch.tensor([1.0])
    logps = PairLogps(-10 * one, -14 * one, -11 * one, -12 * one, 4 * one, 8 * one)
    assert (AUTHORS.weight, AUTHORS.median, AUTHORS.scale) == (1.0, 1.82, 125.0)
    assert AUTHORS.margin(LOSSES["dpo"], logps, PARAMETERS).tolist() == [4.0]
    assert AUTHORS.margin(LOSSES["simpo"], logps, PARAMETERS).tolist() == [-0.75]  # per token
    assert Amplifier(1.0, 0.0, 1.0).margin(LOSSES["dpo"], logps, PARAMETERS).tolist() == [1.5]


def test_a_column_without_numbers_is_refused():
    chosen, *rest = columns([1.0, 2.0, 3.0])
    chosen[1] = np.nan
    with pytest.raises(UserError, match=r"1 of 3 pairs .*--amplify 0"):
        calibrate("dpo", PARAMETERS, chosen, *rest, 0.25)
    with pytest.raises(UserError, match="no pairs"):
        calibrate("dpo", PARAMETERS, *columns([]), 0.25)
