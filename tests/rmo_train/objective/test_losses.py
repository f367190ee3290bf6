"""Every loss against values worked out by hand, and the laws that all of them share."""

import subprocess
import sys

import pytest
import torch

from rmo_train.console.errors import UserError
from rmo_train.objective.losses import LOSSES, LossParameters, PairLogps, loss_named, mixed, sft, with_sft

#  pair   chosen (tokens)   rejected (tokens)   log-ratios   D - D_ref   m_chosen - m_rejected
#  0      -10 (4)           -14 (8)             1, -2        3           -2.5 + 1.75 = -0.75
#  1      -14 (8)           -10 (4)             -2, 1        -3          0.75
LOGPS = PairLogps(
    chosen=torch.tensor([-10.0, -14.0], dtype=torch.float64),
    rejected=torch.tensor([-14.0, -10.0], dtype=torch.float64),
    ref_chosen=torch.tensor([-11.0, -12.0], dtype=torch.float64),
    ref_rejected=torch.tensor([-12.0, -11.0], dtype=torch.float64),
    chosen_tokens=torch.tensor([4.0, 8.0], dtype=torch.float64),
    rejected_tokens=torch.tensor([8.0, 4.0], dtype=torch.float64),
)
PARAMETERS = LossParameters(beta=0.5, label_smoothing=0.2, simpo_gamma=1.0)

# With s(x) = -log sigmoid(x): s(1.5) = 0.2014133, s(-1.5) = 1.7014133.
BY_HAND = {
    "dpo": [0.2014133, 1.7014133],
    "cdpo": [0.5014133, 1.4014133],  # 0.8 s(d) + 0.2 s(-d)
    "rdpo": [-0.2985867, 2.2014133],  # (0.8 s(d) - 0.2 s(-d)) / 0.6
    "hinge": [0.0, 2.5],
    "ipo": [0.25, 2.25],  # 1/4 + 2/8 = 0.5; (±0.5 - 1)^2
    "simpo": [1.6004127, 1.0537007],  # s(-0.375 - 1), s(0.375 - 1)
    "orpo": [0.6047682, 0.1771500],  # s(d) / 2
}
MARGINS = {
    "dpo": 1.5,
    "cdpo": 1.5,
    "rdpo": 1.5,
    "hinge": 1.5,
    "ipo": 0.5,
    "simpo": -0.375,
    "orpo": -0.8552364,  # log odds of e^-2.5 (-2.4143495) less those of e^-1.75 (-1.5591132)
}


def random_logps(n: int = 6, *, requires_grad: bool = False) -> PairLogps:
    generator = torch.Generator().manual_seed(7)
    tokens = [torch.randint(2, 30, (n,), generator=generator).double() for _ in range(2)]
    sums = [-(0.2 + torch.rand(n, generator=generator).double()) * t for t in (*tokens, *tokens)]
    return PairLogps(sums[0].requires_grad_(requires_grad), sums[1].requires_grad_(requires_grad), *sums[2:], *tokens)


def test_registry_has_the_documented_losses_under_their_own_names():
    assert set(LOSSES) == {"dpo", "simpo", "ipo", "orpo", "hinge", "cdpo", "rdpo"}
    assert all(loss.name == name and loss.equation and loss.source for name, loss in LOSSES.items())
    assert {n: loss.default_beta for n, loss in LOSSES.items() if loss.default_beta != 0.1} == {"simpo": 2.0}


