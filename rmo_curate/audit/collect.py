"""From data, or from a scored run, to an `Audit`: what is counted, estimated and said is put together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rmo_curate.audit import findings, suspects
from rmo_curate.audit.calibration import Evidence, effects, evidence
from rmo_curate.audit.checks import KINDS, Checked, check, token_counts
from rmo_curate.audit.contents import POINTS, SCHEMA, Audit, Report
from rmo_curate.audit.curve import Curve, curve
from rmo_curate.audit.estimates import Estimates, estimates, estimates_of_data
from rmo_curate.audit.findings import Counts, LengthBias
from rmo_curate.audit.overview import WHERE, finding_counts, openings, sizes, text_stats
from rmo_curate.audit.scored import Scored, identity, read_scores
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.audit.slices import longer_wins, slice_rows, slices
from rmo_curate.audit.standing_out import Observed, standing_out
from rmo_curate.audit.suspects import RejectGroup, Suspect
from rmo_curate.audit.texts import TextData, Texts, read_data, read_run
from rmo_curate.audit.why import because, finding_sentences, margin_sentences
from rmo_curate.audit.wording import (
    BASE_MARGIN,
    END_MARGIN,
    TOKENS_ESTIMATED,
    Wording,
    data_wording,
    tokens_counted_by,
    untold_text,
    wording,
)
from rmo_curate.evidence.contributions import contributions
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.rules import LOG_ODDS, RULES
from rmo_curate.evidence.wording import reasons
from rmo_curate.filter.decisions import REASONS
from rmo_curate.filter.grounds import ground
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs.run import Run
from rmo_train.console.errors import UserError
from rmo_train.evaluation.intervals import UNKNOWN
from rmo_train.evaluation.metrics import Interval
from rmo_train.store.manifests import InputFile, TooLong, versions

REJECT_TEXT = 600  # characters of a reject's text at most


@dataclass(frozen=True)
class Material:
    """What a report is made of, be it of a run or of data."""

    name: str
    texts: Texts
    checked: Checked
    counts: Counts
    rejects: tuple[RejectGroup, ...]
    estimated: Estimates
    scored: Scored | None  # None: data that no model has scored
    difference: np.ndarray  # chosen - rejected length [pairs], in the unit of `length`
    length: LengthBias | None
    curve: Curve
    headline: Wording
    tokens_counted_by: str
    identity: dict[str, Any]
    versions: dict[str, str]
    inputs: tuple[InputFile, ...]
    too_long: TooLong | None = None  # pairs of a run that were not scored

    @property
    def suspicion(self) -> np.ndarray | None:
        """[pairs]; None where pairs have none."""
        if self.scored:
            return self.scored.decisions.suspicion
        return None if self.estimated.posterior is None else self.estimated.suspicion


def collect_run(run: Run, settings: AuditSettings, filter_settings: FilterSettings | None) -> Audit:
    """Everything an audit says about a scored run."""
    for name in ("limit", "max_length"):
        if getattr(settings, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is for data, and {run.folder} is a run: leave it out")
    texts = read_run(run)
    checked = check(texts, run.manifest.max_length, *held_out_texts(settings))
    scored = read_scores(run, filter_settings, checked.preferences.prompt, settings)
    rejects = suspects.reject_groups(run.rejects(), settings.examples, limit=min(settings.characters, REJECT_TEXT))
    counts = count(run, scored, rejects)
    scores, end = scored.decisions.scores, scored.end
    length = findings.length_bias(
        scores.chosen_tokens,
        scores.rejected_tokens,
        {BASE_MARGIN: scored.logp[:, 0], **({END_MARGIN: scored.rewards[:, -1]} if end else {})},
    )
    estimated = estimates(run, scored.decisions)
    material = Material(
        name=run.folder.resolve().name,
        texts=texts,
        checked=checked,
        counts=counts,
        rejects=rejects,
        estimated=estimated,
        scored=scored,
        difference=scores.chosen_tokens - scores.rejected_tokens,
        length=length,
        curve=curve(
            scored.decisions.suspicion,
            RULES[scored.settings.rule].unit,
            estimated.at,
            None if scored.decisions.left_in_doubt else scored.decisions.least_suspicion,
        ),
        headline=wording(
            run.folder,
            scored.decisions,
            counts,
            length,
            estimated,
            run.manifest.too_long,
        ),
        tokens_counted_by=tokens_counted_by(run.manifest.reference.name or ""),
        identity=identity(run.manifest, scored.decisions.trajectory),
        versions=run.manifest.versions,
        inputs=run.manifest.inputs,
        too_long=run.manifest.too_long,
    )
    return audit_of(material, settings)


def name_of(data: tuple[str, ...]) -> str:
    """What the audit of data is called."""
    return ", ".join(map(short, data))


def collect_data(read: TextData, data: tuple[str, ...], settings: AuditSettings) -> Audit:
    """Everything an audit says about data that no model has scored; data: what they are called."""
    source, texts, rejected = read.source, read.texts, read.rejects
    rejects = suspects.reject_groups(rejected, settings.examples, limit=min(settings.characters, REJECT_TEXT))
    limit = {"max_length": settings.max_length} if settings.max_length else {}
    checked = check(texts, settings.max_length, *held_out_texts(settings))
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
    name = name_of(data)
    estimated = estimates_of_data(texts, settings, name)
    if estimated.posterior is not None:
        cost = curve(estimated.suspicion, LOG_ODDS, estimated.at, doubted(estimated))
    else:
        cost = curve(checked.points.astype(float), POINTS)
    columns = ", ".join(f"{role}={name}" for role, name in source.columns.items())
    material = Material(
        name=name,
        texts=texts,
        checked=checked,
        counts=counts,
        rejects=rejects,
        estimated=estimated,
        scored=None,
        difference=checked.words[:, 1] - checked.words[:, 2],
        length=length,
        curve=cost,
        headline=data_wording(data, source.columns, settings.max_length, counts, checked, length, estimated),
        tokens_counted_by=TOKENS_ESTIMATED,
        identity={"form": source.form.name, **limit, **({"columns": columns} if columns else {})},
        versions=versions(),
        inputs=source.inputs,
    )
    return audit_of(material, settings)


def doubted(estimated: Estimates) -> float | None:
    """The least suspicion of the labels that are more likely wrong than right; None where there are none, or where no
    noise rate is told."""
    s = estimated.suspicion
    return float(s[s > 0].min()) if estimated.known and (s > 0).any() else None


def short(path: str) -> str:
    """What a file, folder or hf: name is called on the page."""
    return path if path.startswith("hf:") else Path(path).resolve().name


def held_out_texts(settings: AuditSettings) -> tuple[Texts | None, str]:
    """The data named by --against, as text, and what they are called."""
    if not settings.against:
        return None, ""
    return read_data(settings.against, None, None).texts, ", ".join(map(short, settings.against))


def audit_of(material: Material, settings: AuditSettings) -> Audit:
    """The report, and the texts of the pairs that it lists."""
    flagged, unscored = material.checked.any, material.texts.too_long
    if unscored is not None:  # nothing can be decided on a pair of a run that has no scores
        flagged = flagged & ~unscored
    ranked = suspects.ranking(material.suspicion, material.checked.points, flagged, first_to_read(material))
    listed = ranked[: settings.worst]
    return Audit(report(material, len(ranked), listed), material.texts, listed)


def first_to_read(material: Material) -> np.ndarray | None:
    """Of data that no model has scored: faults that a reader sees at once, where what the labels teach does not speak
    for the label. Style alone is a weak witness, and each such pair can be decided by reading. bool [pairs]."""
    posterior = material.estimated.posterior
    if material.scored is not None:
        return None
    return material.checked.visible if posterior is None else material.checked.visible & (posterior.margin <= 0)


def report(material: Material, suspects_found: int, listed: np.ndarray) -> Report:
    """listed: positions of the suspects on the page, the worst first."""
    texts, checked, counts, scored = material.texts, material.checked, material.counts, material.scored
    estimated, flagged = material.estimated, checked.any
    contradicting = (checked.where["reversed"] > 0) | (checked.where["cycle"] > 0)
    columns = slices(texts, checked.words, checked.scripts)
    end = scored.end if scored else None
    moved = scored.rewards[:, -1] if scored and end else np.full(len(texts), math.nan)
    noisy = scored.decisions.called_noisy if scored and end else None
    against = scored.share_against if scored else UNKNOWN
    believed = Believed.of(estimated.posterior, scored)
    lengths = token_counts(texts) if texts.tokens is not None else checked.words
    observed = Observed(
        counts=counts,
        findings=finding_counts(checked, counts),
        lengths_known=texts.tokens is not None,
        contradictions=int(contradicting.sum()),
        openings=openings(texts),
        longer=int((material.difference > 0).sum()),
        shorter=int((material.difference < 0).sum()),
        gaps=believed.evidence.gaps if believed else (),
        gaps_of=estimated.pairs,
    )
    return Report(
        schema=SCHEMA,
        kind="run" if scored else "data",
        name=material.name,
        headline=material.headline,
        judged_pairs=estimated.pairs,
        noise_rate=estimated.noise_rate.value,
        noise_rate_low=estimated.noise_rate.low,
        noise_rate_high=estimated.noise_rate.high,
        not_estimated=untold_text(estimated.untold) if estimated.untold else "",
        self_check=estimated.self_check,
        at_cut=estimated.at_cut,
        standing_out=standing_out(observed),
        evidence=believed.evidence if believed else None,
        length_bias=longer_wins(material.difference),
        length_bias_pairs=observed.longer + observed.shorter,
        likely_wrong=believed.likely_wrong if believed and estimated.known else None,
        share_against=against.value,
        share_against_low=against.low,
        share_against_high=against.high,
        flagged=int(flagged.sum()),
        flagged_share=float(flagged.mean()) if len(texts) else math.nan,
        contradictions=observed.contradictions,
        contradiction_share=float(contradicting.mean()) if len(texts) else math.nan,
        counts=counts,
        too_long=material.too_long,
        rejects=material.rejects,
        findings=dict(observed.findings),
        texts=text_stats(checked),
        sizes=sizes(texts, checked),
        tokens_counted_by=material.tokens_counted_by,
        length=material.length,
        slices=slice_rows(columns, material.difference, flagged, moved, noisy),
        openings=tuple(observed.openings),
        overlap=checked.overlap,
        curve=material.curve,
        end=end.name if end else None,
        path=scored.decisions.trajectory.names if scored else (),
        suspicion_unit=material.curve.unit,
        checkpoints=scored.checkpoints if scored else (),
        bands=scored.bands if scored else (),
        length_accuracy=length_accuracy(material.difference, scored) if scored else None,
        suspects_found=suspects_found,
        suspects=tuple(
            suspect(rank, int(i), material, believed, columns, lengths) for rank, i in enumerate(listed, start=1)
        ),
        changes=(),
        identity=material.identity,
        filter=scored.settings.model_dump() if scored else {},
        thresholds=scored.decisions.thresholds if scored else {},
        versions=material.versions,
        inputs=material.inputs,
    )


def length_accuracy(difference: np.ndarray, scored: Scored) -> Interval:
    """What "the longer one wins" would get of the scored pairs; difference: chosen - rejected length [pairs]."""
    usable = scored.usable
    return findings.win_rate_interval(difference[usable].astype(float), scored.prompts[usable])


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
    material: Material,
    believed: Believed | None,
    columns: Mapping[str, list[str]],
    lengths: np.ndarray,
) -> Suspect:
    """Pair `i` as the page lists it. columns: of `slices`; lengths: of prompt, chosen and rejected [pairs, 3]."""
    texts, checked, scored = material.texts, material.checked, material.scored
    suspicion = float(scored.decisions.suspicion[i]) if scored else believed.suspicion[i] if believed else math.nan
    scorable = scored is not None and bool(scored.usable[i])
    right = float(believed.right[i]) if believed and material.estimated.known else None
    told = reasons(contributions(believed.posterior, i)) if believed else ()
    moved, findings_said = list(margin_sentences(scored, i)) if scored else [], finding_sentences(checked, texts, i)
    file, line = texts.place(i)
    return Suspect(
        rank=rank,
        id=suspects.presentable(texts.ids[i]),
        source_file=suspects.presentable(file) if file is not None else None,
        source_line=line,
        because=suspects.presentable(because(right, told, moved, findings_said, visible=bool(checked.visible[i]))),
        right=right,
        reasons=told,
        suspicion=None if math.isnan(suspicion) else float(suspicion),
        points=int(checked.points[i]),
        decision=str(scored.decisions.reason[i] or findings.KEPT) if scored else "",
        decided=ground(scored.decisions, i) if scored else None,
        findings={name: WHERE[int(checked.where[name][i])] for name in KINDS if checked.where[name][i]},
        slices={name: suspects.presentable(values[i]) for name, values in columns.items()},
        why=tuple(suspects.presentable(sentence) for sentence in (*moved, *findings_said)),
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
        records=run.manifest.counts["records"],
        pairs=len(scored.decisions.reason),
        rejects=run.manifest.counts["rejects"],
        rejects_by_reason={g.reason: g.count for g in rejects},
        kept=decided["kept"],
        dropped=dict(dropped.most_common()),
        scorable=run.manifest.counts["scorable"],
    )
