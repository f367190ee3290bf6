"""From data, or from a scored run, to a `Report`: every number and sentence of the audit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmo_curate.audit import findings, suspects
from rmo_curate.audit.baseline import Change
from rmo_curate.audit.calibration import Evidence, effects, evidence
from rmo_curate.audit.checks import KINDS, Checked, Overlap, check, explain, token_counts
from rmo_curate.audit.curve import Curve, curve
from rmo_curate.audit.estimates import Estimates, estimates, estimates_of_data
from rmo_curate.audit.findings import Band, Counts, LengthBias
from rmo_curate.audit.overview import (
    WHERE,
    FindingCount,
    Opening,
    Sizes,
    TextStats,
    finding_counts,
    openings,
    sizes,
    text_stats,
)
from rmo_curate.audit.scored import CheckpointFindings, Scored, identity, read_scores, why_suspect
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.audit.slices import SliceRow, longer_wins, slice_rows, slices
from rmo_curate.audit.suspects import RejectGroup, Suspect
from rmo_curate.audit.texts import Texts, first_texts, read_run, read_source
from rmo_curate.audit.wording import BASE_MARGIN, END_MARGIN, Wording, data_wording, wording
from rmo_curate.evidence.canaries import Found, SelfCheck
from rmo_curate.evidence.contributions import contributions
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.rules import RULES
from rmo_curate.evidence.wording import reasons
from rmo_curate.filter.decisions import REASONS
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.read.sources import Source, open_source
from rmo_curate.runs.run import DEFAULT_MAX_LENGTH, Run
from rmo_train.console.errors import UserError
from rmo_train.store.tables import versions

SCHEMA = "rmo-audit-1"
LOG_ODDS, POINTS = "log-odds", "points"  # units of suspicion, besides nats
REJECT_TEXT = 600  # characters of a reject's text at most


@dataclass(frozen=True)
class Report:
    """Every number and sentence of the page; as JSON it is audit.json, whose schema is docs/audit.schema.json.

    A share is between 0 and 1; a number that is not known is null.
    """

    schema: str
    kind: str  # "run": scored; "data": not
    name: str
    headline: Wording
    noise_rate: float  # estimated share of wrong labels
    noise_rate_low: float
    noise_rate_high: float
    not_estimated: str  # why there is no noise rate; empty where there is one
    self_check: SelfCheck | None
    at_cut: Found | None  # what swapped copies say of pairs that the filter calls noisy; of data, that are likely wrong
    evidence: Evidence | None  # what P(label right) is made of; null where nothing can be estimated
    length_bias: float  # of the pairs whose answers differ in length, the share in which the chosen one is longer
    likely_wrong: int | None  # pairs whose label is more likely wrong than right; null where that is not known
    share_against: float  # of the scored pairs, the share that training moved against the label
    flagged: int  # pairs with a finding
    flagged_share: float
    contradictions: int  # pairs that are preferred both ways or in a circle
    contradiction_share: float
    counts: Counts
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
    length_accuracy: float
    suspects_found: int
    suspects: tuple[Suspect, ...]
    changes: tuple[Change, ...]  # since --baseline
    identity: dict[str, Any]
    filter: dict[str, Any]
    thresholds: dict[str, float | None]
    versions: dict[str, str]
    inputs: tuple[dict[str, Any], ...]

    @property
    def ranked(self) -> bool:
        """Whether pairs have a suspicion, and come by it."""
        return self.suspicion_unit != POINTS

    @property
    def by_probability(self) -> bool:
        """Whether suspicion is that of the posterior."""
        return self.suspicion_unit == LOG_ODDS

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
    """A report, and the texts of its suspects: `places` are their positions in `texts`."""

    report: Report
    texts: Texts
    places: np.ndarray


def collect_run(run: Run, settings: AuditSettings, filter_settings: FilterSettings | None) -> Audit:
    """Everything an audit says about a scored run."""
    for name in ("limit", "max_length"):
        if getattr(settings, name) is not None:
            raise UserError(
                f"--{name.replace('_', '-')} is for data; {run.folder} is a run, which was scored with its own"
            )
    scored = read_scores(run, filter_settings, settings)
    rejects = suspects.reject_groups(run.rejects(), settings.examples, limit=min(settings.characters, REJECT_TEXT))
    counts = count(run, scored, rejects)
    texts = read_run(run)
    held_out, held_out_name = held_out_texts(settings)
    checked = check(texts, run.manifest["max_length"], held_out, held_out_name)
    path, scores, end = scored.decisions.trajectory, scored.decisions.scores, scored.decisions.trajectory.end
    length = findings.length_bias(
        scores.chosen_tokens,
        scores.rejected_tokens,
        {BASE_MARGIN: scored.logp[:, 0], **({END_MARGIN: scored.rewards[:, -1]} if end else {})},
    )
    usable = np.isfinite(scored.rewards[:, -1])
    difference = scores.chosen_tokens - scores.rejected_tokens
    share_against = float((scored.rewards[usable, -1] < 0).mean()) if end and usable.any() else math.nan
    estimated = estimates(run, scored.decisions)
    unit = unit_of(scored.settings.rule)
    found = curve(scored.decisions.suspicion, unit, estimated.at)
    return assemble(
        settings,
        texts,
        checked,
        difference,
        scored,
        kind="run",
        name=run.folder.resolve().name,
        headline=wording(run.folder, counts, end, share_against, length, scored.settings, estimated),
        estimated=estimated,
        share_against=share_against,
        counts=counts,
        rejects=rejects,
        tokens_counted_by=f"the tokenizer of {run.manifest['reference']['name']}",
        length=length,
        curve=found,
        end=end.name if end else None,
        path=path.names,
        suspicion_unit=unit,
        checkpoints=scored.checkpoints,
        bands=scored.bands,
        length_accuracy=findings.win_rate(difference[usable].astype(float)),
        identity=identity(run.manifest, path),
        filter=scored.settings.model_dump(),
        thresholds=scored.decisions.thresholds,
        versions=run.manifest.get("versions") or run.stage("pairs").get("versions", {}),
        inputs=tuple(run.manifest["inputs"]),
    )


def collect_data(source: Source, data: tuple[str, ...], settings: AuditSettings) -> Audit:
    """Everything an audit says about data that no model has scored."""
    texts, rejected = read_source(source)
    rejects = suspects.reject_groups(rejected, settings.examples, limit=min(settings.characters, REJECT_TEXT))
    max_length = settings.max_length or DEFAULT_MAX_LENGTH
    held_out, held_out_name = held_out_texts(settings)
    checked = check(texts, max_length, held_out, held_out_name)
    counts = Counts(
        records=len(texts) + len(rejected),
        pairs=len(texts),
        rejects=len(rejected),
        rejects_by_reason={g.reason: g.count for g in rejects},
        kept=len(texts),
        dropped={},
        scorable=len(texts),
    )
    length = findings.length_bias(checked.words[:, 1], checked.words[:, 2], {}, unit="words")
    estimated = estimates_of_data(texts, settings, ", ".join(map(short, data)))
    if estimated.known:
        found = curve(estimated.suspicion, LOG_ODDS, estimated.at)
    else:
        found = curve(checked.points.astype(float), POINTS)
    columns = ", ".join(f"{role}={name}" for role, name in source.columns.items())
    identity = {"form": source.form.name, "max_length": max_length} | ({"columns": columns} if columns else {})
    return assemble(
        settings,
        texts,
        checked,
        checked.words[:, 1] - checked.words[:, 2],
        None,
        kind="data",
        name=", ".join(map(short, data)),
        headline=data_wording(data, counts, checked, length, estimated),
        estimated=estimated,
        share_against=math.nan,
        counts=counts,
        rejects=rejects,
        tokens_counted_by="an estimate, four bytes of UTF-8 a token",
        length=length,
        curve=found,
        end=None,
        path=(),
        suspicion_unit=found.unit,
        checkpoints=(),
        bands=(),
        length_accuracy=math.nan,
        identity=identity,
        filter={},
        thresholds={},
        versions=versions(),
        inputs=tuple(source.inputs),
    )


def unit_of(rule: str) -> str:
    """The unit of a rule's suspicion."""
    return LOG_ODDS if RULES[rule].says_odds else "nats per token" if rule.endswith("-ln") else "nats"


