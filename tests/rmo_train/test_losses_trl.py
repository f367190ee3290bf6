"""Parity with TRL: its own loss code, called on the same log-probs."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from rmo_train.losses import LOSSES, LossParameters, PairLogps

pytestmark = pytest.mark.real

N = 16
TOLERANCE = {"atol": 1e-5, "rtol": 0}
CPU = SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)


@pytest.fixture(scope="module")
def logps() -> PairLogps:
    """Realistic log-probs: 1 to 40 tokens, 0.05 to 2 nats a token, a policy that has moved from its reference."""
    generator = torch.Generator().manual_seed(11)
    tokens = [torch.randint(1, 41, (N,), generator=generator).float() for _ in range(2)]
    refs = [-(0.05 + 1.95 * torch.rand(N, generator=generator)) * t for t in tokens]
    moved = [r * (0.5 + torch.rand(N, generator=generator)) for r in refs]
    return PairLogps(*moved, *refs, *tokens)


def trl_dpo_loss(loss_type: str, logps: PairLogps, i: int, parameters: LossParameters) -> torch.Tensor:
    """`DPOTrainer._compute_loss` on pair i alone (it returns a mean); the model returns the log-probs that we have."""
    from trl import DPOTrainer

    tokens = [int(logps.chosen_tokens[i]), int(logps.rejected_tokens[i])]
    length = 1 + max(tokens)  # one prompt token
    mask = torch.zeros(2, length, dtype=torch.long)
    per_token = torch.zeros(2, length - 1)
    for row, (count, total) in enumerate(zip(tokens, (logps.chosen[i], logps.rejected[i]), strict=True)):
        mask[row, 1 : 1 + count] = 1
        per_token[row, :count] = total / count
    blank = torch.zeros(2, length - 1)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=CPU,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=parameters.beta,
        label_smoothing=parameters.label_smoothing,
        use_weighting=False,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    inputs = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": logps.ref_chosen[i : i + 1],
        "ref_rejected_logps": logps.ref_rejected[i : i + 1],
    }

    def model(**_: object) -> SimpleNamespace:
        return SimpleNamespace(log_probs=per_token, entropy=blank, mean_logits=blank, is_top1=blank.bool())

    return DPOTrainer._compute_loss(trainer, model, inputs, False)


@pytest.mark.parametrize(
    ("name", "loss_type", "smoothing"),
    [("dpo", "sigmoid", 0.0), ("hinge", "hinge", 0.0), ("ipo", "ipo", 0.0), ("rdpo", "robust", 0.2)],
)
def test_equals_the_dpo_trainers(name, loss_type, smoothing, logps):
    for beta in (0.1, 0.7):
        parameters = LossParameters(beta, smoothing)
        theirs = torch.stack([trl_dpo_loss(loss_type, logps, i, parameters) for i in range(N)])
        torch.testing.assert_close(LOSSES[name].value(logps, parameters), theirs, **TOLERANCE)


def cpo_trainer(loss_type: str, parameters: LossParameters) -> SimpleNamespace:
    return SimpleNamespace(
        accelerator=CPU,
        alpha=0.0,
        loss_type=loss_type,
        beta=parameters.beta,
        label_smoothing=parameters.label_smoothing,
        simpo_gamma=parameters.simpo_gamma,
    )


def test_simpo_equals_the_cpo_trainers(logps):
    from trl.experimental.cpo import CPOTrainer

    means = logps.chosen / logps.chosen_tokens, logps.rejected / logps.rejected_tokens
    for parameters in (LossParameters(2.0), LossParameters(2.5, simpo_gamma=1.4)):
        theirs, _, _ = CPOTrainer.cpo_loss(cpo_trainer("simpo", parameters), *means)
        torch.testing.assert_close(LOSSES["simpo"].value(logps, parameters), theirs, **TOLERANCE)


def test_cdpo_equals_the_cpo_trainers_smoothed_loss_of_log_ratios(logps):
    """The DPO trainer has no smoothed sigmoid loss; CPO's is that loss where log-ratios stand for its log-probs."""
    from trl.experimental.cpo import CPOTrainer

    ratios = logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected
    parameters = LossParameters(0.1, label_smoothing=0.2)
    theirs, _, _ = CPOTrainer.cpo_loss(cpo_trainer("sigmoid", parameters), *ratios)
    torch.testing.assert_close(LOSSES["cdpo"].value(logps, parameters), theirs, **TOLERANCE)


def test_orpo_equals_the_orpo_trainers_odds_ratio_part(logps):
    from trl.experimental.orpo import ORPOTrainer

    means = logps.chosen / logps.chosen_tokens, logps.rejected / logps.rejected_tokens
    parameters = LossParameters(0.1)
    theirs, *_ = ORPOTrainer.odds_ratio_loss(SimpleNamespace(beta=parameters.beta, accelerator=CPU), *means)
    # It returns beta log sigmoid(log-odds ratio), which its training step subtracts from the language-model loss.
    torch.testing.assert_close(LOSSES["orpo"].value(logps, parameters), -theirs, **TOLERANCE)
