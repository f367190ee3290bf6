"""Preference losses: pure functions of summed log-probs, in a registry.

To add one, write its value and its margin, and add an entry to `LOSSES` and a hand-computed test. Throughout, D is the
policy's summed log-prob of chosen minus that of rejected, D_ref is the reference's, and m is the policy's mean log-prob
per response token. torch is imported inside functions, because command lines read names and defaults from here and must
start at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rmo_train.console.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Log-probs of n pairs, in nats, summed over response tokens. A loss without a reference accepts None for its
    log-probs."""

    chosen: Tensor  # [n]
    rejected: Tensor  # [n]
    ref_chosen: Tensor | None  # [n]
    ref_rejected: Tensor | None  # [n]
    chosen_tokens: Tensor  # [n], float
    rejected_tokens: Tensor  # [n], float

    def swapped(self) -> PairLogps:
        """The same pairs with the opposite label."""
        return PairLogps(
            chosen=self.rejected,
            rejected=self.chosen,
            ref_chosen=self.ref_rejected,
            ref_rejected=self.ref_chosen,
            chosen_tokens=self.rejected_tokens,
            rejected_tokens=self.chosen_tokens,
        )


@dataclass(frozen=True)
class LossParameters:
    """Parameters of the losses, under TRL's names."""

    beta: float  # scales the margin
    label_smoothing: float = 0.0  # assumed share of wrong labels, for cdpo and rdpo
    simpo_gamma: float = 1.0  # target margin of simpo
    sft_weight: float = 0.0  # weight of the chosen response's negative log-likelihood per token, added to any loss

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UserError(f"--beta {self.beta}: expected a number above 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise UserError(
                f"--label-smoothing {self.label_smoothing}: expected a share of wrong labels in [0, 0.5); "
                "at 0.5 the labels carry no information"
            )
        if not 0 <= self.sft_weight < math.inf:
            raise UserError(f"--sft-weight {self.sft_weight}: expected a number of 0 or more")


@dataclass(frozen=True)
class Loss:
    """One preference loss.

    `margin` is the loss's own margin d: the quantity that it increases, in its own unit. Margin amplification uses it,
    too. Swapping chosen and rejected negates it.
    """

    name: str
    value: Callable[[PairLogps, LossParameters], Tensor]  # -> [n]
    margin: Callable[[PairLogps, LossParameters], Tensor]  # -> [n]
    needs_reference: bool
    default_beta: float
    equation: str
    source: str
    per_token: bool = False  # its margin uses log-probs per token, not sums
    smooths_labels: bool = False  # it uses label_smoothing
    default_sft_weight: float = 0.0

    def parameters(
        self,
        beta: float | None = None,
        *,
        label_smoothing: float = 0.0,
        simpo_gamma: float = 1.0,
        sft_weight: float | None = None,
    ) -> LossParameters:
        """Parameters, with this loss's defaults in place of None; a UserError for label smoothing it does not use."""
        if label_smoothing and not self.smooths_labels:
            readers = ", ".join(loss.name for loss in LOSSES.values() if loss.smooths_labels)
            raise UserError(
                f"--label-smoothing {label_smoothing}: --loss {self.name} does not use it; "
                f"leave it out, or choose a loss that does ({readers})"
            )
        return LossParameters(
            self.default_beta if beta is None else beta,
            label_smoothing,
            simpo_gamma,
            self.default_sft_weight if sft_weight is None else sft_weight,
        )


def _log_sigmoid(x: Tensor) -> Tensor:
    from torch.nn.functional import logsigmoid

    return logsigmoid(x)


