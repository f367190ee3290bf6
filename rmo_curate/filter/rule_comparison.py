"""What each rule would drop of a scored run, what swapped copies say of it, how far rules agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence import swapped_copies
from rmo_curate.evidence.gather import JudgedLabels
from rmo_curate.evidence.lengths import Lengths
from rmo_curate.evidence.posterior import Missing
from rmo_curate.evidence.rules import RULES, Rule
from rmo_curate.evidence.swapped_copies import Detection, SelfCheck
from rmo_curate.filter.thresholds import most_suspect, noisy_budget
from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores
from rmo_train.evaluation.metrics import Interval

HIGH_Q = 0.95  # where it cannot be told how many labels are wrong
COMPARED_WITH = "posterior"  # the rule that others are compared with
COMPARED = {name: rule for name, rule in RULES.items() if name not in ("none", "score")}  # what scores alone rank by


@dataclass(frozen=True)
class RuleAtCut:
    """One rule at the cut."""

    rule: str
    flagged: int
    overlap: float  # with what COMPARED_WITH flags: shared / all that either flags
    estimated: Detection | None  # None where scores are not held out, or the rule reads no scores


@dataclass(frozen=True)
class Comparison:
    """All rules, each cut at its own quantile `high_q`."""

    pairs: int  # that have scores
    end: str
    high_q: float
    noise_rate: Interval | None  # None: the pairs are too few to tell
    check: SelfCheck
    lengths: Lengths
    rules: tuple[RuleAtCut, ...]
    sources: tuple[str, ...]  # the evidence of the posterior
    missing: tuple[Missing, ...]  # and what is not there
    held_out: bool  # whether T saw none of the pairs; if not, swapped copies say nothing of rules that compare with T


def compare_rules(scores: Scores, end: str, high_q: float | None = None) -> Comparison:
    """The comparison on scores that were read, with their posterior. end: the name of T. high_q: None: as many pairs as
    labels are estimated to be wrong."""
    posterior = scores.posterior
    assert posterior is not None
    labels = JudgedLabels.of_scores(scores)
    resampled, judged = labels.resampled, labels.of
    if high_q is None:
        high_q = round(1 - resampled.rate.value, 4) if labels.estimable and resampled.rate.value else HIGH_Q
    unseen = swapped_copies.held_out(scores)
    flagged = {name: flagged_by(rule, scores, noisy_budget(judged.pairs, high_q)) for name, rule in COMPARED.items()}
    of_reference, _ = flagged[COMPARED_WITH]
    rules = []
    for name, (as_labelled, swapped) in flagged.items():
        either = (as_labelled | of_reference).sum()
        overlap = float((as_labelled & of_reference).sum() / either) if either else 1.0
        told = RULES[name].told_by_swapped_copies and (unseen or not RULES[name].needs_proxy)
        estimated = swapped_copies.detection(as_labelled, swapped, resampled) if told else None
        rules.append(RuleAtCut(name, int(as_labelled.sum()), overlap, estimated))
    return Comparison(
        pairs=judged.pairs,
        end=end,
        high_q=high_q,
        noise_rate=resampled.rate if judged.enough else None,
        check=swapped_copies.self_check(labels.margin, resampled.rate.value),
        lengths=Lengths.of(scores),
        rules=tuple(rules),
        sources=posterior.sources,
        missing=posterior.missing,
        held_out=unseen,
    )


def flagged_by(rule: Rule, scores: Scores, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, swapped copies) that the rule would drop, bool [pairs]: the copies by the threshold of the pairs."""
    assert scores.ids is not None
    statistic = rule.fit(scores)
    s = statistic(scores)
    as_labelled = most_suspect(s, scores.ids, budget)
    if not as_labelled.any():
        return as_labelled, as_labelled
    with np.errstate(invalid="ignore"):
        return as_labelled, statistic(margins.swapped(scores)) >= s[as_labelled].min()
