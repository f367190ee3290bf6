"""What an audit holds: every number and sentence of the page and of audit.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rmo_curate.audit import findings
from rmo_curate.audit.baseline import Change
from rmo_curate.audit.calibration import Evidence
from rmo_curate.audit.checks import Overlap
from rmo_curate.audit.curve import Curve
from rmo_curate.audit.findings import Band, Counts, LengthBias
from rmo_curate.audit.overview import FindingCount, Opening, Sizes, TextStats
from rmo_curate.audit.scored import CheckpointFindings
from rmo_curate.audit.slices import SliceRow
from rmo_curate.audit.standing_out import StandingOut
from rmo_curate.audit.suspects import RejectGroup, Suspect
from rmo_curate.audit.texts import Texts
from rmo_curate.audit.wording import Wording
from rmo_curate.evidence.rules import LOG_ODDS
from rmo_curate.evidence.swapped_copies import Detection, SelfCheck
from rmo_train.evaluation.metrics import Interval
from rmo_train.store.manifests import InputFile, TooLong

SCHEMA = "rmo-audit-1"
POINTS = "points"  # the unit of suspicion where no rule is asked


@dataclass(frozen=True)
class Report:
    """Every number and sentence of the page; as JSON it is audit.json, whose schema is docs/audit.schema.json.

    A share is between 0 and 1; an unknown number is null.
    """

    schema: str
    kind: str  # "run": scored; "data": not
    name: str
    headline: Wording
    judged_pairs: int  # pairs whose labels are judged: on a run, the scored ones
    noise_rate: float  # estimated share of wrong labels among the judged pairs
    noise_rate_low: float
    noise_rate_high: float
    not_estimated: str  # why there is no noise rate; empty if there is one
    self_check: SelfCheck | None  # over the judged pairs
    at_cut: Detection | None  # of the pairs that the filter calls noisy; if it drops none, that it doubts
    standing_out: tuple[StandingOut, ...]  # strong findings
    evidence: Evidence | None  # what P(label right) is made of; null if nothing can be estimated
    length_bias: float  # share of the pairs of unequal length in which the chosen answer is the longer one
    length_bias_pairs: int  # pairs whose answers differ in length
    likely_wrong: int | None  # judged pairs whose label is more likely wrong than right; null without a noise rate
    share_against: float  # share of the scored pairs (`counts.scorable`) that training moved against their label
    share_against_low: float  # 95% interval over prompts
    share_against_high: float
    flagged: int  # pairs with a finding
    flagged_share: float  # `flagged` as a share of all pairs (`counts.pairs`)
    contradictions: int  # pairs that are preferred both ways or in a circle
    contradiction_share: float  # `contradictions` as a share of all pairs
    counts: Counts
    too_long: TooLong | None  # pairs of a run that were not scored because of their length; null if there are none
    rejects: tuple[RejectGroup, ...]
    findings: dict[str, FindingCount]
    texts: TextStats
    sizes: dict[str, Sizes]  # prompt, chosen, rejected
    tokens_counted_by: str  # the reference's tokenizer, or "an estimate, …"
    length: LengthBias | None
    slices: tuple[SliceRow, ...]
    openings: tuple[Opening, ...]
    overlap: Overlap | None
    curve: Curve
    end: str | None
    path: tuple[str, ...]
    suspicion_unit: str
    checkpoints: tuple[CheckpointFindings, ...]
    bands: tuple[Band, ...]
    length_accuracy: Interval | None  # accuracy of always preferring the longer answer, last checkpoint's pairs
    suspects_found: int
    suspects: tuple[Suspect, ...]
    changes: tuple[Change, ...]  # since --baseline
    identity: dict[str, Any]
    filter: dict[str, Any]
    thresholds: dict[str, float | None]
    versions: dict[str, str]
    inputs: tuple[InputFile, ...]

    @property
    def ranked(self) -> bool:
        """Whether pairs have a suspicion, and come by it."""
        return self.suspicion_unit != POINTS

    @property
    def by_probability(self) -> bool:
        """Whether suspicion is that of the posterior."""
        return self.suspicion_unit == LOG_ODDS

    @property
    def tells_probability(self) -> bool:
        """Whether P(label right) is told: it takes a noise rate."""
        return self.by_probability and not self.not_estimated

    @property
    def groups(self) -> list[str]:
        """The groups that occur among scored pairs, for the legend."""
        drawn = [c.histogram.counts for c in self.checkpoints if c.histogram]
        return [g for g in findings.GROUPS if any(sum(counts[g]) for counts in drawn)]

    @property
    def bar_parts(self) -> list[tuple[str, int]]:
        """(group, pairs) of kept and dropped pairs, in the order of the table."""
        known = [(r if r in findings.GROUPS else "other", n) for r, n in self.counts.dropped.items()]
        return [(findings.KEPT, self.counts.kept), *known]


@dataclass(frozen=True)
class Audit:
    """A report, and the texts of its suspects: `positions` are theirs in `texts`."""

    report: Report
    texts: Texts
    positions: np.ndarray