def _log_ratios(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """Policy minus reference, for chosen and rejected; each [n], nats."""
    assert logps.ref_chosen is not None and logps.ref_rejected is not None, "this loss needs reference log-probs"
    return logps.chosen - logps.ref_chosen, logps.rejected - logps.ref_rejected


def _means(logps: PairLogps) -> tuple[Tensor, Tensor]:
    """Log-prob per token of chosen and rejected; each [n], nats. Every response has at least its end-of-turn token."""
    return logps.chosen / logps.chosen_tokens, logps.rejected / logps.rejected_tokens


def _log_odds(mean_logp: Tensor) -> Tensor:
    """log(p / (1 - p)) for p = exp(mean_logp). Stays finite if rounding makes a response certain (p = 1)."""
    mean_logp = mean_logp.clamp(max=-1e-6)
    return mean_logp - (-mean_logp.expm1()).log()


def reward_margin(logps: PairLogps, parameters: LossParameters) -> Tensor:
    """beta (D - D_ref), [n]: the DPO implicit reward margin."""
    chosen, rejected = _log_ratios(logps)
    return parameters.beta * (chosen - rejected)


def mean_log_ratio_margin(logps: PairLogps, parameters: LossParameters) -> Tensor:
    """Log-ratio per token of chosen minus that of rejected, [n], nats per token; without beta."""
    chosen, rejected = _log_ratios(logps)
    return chosen / logps.chosen_tokens - rejected / logps.rejected_tokens


def mean_logp_margin(logps: PairLogps, parameters: LossParameters) -> Tensor:
    """beta (m_chosen - m_rejected), [n]."""
    chosen, rejected = _means(logps)
    return parameters.beta * (chosen - rejected)


def log_odds_margin(logps: PairLogps, parameters: LossParameters) -> Tensor:
    """Log-odds of exp(m_chosen) minus those of exp(m_rejected), [n]; without beta."""
    chosen, rejected = _means(logps)
    return _log_odds(chosen) - _log_odds(rejected)


def dpo(logps: PairLogps, parameters: LossParameters) -> Tensor:
    return -_log_sigmoid(reward_margin(logps, parameters))


def cdpo(logps: PairLogps, parameters: LossParameters) -> Tensor:
    d, wrong = reward_margin(logps, parameters), parameters.label_smoothing
    return -(1 - wrong) * _log_sigmoid(d) - wrong * _log_sigmoid(-d)


def rdpo(logps: PairLogps, parameters: LossParameters) -> Tensor:
    d, wrong = reward_margin(logps, parameters), parameters.label_smoothing
    return (-(1 - wrong) * _log_sigmoid(d) + wrong * _log_sigmoid(-d)) / (1 - 2 * wrong)


def hinge(logps: PairLogps, parameters: LossParameters) -> Tensor:
    return (1 - reward_margin(logps, parameters)).relu()


def ipo(logps: PairLogps, parameters: LossParameters) -> Tensor:
    return (mean_log_ratio_margin(logps, parameters) - 1 / (2 * parameters.beta)) ** 2


def simpo(logps: PairLogps, parameters: LossParameters) -> Tensor:
    return -_log_sigmoid(mean_logp_margin(logps, parameters) - parameters.simpo_gamma)


def orpo(logps: PairLogps, parameters: LossParameters) -> Tensor:
    return -parameters.beta * _log_sigmoid(log_odds_margin(logps, parameters))


LOSSES: dict[str, Loss] = {
    loss.name: loss
    for loss in (
        Loss(
            name="dpo",
            value=dpo,
            margin=reward_margin,
            needs_reference=True,
            default_beta=0.1,
            equation="-log sigmoid(d), d = beta (D - D_ref)",
            source="Rafailov et al. 2023, Direct Preference Optimization, eq. 7",
        ),
        Loss(
            name="cdpo",
            value=cdpo,
            margin=reward_margin,
            needs_reference=True,
            default_beta=0.1,
            equation="-(1-e) log sigmoid(d) - e log sigmoid(-d), d = beta (D - D_ref), e = label_smoothing",
            source="Mitchell 2023, A note on DPO with noisy preferences",
            smooths_labels=True,
        ),
        Loss(
            name="rdpo",
            value=rdpo,
            margin=reward_margin,
            needs_reference=True,
            default_beta=0.1,
            equation="(-(1-e) log sigmoid(d) + e log sigmoid(-d)) / (1-2e), d = beta (D - D_ref), e = label_smoothing",
            source="Chowdhury et al. 2024, Provably Robust DPO",
            smooths_labels=True,
        ),
        Loss(
            name="hinge",
            value=hinge,
            margin=reward_margin,
            needs_reference=True,
            default_beta=0.1,
            equation="max(0, 1 - d), d = beta (D - D_ref)",
            source="Zhao et al. 2023, SLiC-HF, on the DPO margin as in Liu et al. 2024, RSO",
        ),
        Loss(
            name="ipo",
            value=ipo,
            margin=mean_log_ratio_margin,
            needs_reference=True,
            default_beta=0.1,
            equation="(d - 1/(2 beta))^2, d = log-ratio to the reference per token, chosen - rejected",
            source="Azar et al. 2024, IPO, eq. 17, with log-ratios averaged over tokens",
            per_token=True,
        ),
        Loss(
            name="simpo",
            value=simpo,
            margin=mean_logp_margin,
            needs_reference=False,
            default_beta=2.0,
            equation="-log sigmoid(d - gamma), d = beta (m_chosen - m_rejected)",
            source="Meng et al. 2024, SimPO, eq. 6",
            per_token=True,
        ),
        Loss(
            name="orpo",
            value=orpo,
            margin=log_odds_margin,
            needs_reference=False,
            default_beta=0.1,
            equation="-beta log sigmoid(d), d = log-odds(exp m_chosen) - log-odds(exp m_rejected)",
            source="Hong et al. 2024, ORPO, eq. 7: the odds-ratio part; eq. 6 adds the chosen response's likelihood",
            per_token=True,
            default_sft_weight=1.0,
        ),
    )
}


def loss_named(name: str) -> Loss:
    """The loss called `name`; if there is none, a UserError with the nearest names."""
    if name not in LOSSES:
        raise UserError(f"--loss {name!r}: no such loss; the losses are {', '.join(LOSSES)}{nearest(name, LOSSES)}")
    return LOSSES[name]


def sft(logps: PairLogps) -> Tensor:
    """Negative log-likelihood per token of the chosen response, [n], nats: -m_chosen.

    The mean is taken over each response's tokens and then over pairs, so a long answer counts no more than a short one.
    TRL's "sft" takes one mean over all tokens of a micro-batch; the two agree for a single pair or equal lengths.
    """
    return -_means(logps)[0]


def with_sft(loss: Loss, logps: PairLogps, parameters: LossParameters) -> Tensor:
    """L + sft_weight * NLL, [n]."""
    value = loss.value(logps, parameters)
    return value + parameters.sft_weight * sft(logps) if parameters.sft_weight else value


def mixed(loss: Loss, logps: PairLogps, parameters: LossParameters, confidence: Tensor) -> Tensor:
    """c L(d) + (1-c) L(-d), [n], including the SFT term: the expected loss if a label is right with probability c.

    `confidence`: c, [n].
    """
    right, wrong = (with_sft(loss, x, parameters) for x in (logps, logps.swapped()))
    return confidence * right + (1 - confidence) * wrong
