"""What is estimated beyond counts: the noise rate, P(label right), and what swapped copies say of a threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rmo_curate.audit.texts import Texts
from rmo_curate.evidence import swapped_copies
from rmo_curate.evidence.columns import EvidenceColumns, columns_among
from rmo_curate.evidence.gather import with_posterior, without_model
from rmo_curate.evidence.label_noise import LEAST_FOR_RATE, Resampled
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.swapped_copies import Detection, SelfCheck
from rmo_curate.filter.decisions import Decisions, noisy_rule
from rmo_curate.runs.margins import where_scored
from rmo_curate.runs.run import Run
from rmo_train.evaluation.intervals import LEAST_PROMPTS, UNKNOWN
from rmo_train.evaluation.metrics import Interval

WIDE = 0.15  # width of the noise rate's interval beyond which the page warns of it


@dataclass(frozen=True)
class Untold:
    """Why no noise rate is told: of fewer than `LEAST_FOR_RATE` pairs, of fewer than `LEAST_PROMPTS` prompts, or, if
    neither, because the evidence predicts held-out labels no better than chance."""

    pairs: int
    prompts: int


@dataclass(frozen=True)
class Estimates:
    """Estimated of the `pairs` that have what it takes. `untold`: why there is no noise rate; then it is NaN and no
    precision or recall is estimated."""

    pairs: int = 0
    noise_rate: Interval = UNKNOWN
    self_check: SelfCheck | None = None
    at_cut: Detection | None = (
        None  # what the filter's settings find; without a model, labels more likely wrong than right
    )
    untold: Untold | None = None
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
    scores = decisions.scores
    if scores.posterior is None:
        scores = with_posterior(run, scores, decisions.settings)
    posterior = scores.posterior
    assert posterior is not None
    margin = where_scored(posterior.margin, scores)
    known = np.isfinite(margin)
    pairs = int(known.sum())
    if why := untold(posterior.groups[known], posterior):
        return Estimates(pairs, untold=why, posterior=posterior)
    resampled = Resampled(margin, posterior.groups)
    rate, check = resampled.rate, swapped_copies.self_check(margin, resampled.rate.value)
    rule = noisy_rule(decisions.settings)
    if not rule.told_by_swapped_copies or (rule.needs_proxy and not swapped_copies.held_out(scores)):
        return Estimates(pairs, rate, check, resampled=resampled, posterior=posterior)
    of_swapped = rule.suspicion_of_swapped(scores)
    least = decisions.thresholds["suspicion"]
    s = decisions.suspicion
    at_cut = None
    if least is not None:
        with np.errstate(invalid="ignore"):
            at_cut = swapped_copies.detection(s >= least, of_swapped >= least, resampled)
    return Estimates(pairs, rate, check, at_cut, None, s, of_swapped, resampled, posterior)


def estimates_of_data(texts: Texts, names: EvidenceColumns, name: str) -> Estimates:
    """Estimates of pairs that no model has scored, from their texts, and from the columns that are evidence.

    name: what the data are called in an error.
    """
    from rmo_curate.evidence.texts import texts_of

    columns = columns_among(texts.columns, names, name)
    read = texts_of(texts.prompt_messages, texts.chosen_messages, texts.rejected_messages)
    pairs = len(read.prompt)
    prompts = prompts_in(read.prompt)
    if prompts < LEAST_PROMPTS:  # what is learned from so few is not asked of any label
        return Estimates(pairs, untold=Untold(pairs, prompts))
    posterior = without_model(read, columns)
    s = -posterior.log_odds
    if why := untold(read.prompt, posterior):
        return Estimates(pairs, untold=why, suspicion=s, posterior=posterior)
    resampled, of_swapped = Resampled(posterior.margin, posterior.groups), -posterior.swapped().log_odds
    at_cut = swapped_copies.detection(s > 0, of_swapped > 0, resampled) if (s > 0).any() else None
    check = swapped_copies.self_check(posterior.margin, resampled.rate.value)
    return Estimates(pairs, resampled.rate, check, at_cut, None, s, of_swapped, resampled, posterior)


def untold(prompts: np.ndarray, posterior: Posterior) -> Untold | None:
    """Why no noise rate is told of pairs with these prompts [pairs]; None where one is."""
    counted = Untold(len(prompts), prompts_in(prompts))
    enough = counted.prompts >= LEAST_PROMPTS and counted.pairs >= LEAST_FOR_RATE
    return None if enough and posterior.noise.tells else counted


def prompts_in(prompts: np.ndarray) -> int:
    """Different ones among the prompts of all pairs [pairs]."""
    return len(np.unique(prompts))
