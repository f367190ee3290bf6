"""`rmo-curate rules`: what each rule would drop of a scored run, as lines or as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.evidence.gather import with_posterior
from rmo_curate.evidence.wording import missing_text
from rmo_curate.filter.rule_comparison import Comparison, RuleAtCut, compare_rules
from rmo_curate.filter.wording import comparison_lines
from rmo_curate.runs.run import adding_a_proxy, open_run
from rmo_train.console.errors import UserError

SCHEMA = 1


@dataclass(frozen=True)
class RuleReport:
    """A comparison of rules as `rules` prints it."""

    comparison: Comparison

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **asdict(self.comparison),
            "rules": [rule_as_json(rule) for rule in self.comparison.rules],
            "missing": list(map(missing_text, self.comparison.missing)),
        }

    def lines(self) -> list[str]:
        return comparison_lines(self.comparison)


def rule_as_json(rule: RuleAtCut) -> dict[str, Any]:
    estimated = None if rule.estimated is None else asdict(rule.estimated)
    return {"rule": rule.rule, "flagged": rule.flagged, "overlap": rule.overlap, "found": estimated}


def run_rules(
    run_folder: Path, high_q: float | None = None, end: str | None = None, names: EvidenceColumns | None = None
) -> RuleReport:
    """Ask every rule of a scored run."""
    run = open_run(run_folder)
    trajectory = run.trajectory(end)
    if trajectory.end is None:
        raise UserError(f"{run.folder} has scores of the reference only; {adding_a_proxy(run.folder)}")
    scores = with_posterior(run, run.scores(trajectory), names)
    return RuleReport(compare_rules(scores, trajectory.end.name, high_q))
