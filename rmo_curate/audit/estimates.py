"""What is estimated of a scored run beyond its counts: the noise rate, and what canaries say of a threshold."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from rmo_curate import canaries
from rmo_curate.canaries import Found, SelfCheck
from rmo_curate.decisions import Decisions
from rmo_curate.evidence.gather import with_posterior
from rmo_curate.evidence.label_noise import Resampled
from rmo_curate.margins import where_scored
from rmo_curate.rules import RULES
from rmo_curate.runs import Run
from rmo_train.metrics import Interval

UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))
WIDE = 0.15  # width of the noise rate's interval beyond which the page warns of it


@dataclass(frozen=True)
class Estimates:
    """Estimated of one run. `why_not` says why there are none; then the rate is NaN and nothing is found."""

    noise_rate: Interval = UNKNOWN
    self_check: SelfCheck | None = None
    at_cut: Found | None = None  # what the filter's settings find
    why_not: str = ""
    suspicion: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [pairs]
    of_swapped: np.ndarray = field(default_factory=lambda: np.zeros(0))  # [pairs], of their swapped copies
    resampled: Resampled | None = None

    @property
    def known(self) -> bool:
        return self.resampled is not None

    @property
    def wide(self) -> bool:
        return self.known and self.noise_rate.high - self.noise_rate.low > WIDE

    def at(self, thresholds: np.ndarray) -> list[Found | None]:
        """What would be found at each of the falling `thresholds` (suspicion, [m])."""
        if self.resampled is None or not len(self.of_swapped):
            return [None] * len(thresholds)
        return list(canaries.find_at(thresholds, self.suspicion, self.of_swapped, self.resampled))


def estimates(run: Run, decisions: Decisions, rule_name: str) -> Estimates:
    """Estimates of a run under the filter's rule, where its scores are held out."""
    scores = decisions.scores if decisions.scores.posterior else with_posterior(run, decisions.scores)
    posterior = scores.posterior
    assert posterior is not None
    margin = where_scored(posterior.margin, scores)
    resampled = Resampled(margin, posterior.groups)
    rate, check = resampled.rate, canaries.self_check(margin, resampled.rate.value)
    rule = RULES[rule_name]
    if not rule.told_by_canaries or (rule.needs_proxy and not canaries.held_out(scores)):
        return Estimates(rate, check, resampled=resampled)
    of_swapped = rule.suspicion_of_swapped(scores)
    least = decisions.thresholds["suspicion"]
    s = decisions.suspicion
    at_cut = None
    if least is not None:
        with np.errstate(invalid="ignore"):
            at_cut = canaries.find(s >= least, of_swapped >= least, resampled)
    return Estimates(rate, check, at_cut, "", s, of_swapped, resampled)
