"""Suspicion rules: one number a pair, higher = more likely that chosen and rejected are the wrong way round.

Each rule is one small function of the trajectory's scores (base first, T last), entered in `RULES` by its decorator. To
add one: write the function, decorate it, add its hand-computed value to the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rmo_curate import margins
from rmo_curate.runs import Run, Scores, Trajectory
from rmo_train.errors import UserError, nearest


@dataclass(frozen=True)
class Rule:
    """`suspicion` maps Scores to [pairs] (nats or nats per token; NaN where a pair has no scores)."""

    name: str
    suspicion: Callable[[Scores], np.ndarray]
    needs_proxy: bool
    description: str
    source: str

    @property
    def ranks(self) -> bool:
        """Does the rule put pairs in an order at all? Only `none` does not."""
        return self.name != "none"


RULES: dict[str, Rule] = {}


def register(name: str, *, source: str, needs_proxy: bool = True) -> Callable[..., Callable[[Scores], np.ndarray]]:
    """Enter the decorated function in `RULES`; its docstring's first line is the rule's description."""

    def enter(suspicion: Callable[[Scores], np.ndarray]) -> Callable[[Scores], np.ndarray]:
        description = (suspicion.__doc__ or "").splitlines()[0]
        RULES[name] = Rule(name, suspicion, needs_proxy, description, source)
        return suspicion

    return enter


@register("irm", source="implicit reward margin of DPO, Rafailov et al. 2023")
def irm(scores: Scores) -> np.ndarray:
    """s = -(D_T - D_0): the proxy came to prefer the rejected response."""
    return -margins.reward(scores)


@register("irm-ln", source="irm with length-normalised log-probs, as in SimPO, Meng et al. 2024")
def irm_ln(scores: Scores) -> np.ndarray:
    """s = -(D_T - D_0) of per-token means: irm without the pull of length."""
    return -(margins.mean_logp(scores) - margins.mean_logp(scores, 0))


@register("rmo", source="Reward Margin Optimization, AAAI 2026: the noise rule D_0 < 0 and D_T < D_0")
def rmo(scores: Scores) -> np.ndarray:
    """s = min(-D_0, D_0 - D_T): positive exactly where the base is wrong and the proxy more so."""
    return np.minimum(-margins.logp(scores, 0), -margins.reward(scores))


@register("rmo-ln", source="rmo with length-normalised log-probs")
def rmo_ln(scores: Scores) -> np.ndarray:
    """s = min(-D_0, D_0 - D_T) of per-token means."""
    base = margins.mean_logp(scores, 0)
    return np.minimum(-base, base - margins.mean_logp(scores))


@register("none", source="no rule", needs_proxy=False)
def none(scores: Scores) -> np.ndarray:
    """No suspicion: nothing is dropped as noisy."""
    return np.full(len(scores.chosen_tokens), np.nan)


def get_rule(name: str) -> Rule:
    if name not in RULES:
        raise UserError(f"--rule {name}: no such rule; the rules are {', '.join(RULES)}{nearest(name, RULES)}")
    return RULES[name]


def check_proxy(rule: Rule, run: Run, trajectory: Trajectory) -> None:
    """Refuse a rule that needs a T on a run without one: no rule ever falls back to another."""
    if rule.needs_proxy and trajectory.end is None:
        raise UserError(
            f"--rule {rule.name} compares the base with a proxy, and {run.folder} has scores of the base only; "
            f"run `rmo-curate proxy {run.folder}` first, or take --rule none"
        )


def suspicion(rule: Rule, scores: Scores) -> np.ndarray:
    """The rule's suspicion of every pair: [pairs]. Refuses data on which it is constant, since that orders nothing."""
    s = rule.suspicion(scores)
    if rule.ranks and is_constant(s):
        raise UserError(
            f"--rule {rule.name}: all {np.isfinite(s).sum()} pairs get the same suspicion ({np.nanmax(s):.6g}), so it "
            f"cannot rank them; is {scores.names[-1]!r} the same model as {scores.names[0]!r}? "
            "Use another proxy (--proxy NAME) or --rule none"
        )
    return s


def is_constant(values: np.ndarray) -> bool:
    """Are two or more finite values all equal, up to the rounding of a difference of log-probs?"""
    known = values[np.isfinite(values)]
    return len(known) > 1 and bool(np.ptp(known) <= 1e-9 * max(1.0, float(np.abs(known).max())))
