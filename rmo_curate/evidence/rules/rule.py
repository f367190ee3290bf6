"""What a rule is, and what is refused before a rule is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from rmo_curate.runs.margins import swapped
from rmo_curate.runs.run import Run, Scores, Trajectory, adding_a_proxy
from rmo_train.console.errors import UserError

Statistic = Callable[[Scores], np.ndarray]  # Scores -> suspicion [pairs], NaN where a pair has no scores


@dataclass(frozen=True)
class Rule:
    """`fit` looks at all pairs as given and returns the statistic; most rules have nothing to fit (`as_it_is`).

    The suspicion of swapped copies is that of a statistic fitted on the pairs as given: see `swapped_copies`.
    """

    name: str
    fit: Callable[[Scores], Statistic]
    needs_proxy: bool = True  # whether it compares the base's margins with those of T
    spares_supported: bool = False  # whether its suspicion is 0 at most where all evidence supports the label

    @property
    def ranks(self) -> bool:
        """Does the rule put pairs in an order at all? Only `none` does not."""
        return self.name != "none"

    @property
    def says_odds(self) -> bool:
        """Whether the suspicion is the log-odds of a wrong label."""
        return self.name == "posterior"

    @property
    def told_by_swapped_copies(self) -> bool:
        """Whether a swapped copy says anything of the rule: a random draw is by id, the same for both."""
        return self.ranks and self.name != "random"

    def suspicion(self, scores: Scores) -> np.ndarray:
        """[pairs], NaN where a pair has no scores; above 0 where the rule would drop the pair."""
        return self.fit(scores)(scores)

    def suspicion_of_swapped(self, scores: Scores) -> np.ndarray:
        """[pairs]: what the rule would say of each pair with its answers exchanged."""
        return self.fit(scores)(swapped(scores))


def sparing_supported(rule: Rule) -> Rule:
    """The same rule, without suspicion of a label that all evidence on the whole supports: P(label right) of at least
    one half, of a swapped copy its own. Its scores have the posterior."""

    def fit(scores: Scores) -> Statistic:
        statistic = rule.fit(scores)

        def spared(of: Scores) -> np.ndarray:
            assert of.posterior is not None
            s = statistic(of)
            return np.where(of.posterior.log_odds >= 0, np.minimum(s, 0.0), s)

        return spared

    return replace(rule, fit=fit, spares_supported=True)


def as_it_is(statistic: Statistic) -> Callable[[Scores], Statistic]:
    """The `fit` of a rule that has nothing to fit."""
    return lambda scores: statistic


def check_proxy(rule: Rule, run: Run, trajectory: Trajectory) -> None:
    """Refuse a rule that needs a T on a run without one: no rule ever falls back to another."""
    if rule.needs_proxy and trajectory.end is None:
        raise UserError(
            f"--rule {rule.name} compares the base with a proxy, and {run.folder} has scores of the base only; "
            f"{adding_a_proxy(run.folder)}, or take --rule none"
        )


def suspicion(rule: Rule, scores: Scores) -> np.ndarray:
    """The rule's suspicion of every pair: [pairs]. Refuses data on which it is constant, since that orders nothing; but
    where evidence says nothing, every label is as likely to be right, and none is dropped."""
    s = rule.suspicion(scores)
    if rule.ranks and is_constant(s) and not (rule.says_odds and np.nanmax(s) <= 0):
        raise UserError(
            f"--rule {rule.name}: all {np.isfinite(s).sum()} pairs get the same suspicion ({np.nanmax(s):.6g}), so it "
            f"cannot rank them; is {scores.names[-1]!r} the same model as {scores.names[0]!r}? "
            "Use another proxy (--end NAME) or --rule none"
        )
    return s


def is_constant(values: np.ndarray) -> bool:
    """Are two or more finite values all equal, up to the rounding of a difference of log-probs?"""
    known = values[np.isfinite(values)]
    return len(known) > 1 and bool(np.ptp(known) <= 1e-9 * max(1.0, float(np.abs(known).max())))
