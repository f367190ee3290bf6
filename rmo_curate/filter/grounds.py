"""What decided on a pair that is called noisy: the rule, what it said of the pair, and what had to be passed."""

from __future__ import annotations

from dataclasses import dataclass

from rmo_curate.filter.decisions import Decisions, noisy_rule


@dataclass(frozen=True)
class Part:
    """What one source of evidence adds to the log-odds of a right label."""

    source: str
    log_odds: float


@dataclass(frozen=True)
class Ground:
    """Why a pair is called noisy: its suspicion is at least `threshold`, and `right` is below one half if evidence was
    used. `reasons` then add up to the log-odds of `right`; the share of right labels (`prior`) comes first."""

    rule: str
    suspicion: float
    threshold: float  # the lowest suspicion that was called noisy
    right: float | None  # P(the label is right); None: the rule uses no evidence
    reasons: tuple[Part, ...]


def ground(decisions: Decisions, pair: int) -> Ground | None:
    """Of a pair that was dropped as noisy, or flipped; None of any other."""
    threshold = decisions.thresholds["suspicion"]
    by_rule = decisions.flipped[pair] and not decisions.overrides.review[pair]
    if threshold is None or not (decisions.reason[pair] == "noisy" or by_rule):
        return None
    rule, posterior = noisy_rule(decisions.settings), decisions.scores.posterior
    right: float | None = None
    reasons: tuple[Part, ...] = ()
    if rule.spares_supported:
        assert posterior is not None
        adds = zip(posterior.sources, posterior.contributions(pair).tolist(), strict=True)
        right = float(posterior.right[pair])
        reasons = (Part("prior", posterior.noise.prior), *(Part(source, value) for source, value in adds))
    return Ground(rule.name, float(decisions.suspicion[pair]), threshold, right, reasons)
