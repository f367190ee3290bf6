"""What is estimated beyond counts: the noise rate, P(label right), and what swapped copies say of a threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rmo_curate.audit.texts import Texts
from rmo_curate.evidence import swapped_copies
from rmo_curate.evidence.columns import EvidenceColumns, columns_among
from rmo_curate.evidence.gather import JudgedLabels, with_posterior, without_model
from rmo_curate.evidence.label_noise import Judgeable, Resampled
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.swapped_copies import Detection, SelfCheck
from rmo_curate.filter.caught import caught, suspicion_of_swapped
from rmo_curate.filter.decisions import Decisions
from rmo_curate.runs.run import Run
from rmo_train.evaluation.intervals import LEAST_PROMPTS, UNKNOWN
from rmo_train.evaluation.metrics import Interval

WIDE = 0.15  # width of the noise rate's interval beyond which the page warns of it


@dataclass(frozen=True)
class Estimates:
    """Estimated of the `pairs` that have what it takes.

    `untold`: the pairs and prompts of which no noise rate is told: they are too few, or, if enough, the evidence
    predicts held-out labels no better than chance. The rate is NaN then, and no precision or recall is estimated.
    """

    pairs: int = 0
    noise_rate: Interval = UNKNOWN
    self_check: SelfCheck | None = None
    at_cut: Detection | None = None  # by the filter's settings; without a model, of labels more likely wrong than right
    untold: Judgeable | None = None
    suspicion: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [pairs]
    of_swapped: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [pairs], of their swapped copies
    resampled: Resampled | None = None
    posterior: Posterior | None = None  # of all pairs

    @property
    def known(self) -> bool:
        return self.resampled is not None

    @property
    def wide(self) -> bool:
        return self.known and self.noise_rate.high - self.noise_rate.low > WIDE

    def at(self, thresholds: np.ndarray) -> list[Detection | None]:
        """What would be found at each of the falling `thresholds` (suspicion, [m])."""
        if self.resampled is None or not len(self.of_swapped):
            return [None] * len(thresholds)
        return list(swapped_copies.detections_at(thresholds, self.suspicion, self.of_swapped, self.resampled))


def estimates(run: Run, decisions: Decisions) -> Estimates:
    """Estimates of a run under the filter's rule, from all evidence that is held out."""
    scores, labels = decisions.scores, decisions.labels
    if labels is None:
        scores = with_posterior(run, scores, decisions.settings)
        labels = JudgedLabels.of_scores(scores)
    posterior, pairs = scores.posterior, labels.of.pairs
    assert posterior is not None
    if why := untold(labels.of, posterior):
        return Estimates(pairs, untold=why, posterior=posterior)
    resampled = labels.resampled
    rate, check = resampled.rate, swapped_copies.self_check(labels.margin, resampled.rate.value)
    if (of_swapped := suspicion_of_swapped(decisions)) is None:
        return Estimates(pairs, rate, check, resampled=resampled, posterior=posterior)
    at_cut = caught(decisions, of_swapped, resampled)
    return Estimates(pairs, rate, check, at_cut, None, decisions.suspicion, of_swapped, resampled, posterior)


def estimates_of_data(texts: Texts, names: EvidenceColumns, name: str) -> Estimates:
    """Estimates of pairs that no model has scored, from their texts, and from the columns that are evidence.

    name: what the data are called in an error.
    """
    from rmo_curate.evidence.texts import texts_of

    columns = columns_among(texts.columns, names, name)
    read = texts_of(texts.prompt_messages, texts.chosen_messages, texts.rejected_messages)
    pairs = len(read.prompt)
    found = Judgeable(pairs, len(np.unique(read.prompt)))
    if found.prompts < LEAST_PROMPTS:  # what is learned from so few is not asked of any label
        return Estimates(pairs, untold=found)
    posterior = without_model(read, columns)
    s = -posterior.log_odds
    if why := untold(found, posterior):
        return Estimates(pairs, untold=why, suspicion=s, posterior=posterior)
    resampled, of_swapped = Resampled(posterior.margin, posterior.groups), -posterior.swapped().log_odds
    at_cut = swapped_copies.detection(s > 0, of_swapped > 0, resampled) if (s > 0).any() else None
    check = swapped_copies.self_check(posterior.margin, resampled.rate.value)
    return Estimates(pairs, resampled.rate, check, at_cut, None, s, of_swapped, resampled, posterior)


def untold(judged: Judgeable, posterior: Posterior) -> Judgeable | None:
    """`judged`, where no noise rate is told of it."""
    return None if judged.enough and posterior.noise.tells else judged
