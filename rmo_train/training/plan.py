"""The plan of a training run, derived from settings and data before heavy work starts; `--dry-run` prints it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rmo_train.console.errors import UserError
from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData
from rmo_train.objective.amplify import AUTHORS, Amplifier, calibrate
from rmo_train.objective.diversify import bound_fraction, diversified_batches, random_batches
from rmo_train.objective.losses import LossParameters, loss_named
from rmo_train.training.settings import TrainSettings

NO_END = "the data have no trajectory end (only the reference was scored)"
MAKE_END = "score the pairs with a proxy and filter again"


@dataclass(frozen=True)
class Plan:
    """Derived settings of one run. `margins` [n]: mixed in every batch; None: the order is random."""

    pairs: int
    pairs_per_step: int
    batches_per_epoch: int
    steps: int
    warmup_steps: int
    tokens_per_epoch: int
    parameters: LossParameters
    amplifier: Amplifier | None
    margins: np.ndarray | None
    confidence: float | None  # mean label confidence, if labels are soft
    weight: float | None  # mean weight of a pair, if they differ

    def batches(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The optimizer batches of one epoch: every pair once; a function of (seed, epoch, G) and the margins."""
        if self.margins is None:
            return random_batches(self.pairs, self.pairs_per_step, seed=seed, epoch=epoch)
        return diversified_batches(self.margins, self.pairs_per_step, seed=seed, epoch=epoch)

    def bound_fraction(self, seed: int) -> float | None:
        """Diversity of the first epoch's batches as a share of the upper bound; None if the order is random."""
        return None if self.margins is None else bound_fraction(self.margins, self.batches(seed, 0))


def make_plan(data: PairData, settings: TrainSettings, processes: int = 1) -> Plan:
    """Validate settings against data; raises a UserError if the run is impossible."""
    loss = loss_named(settings.loss)
    parameters = loss.parameters(
        settings.beta,
        label_smoothing=settings.label_smoothing,
        simpo_gamma=settings.simpo_gamma,
        sft_weight=settings.sft_weight,
    )
    confidence = None if (data.label_confidence == 1).all() else float(data.label_confidence.mean())
    if confidence is not None and settings.label_smoothing:
        raise UserError(
            f"--label-smoothing {settings.label_smoothing:g} assumes wrong labels, and the labels of these shards are "
            "softened already: wrong ones would count twice. Leave it out, or add --no-soft-labels"
        )
    group = settings.pairs_per_step(processes)
    if group > len(data):
        raise UserError(
            f"an optimizer batch of {counted(group, 'pair')} is larger than the data ({counted(len(data), 'pair')}); "
            "lower --per-device-train-batch-size or --gradient-accumulation-steps"
        )
    per_epoch = math.ceil(len(data) / group)
    steps = settings.max_steps or math.ceil(per_epoch * settings.num_train_epochs)
    _check_end(data, settings)
    tokens = data.prompt.lengths + data.chosen.lengths + data.rejected.lengths - 2
    return Plan(
        pairs=len(data),
        pairs_per_step=group,
        batches_per_epoch=per_epoch,
        steps=steps,
        warmup_steps=math.ceil(settings.warmup_ratio * steps),
        tokens_per_epoch=int(tokens.sum()),
        parameters=parameters,
        amplifier=_amplifier(data, settings, parameters),
        margins=_diversified_margins(data, settings),
        confidence=confidence,
        weight=None if (data.weight == data.weight[0]).all() else float(data.weight.mean()),
    )


def _check_end(data: PairData, settings: TrainSettings) -> None:
    """UserError if a requested part of the method needs a trajectory end and `data` has none."""
    if data.end_chosen is not None and data.end_rejected is not None and data.has_references:
        return
    if settings.amplify:
        raise UserError(f"--amplify needs margins, but {NO_END}; {MAKE_END}, or leave out --amplify")
    if settings.diversify:
        raise UserError(f"--diversify needs margins, but {NO_END}; {MAKE_END}, or leave out --diversify")


def _amplifier(data: PairData, settings: TrainSettings, parameters: LossParameters) -> Amplifier | None:
    if settings.amplify_preset == "authors":
        return AUTHORS
    if settings.amplify == 0:
        return None
    assert data.end_chosen is not None and data.end_rejected is not None
    assert data.ref_chosen is not None and data.ref_rejected is not None
    return calibrate(
        settings.loss, parameters, data.end_chosen, data.end_rejected, data.ref_chosen, data.ref_rejected,
        data.chosen.lengths, data.rejected.lengths, settings.amplify,
    )  # fmt: skip


def _diversified_margins(data: PairData, settings: TrainSettings) -> np.ndarray | None:
    if not settings.diversify:
        return None
    assert data.end_chosen is not None and data.end_rejected is not None
    margins = data.end_chosen - data.end_rejected
    if settings.diversify_margin == "reward":
        assert data.ref_chosen is not None and data.ref_rejected is not None
        margins = margins - (data.ref_chosen - data.ref_rejected)
    return margins
