"""`rmo-curate rules`: what each rule would drop of a scored run, what swapped copies say of it, how far rules agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rmo_curate.evidence import canaries
from rmo_curate.evidence.canaries import Found, SelfCheck
from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.evidence.gather import with_posterior
from rmo_curate.evidence.label_noise import Resampled
from rmo_curate.evidence.lengths import Lengths
from rmo_curate.evidence.posterior import Missing
from rmo_curate.evidence.rules import RULES, Rule
from rmo_curate.evidence.wording import RANDOM_FLIPS, evidence_line, lengths_line, missing_text
from rmo_curate.filter.thresholds import most_suspect, noisy_budget
from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores, adding_a_proxy, open_run
from rmo_train.console.errors import UserError
from rmo_train.evaluation.metrics import Interval

HIGH_Q = 0.95
REFERENCE = "posterior"  # the rule that others are compared with
COMPARED = {name: rule for name, rule in RULES.items() if name not in ("none", "score")}  # what scores alone rank by
SCHEMA = 1


@dataclass(frozen=True)
class RuleLine:
    """One rule at the cut."""

    rule: str
    flagged: int
    overlap: float  # with the reference rule's: shared / all that either flags
    found: Found | None  # None where scores are not held out, or the rule reads no scores


@dataclass(frozen=True)
class Report:
    pairs: int
    end: str
    high_q: float
    noise_rate: Interval
    check: SelfCheck
    lengths: Lengths
    rules: list[RuleLine]
    sources: tuple[str, ...]  # the evidence of the posterior
    missing: tuple[Missing, ...]  # and what is not there
    held_out: bool  # whether T saw none of the pairs; if not, swapped copies say nothing of rules that compare with T

    def as_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self), "missing": list(map(missing_text, self.missing))}

    def lines(self) -> list[str]:
        """At most 25 lines for a terminal."""
        rate = f"{self.noise_rate.value:.1%} [{self.noise_rate.low:.1%}, {self.noise_rate.high:.1%}]"
        said = [
            f"{self.pairs:,} scorable pairs, T = {self.end}; estimated noise rate {rate}",
            evidence_line(self.sources, self.missing),
        ]
        if not self.held_out:
            said.append(f"{self.end} is not held out: nothing is estimated of rules that compare with it")
        said.append(
            f"self-check: AUROC of swapped copies {self.check.measured:.3f}, {self.check.predicted:.3f} expected of "
            f"normal margins with accuracy {self.check.accuracy:.3f}"
        )
        said.append(f"at --high-q {self.high_q:g}    flagged  shared with {REFERENCE}  precision             recall")
        for line in self.rules:
            estimates = "-" if line.found is None else f"{_short(line.found.precision):20}  {_short(line.found.recall)}"
            said.append(f"  {line.rule:16} {line.flagged:9,} {line.overlap:16.0%}  {estimates}")
        return [*said, RANDOM_FLIPS, lengths_line(self.lengths)]


def _short(interval: Interval) -> str:
    if not np.isfinite(interval.value):
        return "-"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def run_rules(
    run_folder: Any, high_q: float = HIGH_Q, proxy: str | None = None, names: EvidenceColumns | None = None
) -> Report:
    """Ask every rule of a scored run."""
    run = open_run(run_folder)
    trajectory = run.trajectory(proxy)
    if trajectory.end is None:
        raise UserError(f"{run.folder} has scores of the base only; {adding_a_proxy(run.folder)}")
    scores = with_posterior(run, run.scores(trajectory), names)
    return report(scores, trajectory.end.name, high_q)


def report(scores: Scores, end: str, high_q: float) -> Report:
    """The report on scores that were read, with their posterior."""
    posterior = scores.posterior
    assert posterior is not None
    known = np.isfinite(scores.chosen_logp[:, -1])
    margin = margins.where_scored(posterior.margin, scores)
    resampled = Resampled(margin, posterior.groups)
    unseen = canaries.held_out(scores)
    n = int(known.sum())
    flagged = {name: flagged_by(rule, scores, noisy_budget(n, high_q)) for name, rule in COMPARED.items()}
    lines = []
    for name, (given, swapped) in flagged.items():
        either = (given | flagged[REFERENCE][0]).sum()
        overlap = float((given & flagged[REFERENCE][0]).sum() / either) if either else 1.0
        found = None
        if RULES[name].told_by_canaries and (unseen or not RULES[name].needs_proxy):
            found = canaries.find(given, swapped, resampled)
        lines.append(RuleLine(name, int(given.sum()), overlap, found))
    return Report(
        n,
        end,
        high_q,
        resampled.rate,
        canaries.self_check(margin, resampled.rate.value),
        Lengths.of(scores),
        lines,
        posterior.sources,
        posterior.missing,
        unseen,
    )


def flagged_by(rule: Rule, scores: Scores, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, swapped copies) that the rule would drop, bool [pairs]: the copies by the threshold of the pairs."""
    assert scores.ids is not None
    statistic = rule.fit(scores)
    s = statistic(scores)
    given = most_suspect(s, scores.ids, budget)
    if not given.any():
        return given, given
    with np.errstate(invalid="ignore"):
        return given, statistic(margins.swapped(scores)) >= s[given].min()