def short(path: str) -> str:
    """What a file, folder or hf: name is called on the page."""
    return path if path.startswith("hf:") else Path(path).resolve().name


def held_out_texts(settings: AuditSettings) -> tuple[Texts | None, str]:
    """The data named by --against, as text, and what they are called."""
    if not settings.against:
        return None, ""
    return first_texts(open_source(settings.against).records()), ", ".join(map(short, settings.against))


def assemble(
    settings: AuditSettings,
    texts: Texts,
    checked: Checked,
    difference: np.ndarray,
    scored: Scored | None,
    *,
    estimated: Estimates,
    counts: Counts,
    **more: Any,
) -> Audit:
    """The report: what every audit has, with `more` of its kind. difference: chosen - rejected length [pairs]."""
    n, flagged = len(texts), checked.any
    suspicion = scored.decisions.suspicion if scored else estimated.suspicion if estimated.known else None
    places = suspects.ranking(suspicion, checked.points, flagged)
    columns = slices(texts, checked.words, checked.scripts)
    listed = places[: settings.worst]
    contradicting = (checked.where["reversed"] > 0) | (checked.where["cycle"] > 0)
    end = scored.decisions.trajectory.end if scored else None
    moved = scored.rewards[:, -1] if scored and end else np.full(n, math.nan)
    noisy = scored.decisions.reason == "noisy" if scored and end else None
    believed = Believed.of(estimated.posterior, scored)
    lengths = token_counts(texts) if texts.tokens is not None else checked.words
    report = Report(
        schema=SCHEMA,
        noise_rate=estimated.noise_rate.value,
        noise_rate_low=estimated.noise_rate.low,
        noise_rate_high=estimated.noise_rate.high,
        not_estimated=estimated.why_not,
        self_check=estimated.self_check,
        at_cut=estimated.at_cut,
        evidence=believed.evidence if believed else None,
        likely_wrong=believed.likely_wrong if believed else None,
        length_bias=longer_wins(difference),
        flagged=int(flagged.sum()),
        flagged_share=float(flagged.mean()) if n else math.nan,
        contradictions=int(contradicting.sum()),
        contradiction_share=float(contradicting.mean()) if n else math.nan,
        counts=counts,
        findings=finding_counts(checked, counts),
        texts=text_stats(checked),
        sizes=sizes(texts, checked),
        slices=slice_rows(columns, difference, flagged, moved, noisy),
        openings=openings(texts),
        overlap=checked.overlap,
        suspects_found=len(places),
        suspects=tuple(
            suspect(rank, int(i), texts, checked, scored, believed, columns, lengths)
            for rank, i in enumerate(listed, start=1)
        ),
        changes=(),
        **more,
    )
    return Audit(report, texts, listed)


