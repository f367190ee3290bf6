"""The definition of a rule, and the checks before it is applied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rmo_curate.runs.margins import swapped
from rmo_curate.runs.run import Run, Scores, Trajectory, adding_a_proxy
from rmo_train.console.errors import UserError

LOG_ODDS, NATS, NATS_PER_TOKEN = "log-odds", "nats", "nats per token"  # units of suspicion
Statistic = Callable[[Scores], np.ndarray]  # Scores -> suspicion [pairs], NaN where a pair has no scores


@dataclass(frozen=True)
class Rule:
    """`fit` sees all pairs as given and returns the statistic; most rules have nothing to fit (`as_it_is`).

    Swapped copies are judged by the statistic fitted on the pairs as given: see `swapped_copies`.
    """

    name: str
    fit: Callable[[Scores], Statistic]
    unit: str  # of its suspicion
    needs_proxy: bool = True  # whether it compares the base's margins with those of T
    spares_supported: bool = False  # whether its suspicion is at most 0 where the evidence supports the label

    @property
    def ranks(self) -> bool:
        """Whether the rule ranks pairs; only `none` does not."""
        return self.name != "none"

    @property
    def says_odds(self) -> bool:
        """Whether the suspicion is the log-odds that the label is wrong."""
        return self.unit == LOG_ODDS

    @property
    def told_by_swapped_copies(self) -> bool:
        """Whether swapped copies say anything about the rule; not for `random`, which depends on the id only."""
        return self.ranks and self.name != "random"

    def suspicion(self, scores: Scores) -> np.ndarray:
        """[pairs], NaN if a pair has no scores; positive if the rule would drop the pair."""
        return self.fit(scores)(scores)

    def suspicion_of_swapped(self, scores: Scores) -> np.ndarray:
        """[pairs]: the suspicion of each pair with its answers exchanged."""
        return self.fit(scores)(swapped(scores))


def sparing_supported(rule: Rule) -> Rule:
    """The same rule, but never suspicious of a label that the evidence as a whole supports, that is with P(label right)
    of at least 0.5 (for a swapped copy, its own P). Its scores need the posterior."""

    def fit(scores: Scores) -> Statistic:
        statistic = rule.fit(scores)

        def spared(of: Scores) -> np.ndarray:
            assert of.posterior is not None
            s = statistic(of)
            return np.where(of.posterior.log_odds >= 0, np.minimum(s, 0.0), s)

        return spared

    return replace(rule, fit=fit, spares_supported=True)


def as_it_is(statistic: Statistic) -> Callable[[Scores], Statistic]:
    """The `fit` of a rule with nothing to fit."""
    return lambda scores: statistic


def check_proxy(rule: Rule, run: Run, trajectory: Trajectory) -> None:
    """Refuse a rule that needs a T on a run without one; no rule falls back to another."""
    if rule.needs_proxy and trajectory.end is None:
        raise UserError(
            f"--rule {rule.name} compares the base with a proxy, but {run.folder} has scores of the base only; "
            f"{adding_a_proxy(run.folder)}, or use --rule none"
        )


def suspicion(rule: Rule, scores: Scores) -> np.ndarray:
    """The rule's suspicion of every pair: [pairs]. Refuses data on which it is constant, since it cannot rank them.
    Exception: the posterior may be constant if there is no evidence; then no pair is dropped."""
    s = rule.suspicion(scores)
    if rule.ranks and is_constant(s) and not (rule.says_odds and np.nanmax(s) <= 0):
        raise UserError(
            f"--rule {rule.name}: all {np.isfinite(s).sum()} pairs get the same suspicion ({np.nanmax(s):.6g}), so it "
            f"cannot rank them; is {scores.names[-1]!r} the same model as {scores.names[0]!r}? "
            "Use another proxy (--end NAME) or --rule none"
        )
    return s


def is_constant(values: np.ndarray) -> bool:
    """Whether two or more finite values are all equal, up to the rounding of a difference of log-probs."""
    known = values[np.isfinite(values)]
    return len(known) > 1 and bool(np.ptp(known) <= 1e-9 * max(1.0, float(np.abs(known).max())))