@pytest.mark.parametrize("name", LOSSES)
def test_value_equals_the_one_worked_out_by_hand(name):
    found = LOSSES[name].value(LOGPS, PARAMETERS)
    torch.testing.assert_close(found, torch.tensor(BY_HAND[name], dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_margin_equals_the_one_worked_out_by_hand(name):
    expected = torch.tensor([MARGINS[name], -MARGINS[name]], dtype=torch.float64)  # pair 1 is pair 0, swapped
    torch.testing.assert_close(LOSSES[name].margin(LOGPS, PARAMETERS), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_swapping_chosen_and_rejected_negates_the_margin(name):
    logps, loss = random_logps(), LOSSES[name]
    margin = loss.margin(logps, PARAMETERS)
    assert (margin.abs() > 1e-3).all()
    torch.testing.assert_close(loss.margin(logps.swapped(), PARAMETERS), -margin)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name):
    logps = random_logps(requires_grad=True)

    def value(chosen, rejected):
        rest = (logps.ref_chosen, logps.ref_rejected, logps.chosen_tokens, logps.rejected_tokens)
        return LOSSES[name].value(PairLogps(chosen, rejected, *rest), PARAMETERS)

    assert torch.autograd.gradcheck(value, (logps.chosen, logps.rejected))


@pytest.mark.parametrize("name", ["dpo", "hinge", "simpo", "orpo"])  # cdpo, rdpo and ipo turn back past a target
def test_loss_falls_as_the_chosen_response_gets_likelier(name):
    logps = random_logps(requires_grad=True)
    (slope,) = torch.autograd.grad(LOSSES[name].value(logps, PARAMETERS).sum(), logps.chosen)
    assert (slope <= 0).all() and (slope < 0).any()


def test_losses_without_a_reference_run_without_its_log_probs():
    for loss in LOSSES.values():
        bare = PairLogps(LOGPS.chosen, LOGPS.rejected, None, None, LOGPS.chosen_tokens, LOGPS.rejected_tokens)
        if loss.needs_reference:
            with pytest.raises(AssertionError, match="reference"):
                loss.value(bare, PARAMETERS)
        else:
            torch.testing.assert_close(loss.value(bare, PARAMETERS), loss.value(LOGPS, PARAMETERS))


def test_at_the_reference_dpo_is_ln_2_with_slope_one_half_in_its_margin():
    chosen = LOGPS.ref_chosen.clone().requires_grad_()
    start = PairLogps(
        chosen, LOGPS.ref_rejected, LOGPS.ref_chosen, LOGPS.ref_rejected, LOGPS.chosen_tokens, LOGPS.rejected_tokens
    )
    value = LOSSES["dpo"].value(start, PARAMETERS)
    assert value.tolist() == pytest.approx([0.69314718] * 2)
    (slope,) = torch.autograd.grad(value.sum(), chosen)
    assert slope.tolist() == pytest.approx([-0.5 * PARAMETERS.beta] * 2)


def test_cdpo_and_rdpo_without_smoothing_are_dpo():
    plain, logps = LossParameters(beta=0.3), random_logps()
    for name in ("cdpo", "rdpo"):
        torch.testing.assert_close(LOSSES[name].value(logps, plain), LOSSES["dpo"].value(logps, plain))


def test_rdpo_is_unbiased_under_its_flip_rate():
    logps, loss = random_logps(), LOSSES["rdpo"]
    flipped_at_random = 0.8 * loss.value(logps, PARAMETERS) + 0.2 * loss.value(logps.swapped(), PARAMETERS)
    torch.testing.assert_close(flipped_at_random, LOSSES["dpo"].value(logps, PARAMETERS))


def test_orpo_stays_finite_for_a_certain_and_for_an_impossible_response():
    chosen = torch.tensor([0.0, -4000.0], requires_grad=True)
    tokens = torch.tensor([4.0, 4.0])
    value = LOSSES["orpo"].value(PairLogps(chosen, chosen.detach().flip(0), None, None, tokens, tokens), PARAMETERS)
    (slope,) = torch.autograd.grad(value.sum(), chosen)
    assert value.isfinite().all() and slope.isfinite().all()


def test_confidence_mixes_the_loss_with_the_swapped_pairs_loss():
    confidence = torch.tensor([0.9, 0.25], dtype=torch.float64)
    for name, loss in LOSSES.items():
        a, b = BY_HAND[name]  # the second pair is the first one, swapped
        expected = torch.tensor([0.9 * a + 0.1 * b, 0.25 * b + 0.75 * a], dtype=torch.float64)
        torch.testing.assert_close(mixed(loss, LOGPS, PARAMETERS, confidence), expected, atol=1e-6, rtol=0)


def test_dpo_mixed_by_confidence_is_cdpo():
    found = mixed(LOSSES["dpo"], LOGPS, PARAMETERS, torch.full((2,), 0.8, dtype=torch.float64))
    torch.testing.assert_close(found, LOSSES["cdpo"].value(LOGPS, PARAMETERS))


# Per token the chosen responses of LOGPS have -10/4 and -14/8 nats, the rejected ones -14/8 and -10/4.
NLL = torch.tensor([2.5, 1.75], dtype=torch.float64)


def test_the_sft_term_is_the_chosen_responses_negative_log_likelihood_per_token():
    torch.testing.assert_close(sft(LOGPS), NLL)
    for name, loss in LOSSES.items():
        weighted = LossParameters(beta=0.5, label_smoothing=0.2, sft_weight=0.1)
        expected = torch.tensor(BY_HAND[name], dtype=torch.float64) + 0.1 * NLL
        torch.testing.assert_close(with_sft(loss, LOGPS, weighted), expected, atol=1e-6, rtol=0)


def test_the_sft_term_pushes_chosen_tokens_alike_and_leaves_rejected_ones_alone():
    logps = random_logps(requires_grad=True)
    weighted, plain = LossParameters(beta=0.5, sft_weight=0.3), LossParameters(beta=0.5)
    for name, loss in LOSSES.items():
        found, without = (
            torch.autograd.grad(with_sft(loss, logps, p).sum(), (logps.chosen, logps.rejected))
            for p in (weighted, plain)
        )
        # d/d(sum of log-probs) of -weight sum / tokens: a token's own share, whatever the loss and the pair.
        torch.testing.assert_close(found[0] - without[0], -0.3 / logps.chosen_tokens, msg=name)
        assert torch.equal(found[1], without[1]), name


def test_the_sft_term_follows_a_labels_confidence():
    weighted = LossParameters(beta=0.5, sft_weight=1.0)
    confidence = torch.tensor([0.9, 0.25], dtype=torch.float64)
    dpo = LOSSES["dpo"]
    added = mixed(dpo, LOGPS, weighted, confidence) - mixed(dpo, LOGPS, LossParameters(beta=0.5), confidence)
    # c times the chosen's, 1 - c times the rejected's: 0.9 * 2.5 + 0.1 * 1.75, 0.25 * 1.75 + 0.75 * 2.5
    torch.testing.assert_close(added, torch.tensor([2.425, 2.3125], dtype=torch.float64))


def test_orpo_alone_has_an_sft_term_unless_told_otherwise():
    assert {name: loss.parameters().sft_weight for name, loss in LOSSES.items()} == dict.fromkeys(LOSSES, 0) | {
        "orpo": 1.0
    }
    assert LOSSES["orpo"].parameters(sft_weight=0).sft_weight == 0
    assert LOSSES["dpo"].parameters(sft_weight=0.2) == LossParameters(0.1, sft_weight=0.2)


def test_unknown_loss_is_refused_with_the_nearest_name():
    assert loss_named("simpo") is LOSSES["simpo"]
    with pytest.raises(UserError, match=r"'smpo'.*dpo, .*did you mean 'simpo'"):
        loss_named("smpo")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beta", 0.0),
        ("beta", float("nan")),
        ("label_smoothing", 0.5),
        ("sft_weight", -0.1),
        ("sft_weight", float("inf")),
    ],
)
def test_parameters_out_of_range_are_refused_by_flag(field, value):
    with pytest.raises(UserError, match="--" + field.replace("_", "-")):
        LossParameters(**{"beta": 0.1, field: value})


def test_parameters_take_the_losss_default_beta_and_refuse_smoothing_it_would_ignore():
    assert LOSSES["simpo"].parameters() == LossParameters(2.0)
    assert LOSSES["cdpo"].parameters(0.3, label_smoothing=0.1) == LossParameters(0.3, 0.1)
    with pytest.raises(UserError, match=r"--label-smoothing 0\.1: --loss dpo does not use it.*cdpo, rdpo"):
        LOSSES["dpo"].parameters(label_smoothing=0.1)


def test_importing_the_registry_does_not_import_torch():
    code = "import sys, rmo_train.objective.losses, rmo_train.objective.amplify; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