@dataclass(frozen=True)
class Believed:
    """The posterior of all pairs, and what is said of it as a whole."""

    posterior: Posterior
    right: np.ndarray  # P(the label is right) [pairs]
    suspicion: np.ndarray  # log-odds of a wrong label [pairs]
    likely_wrong: int
    evidence: Evidence

    @classmethod
    def of(cls, posterior: Posterior | None, scored: Scored | None) -> Believed | None:
        """Of a run, what the filter does is measured on the scored pairs; of data, what dropping the labels that are
        more likely wrong than right would do."""
        if posterior is None:
            return None
        s = -posterior.log_odds
        known = np.isfinite(scored.logp[:, 0]) if scored else np.ones(len(s), dtype=bool)
        effect = effects(scored.decisions) if scored else np.where(s > 0, 0.0, 1.0)
        return cls(posterior, posterior.right, s, int((s[known] > 0).sum()), evidence(posterior, known, effect))


def suspect(
    rank: int,
    i: int,
    texts: Texts,
    checked: Checked,
    scored: Scored | None,
    believed: Believed | None,
    columns: Mapping[str, list[str]],
    lengths: np.ndarray,
) -> Suspect:
    """Pair `i` as the page lists it."""
    suspicion = float(scored.decisions.suspicion[i]) if scored else believed.suspicion[i] if believed else math.nan
    scorable = scored is not None and bool(np.isfinite(scored.rewards[i, -1]))
    why = [*(why_suspect(scored, i) if scored and scorable else ()), *explain(checked, texts, i)]
    return Suspect(
        rank=rank,
        id=suspects.presentable(texts.ids[i]),
        right=float(believed.right[i]) if believed else None,
        reasons=reasons(contributions(believed.posterior, i)) if believed else (),
        suspicion=None if math.isnan(suspicion) else float(suspicion),
        points=int(checked.points[i]),
        decision=str(scored.decisions.reason[i] or findings.KEPT) if scored else "",
        findings={name: WHERE[int(checked.where[name][i])] for name in KINDS if checked.where[name][i]},
        slices={name: suspects.presentable(values[i]) for name, values in columns.items()},
        why=tuple(suspects.presentable(sentence) for sentence in why),
        chosen_length=int(lengths[i, 1]),
        rejected_length=int(lengths[i, 2]),
        margins=findings.floats(scored.logp[i]) if scored and scorable else (),
        rewards=findings.floats(scored.rewards[i]) if scored and scorable else (),
    )


def count(run: Run, scored: Scored, rejects: tuple[RejectGroup, ...]) -> Counts:
    """The manifest's counts beside those of the tables themselves: `Counts` checks that they agree."""
    decided = scored.decisions.counts
    dropped = Counter({reason: decided[reason] for reason in REASONS if decided.get(reason)})
    return Counts(
        records=run.manifest["counts"]["records"],
        pairs=len(scored.decisions.reason),
        rejects=run.manifest["counts"]["rejects"],
        rejects_by_reason={g.reason: g.count for g in rejects},
        kept=decided["kept"],
        dropped=dict(dropped.most_common()),
        scorable=run.manifest["counts"]["scorable"],
    )
