"""Pairwise margin amplification: `L = L_pref + weight * sigmoid((median - d) / scale)`.

The term is steepest at d = median, with slope weight / (4 scale), and flattens on both sides. So it raises margins near
the median, and hardly moves those far above it (already learned) or far below it (likely mislabelled).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from rmo_train.console.errors import UserError
from rmo_train.objective.losses import Loss, LossParameters, PairLogps, loss_named, mixed

if TYPE_CHECKING:
    from torch import Tensor

MAD_TO_SD = 1.4826  # of a normal distribution
SMALLEST_SCALE = 1e-3
Column = NDArray[np.floating]


@dataclass(frozen=True)
class Amplifier:
    """The term's settings. `median` and `scale` are in the unit of d: "loss" (the loss's own margin) or "logp"."""

    weight: float  # lambda
    median: float  # M
    scale: float  # alpha
    unit: Literal["loss", "logp"] = "loss"

    def margin(self, loss: Loss, logps: PairLogps, parameters: LossParameters) -> Tensor:
        """The margin d of the term, [n]: the loss's own margin, or the policy's log-prob margin in nats, without the
        reference. The latter is per token if the loss uses per-token log-probs, as in the authors' code."""
        if self.unit == "loss":
            return loss.margin(logps, parameters)
        if loss.per_token:
            return logps.chosen / logps.chosen_tokens - logps.rejected / logps.rejected_tokens
        return logps.chosen - logps.rejected

    def value(self, d: Tensor) -> Tensor:
        """weight * sigmoid((median - d) / scale), [n], to be added to each pair's loss."""
        return self.weight * ((self.median - d) / self.scale).sigmoid()

    def reach(self, d: Tensor) -> Tensor:
        """Share of the pairs with |d - median| < 2 scale (a scalar): those that the term still moves."""
        return ((d - self.median).abs() < 2 * self.scale).to(d.dtype).mean()


def amplified(
    loss: Loss, logps: PairLogps, parameters: LossParameters, confidence: Tensor, amplifier: Amplifier | None
) -> Tensor:
    """Each pair's loss before weighting, [n]: the soft-label loss, plus the amplification term if `amplifier` is given.

    `confidence`: probability that each label is right, [n].
    """
    value = mixed(loss, logps, parameters, confidence)
    return value if amplifier is None else value + amplifier.value(amplifier.margin(loss, logps, parameters))


# The settings of the method's authors. The scale is so wide that the term's slope hardly depends on d.
AUTHORS = Amplifier(weight=1.0, median=1.82, scale=125.0, unit="logp")


def calibrate(
    loss_name: str,
    parameters: LossParameters,
    chosen_logp: Column,
    rejected_logp: Column,
    ref_chosen: Column,
    ref_rejected: Column,
    chosen_tokens: Column,
    rejected_tokens: Column,
    slope: float,
) -> Amplifier:
    """The amplifier for a loss, from the kept pairs' log-probs under the proxy, in the unit of the loss's own margin d.

    The median M and the scale alpha = max(1.4826 MAD, 1e-3) are taken from d over all pairs. `slope` R is the term's
    slope at d = M, relative to DPO's slope at d = 0, which is 1/2. So the weight is lambda = 2 alpha R, because
    lambda / (4 alpha) = R / 2.

    Log-probs: [n], nats, summed over response tokens, of the proxy and (ref_*) the base. Tokens: [n].
    """
    import torch

    loss = loss_named(loss_name)
    columns = (chosen_logp, rejected_logp, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens)
    logps = PairLogps(*(torch.from_numpy(np.array(column, dtype=np.float64)) for column in columns))
    d = loss.margin(logps, parameters).numpy()
    if not len(d):
        raise UserError("margin amplification: no pairs to compute the median margin from; train with --amplify 0")
    bad = int((~np.isfinite(d)).sum())
    if bad:
        raise UserError(
            f"margin amplification: {bad} of {len(d)} pairs have no finite {loss_name} margin in the log-prob columns; "
            "score the pairs again, or train with --amplify 0"
        )
    median = float(np.median(d))
    scale = max(MAD_TO_SD * float(np.median(np.abs(d - median))), SMALLEST_SCALE)
    return Amplifier(weight=2 * scale * slope, median=median, scale=scale)
