"""Parity with TRL: its own loss code, called on the same log-probs."""

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from rmo_train.objective.losses import LOSSES, LossParameters, PairLogps, sft, with_sft

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


def trl_dpo_loss(
    loss_types: dict[str, float], logps: PairLogps, rows: Sequence[int], parameters: LossParameters
) -> torch.Tensor:
    """`DPOTrainer._compute_loss` on the pairs `rows` (it returns a mean); the model returns the log-probs we have.

    loss_types: TRL's names and their weights.
    """
    from trl import DPOTrainer

    at = torch.tensor(rows)
    tokens = torch.cat([logps.chosen_tokens[at], logps.rejected_tokens[at]]).int().tolist()
    totals = torch.cat([logps.chosen[at], logps.rejected[at]])
    length = 1 + max(tokens)  # one prompt token
    mask = torch.zeros(len(tokens), length, dtype=torch.long)
    per_token = torch.zeros(len(tokens), length - 1)
    for row, (count, total) in enumerate(zip(tokens, totals, strict=True)):
        mask[row, 1 : 1 + count] = 1
        per_token[row, :count] = total / count
    blank = torch.zeros(len(tokens), length - 1)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=False),
        accelerator=CPU,
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=list(loss_types),
        loss_weights=list(loss_types.values()),
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
        "ref_chosen_logps": logps.ref_chosen[at],
        "ref_rejected_logps": logps.ref_rejected[at],
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
        theirs = torch.stack([trl_dpo_loss({loss_type: 1.0}, logps, [i], parameters) for i in range(N)])
        torch.testing.assert_close(LOSSES[name].value(logps, parameters), theirs, **TOLERANCE)


def test_the_sft_term_equals_the_dpo_trainers_second_loss_pair_by_pair(logps):
    parameters = LossParameters(0.1, sft_weight=0.5)
    both = {"sigmoid": 1.0, "sft": 0.5}
    theirs = torch.stack([trl_dpo_loss(both, logps, [i], parameters) for i in range(N)])
    torch.testing.assert_close(with_sft(LOSSES["dpo"], logps, parameters), theirs, **TOLERANCE)


def test_over_several_pairs_the_dpo_trainers_sft_loss_weighs_tokens_and_ours_pairs(logps):
    """Its mean is over all chosen tokens of a micro-batch, so that it depends on which pairs come together."""
    theirs = trl_dpo_loss({"sft": 1.0}, logps, range(N), LossParameters(0.1))
    by_token = (sft(logps) * logps.chosen_tokens).sum() / logps.chosen_tokens.sum()
    torch.testing.assert_close(theirs, by_token, **TOLERANCE)
    assert (sft(logps).mean() - by_token).abs() > 1e-2


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
