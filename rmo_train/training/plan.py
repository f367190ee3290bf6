"""What a training run will do, derived from settings and data before anything heavy starts: `--dry-run` prints it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rmo_train.console.errors import UserError
from rmo_train.data.pairs import PairData
from rmo_train.objective.amplify import AUTHORS, Amplifier, calibrate
from rmo_train.objective.diversify import bound_fraction, diversified_batches, random_batches
from rmo_train.objective.losses import LossParameters, loss_named
from rmo_train.training.config import DEFAULT_AMPLIFY, TrainSettings


@dataclass(frozen=True)
class Plan:
    """Derived settings of one run. `margins` [n] are mixed in every batch, or None: then the order is random."""

    pairs: int
    pairs_per_step: int
    batches_per_epoch: int
    steps: int
    warmup_steps: int
    tokens_per_epoch: int
    parameters: LossParameters
    amplifier: Amplifier | None
    margins: np.ndarray | None
    confidence: float | None  # mean of the labels' confidence where they are soft
    notes: tuple[str, ...]

    def batches(self, seed: int, epoch: int) -> list[np.ndarray]:
        """The optimizer batches of one epoch: every pair once; a function of (seed, epoch, G) and the margins."""
        if self.margins is None:
            return random_batches(self.pairs, self.pairs_per_step, seed=seed, epoch=epoch)
        return diversified_batches(self.margins, self.pairs_per_step, seed=seed, epoch=epoch)

    def lines(self, settings: TrainSettings) -> list[str]:
        amplified = "off"
        if a := self.amplifier:
            amplified = f"weight {a.weight:.4g}, median {a.median:.4g}, scale {a.scale:.4g}, margin: {a.unit}"
        mixed = "off"
        if self.margins is not None:
            batches = self.batches(settings.seed, 0)
            mixed = f"{settings.diversify_margin} margin, {bound_fraction(self.margins, batches):.4%} of the bound"
        sft = f", SFT weight {self.parameters.sft_weight:g}" if self.parameters.sft_weight else ""
        return [
            f"{self.pairs:,} pairs, {self.tokens_per_epoch:,} tokens an epoch (prompts shared)",
            f"{self.steps} steps of {self.pairs_per_step} pairs, {self.batches_per_epoch} an epoch, "
            f"{self.warmup_steps} of warm-up, peak learning rate {settings.peak_learning_rate:g}",
            f"loss {settings.loss}, beta {self.parameters.beta:g}{sft}",
            f"amplification: {amplified}",
            f"diversification: {mixed}",
            "labels: certain" if self.confidence is None else f"labels: soft, mean confidence {self.confidence:.3f}",
            *self.notes,
        ]


def make_plan(data: PairData, settings: TrainSettings, processes: int = 1) -> Plan:
    """Validate settings against data; raises UserError for what cannot be trained as asked."""
    loss = loss_named(settings.loss)
    parameters = loss.parameters(
        settings.beta,
        label_smoothing=settings.label_smoothing,
        simpo_gamma=settings.simpo_gamma,
        sft_weight=settings.sft_weight,
    )
    group = settings.pairs_per_step(processes)
    if group > len(data):
        raise UserError(
            f"an optimizer batch of {group} pairs is larger than the data ({len(data)} pairs); "
            "lower --per-device-train-batch-size or --gradient-accumulation-steps"
        )
    per_epoch = math.ceil(len(data) / group)
    steps = settings.max_steps or math.ceil(per_epoch * settings.num_train_epochs)
    notes: list[str] = []
    tokens = data.prompt.lengths + data.chosen.lengths + data.rejected.lengths - 2
    return Plan(
        pairs=len(data),
        pairs_per_step=group,
        batches_per_epoch=per_epoch,
        steps=steps,
        warmup_steps=math.ceil(settings.warmup_ratio * steps),
        tokens_per_epoch=int(tokens.sum()),
        parameters=parameters,
        amplifier=_amplifier(data, settings, parameters, notes),
        margins=_diversified_margins(data, settings, notes),
        confidence=None if (data.label_confidence == 1).all() else float(data.label_confidence.mean()),
        notes=tuple(notes),
    )


NO_END = "the data has no trajectory end (no checkpoint but the reference was scored)"
MAKE_END = "score with a proxy (`rmo-curate proxy RUN`) and filter again"


def _amplifier(
    data: PairData, settings: TrainSettings, parameters: LossParameters, notes: list[str]
) -> Amplifier | None:
    if settings.amplify_preset == "authors":
        return AUTHORS
    slope = DEFAULT_AMPLIFY if settings.amplify is None else settings.amplify
    if slope == 0:
        return None
    if data.end_chosen is None or data.end_rejected is None or not data.has_references:
        if settings.amplify:
            raise UserError(f"--amplify needs margins to aim at, and {NO_END}; {MAKE_END}, or --amplify 0")
        notes.append(f"amplification is off: {NO_END}")
        return None
    assert data.ref_chosen is not None and data.ref_rejected is not None
    return calibrate(
        settings.loss, parameters, data.end_chosen, data.end_rejected, data.ref_chosen, data.ref_rejected,
        data.chosen.lengths, data.rejected.lengths, slope,
    )  # fmt: skip


def _diversified_margins(data: PairData, settings: TrainSettings, notes: list[str]) -> np.ndarray | None:
    if settings.diversify is False:
        return None
    if data.end_chosen is None or data.end_rejected is None or not data.has_references:
        if settings.diversify:
            raise UserError(f"--diversify needs margins, and {NO_END}; {MAKE_END}, or --no-diversify")
        notes.append(f"diversification is off: {NO_END}")
        return None
    margins = data.end_chosen - data.end_rejected
    if settings.diversify_margin == "reward":
        assert data.ref_chosen is not None and data.ref_rejected is not None
        margins = margins - (data.ref_chosen - data.ref_rejected)
    return margins
