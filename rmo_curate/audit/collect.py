"""From a scored run folder to a `Report`: every number and sentence of the audit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from rmo_curate import margins
from rmo_curate.audit import findings, suspects
from rmo_curate.audit.suspects import RejectGroup, Suspect
from rmo_curate.audit.wording import BASE_MARGIN, END_MARGIN, Wording, moved_by, wording
from rmo_curate.decisions import REASONS, Decisions, decide
from rmo_curate.filter_settings import FilterSettings
from rmo_curate.runs import Checkpoint, Run, Scores, Trajectory
from rmo_train import tables
from rmo_train.settings import Settings

PANELS = 6  # checkpoints drawn as histograms; the tables hold all


class AuditSettings(Settings):
    """Settings of `rmo-curate audit`."""

    worst: int = Field(50, ge=0, description="Suspects listed on the page, worst first")
    characters: int = Field(4000, ge=1, description="Characters shown of each prompt and answer; the rest is counted")
    examples: int = Field(3, ge=0, description="Rejects shown for each reason")


@dataclass(frozen=True)
class CheckpointFindings:
    name: str
    kind: str
    family: str | None
    step: int | None
    folds: int | None
    held_out: bool | None
    standing: str  # the same in words
    noise_sd: float | None
    accuracy: findings.Accuracy
    logp_margin: findings.Distribution | None
    reward_margin: findings.Distribution | None  # None at the base, where it is 0
    histogram: findings.Histogram | None  # of the logp margin at the base, of the reward margin after it


@dataclass(frozen=True)
class Report:
    """Every number and sentence of the page; `asdict` of it is audit.json."""

    schema_version: int
    run: str
    headline: Wording
    end: str | None
    share_against: float
    counts: findings.Counts
    rejects: tuple[RejectGroup, ...]
    path: tuple[str, ...]
    suspicion_unit: str
    checkpoints: tuple[CheckpointFindings, ...]
    bands: tuple[findings.Band, ...]
    length: findings.LengthBias | None
    length_accuracy: float
    suspects: tuple[Suspect, ...]
    identity: dict[str, Any]
    filter: dict[str, Any]
    thresholds: dict[str, float | None]
    versions: dict[str, str]
    inputs: tuple[dict[str, Any], ...]

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


def collect(run: Run, settings: AuditSettings, filter_settings: FilterSettings | None) -> Report:
    """Everything an audit says about `run`."""
    if filter_settings is None:  # on a run without a proxy only what goes under every rule can be told
        filter_settings = FilterSettings.model_validate({} if run.trajectory().end else {"rule": "none"})
    decisions = decide(run, filter_settings)
    path, scores = decisions.trajectory, decisions.scores
    groups = findings.group_of(decisions.reason)
    logp = np.stack([margins.logp(scores, m) for m in range(len(path.checkpoints))], axis=1)
    rewards = logp - logp[:, :1]
    rejects = suspects.reject_groups(run.rejects(), settings.examples, limit=min(settings.characters, 600))
    counts = count(run, decisions, rejects)
    length = findings.length_bias(
        scores.chosen_tokens,
        scores.rejected_tokens,
        {BASE_MARGIN: logp[:, 0], **({END_MARGIN: rewards[:, -1]} if path.end else {})},
    )
    scored = np.isfinite(rewards[:, -1])
    share_against = float((rewards[scored, -1] < 0).mean()) if path.end and scored.any() else math.nan
    manifest = run.manifest
    return Report(
        schema_version=tables.SCHEMA_VERSION,
        run=run.folder.resolve().name,
        headline=wording(run.folder, counts, path.end, share_against, length, filter_settings),
        end=path.end.name if path.end else None,
        share_against=share_against,
        counts=counts,
        rejects=rejects,
        path=path.names,
        suspicion_unit="nats per token" if filter_settings.rule.endswith("-ln") else "nats",
        checkpoints=checkpoint_findings(path, scores, groups),
        bands=findings.bands(rewards, groups) if path.end else (),
        length=length,
        length_accuracy=findings.win_rate((scores.chosen_tokens - scores.rejected_tokens)[scored].astype(float)),
        suspects=worst_suspects(run, decisions, settings),
        identity=identity(manifest, path),
        filter=filter_settings.model_dump(),
        thresholds=decisions.thresholds,
        versions=manifest.get("versions") or run.stage("pairs").get("versions", {}),
        inputs=tuple(manifest["inputs"]),
    )


def count(run: Run, decisions: Decisions, rejects: tuple[RejectGroup, ...]) -> findings.Counts:
    """The manifest's counts beside those of the tables themselves: `Counts` checks that they agree."""
    dropped = Counter({reason: decisions.counts[reason] for reason in REASONS if decisions.counts[reason]})
    return findings.Counts(
        records=run.manifest["counts"]["records"],
        pairs=len(decisions.reason),
        rejects=run.manifest["counts"]["rejects"],
        rejects_by_reason={g.reason: g.count for g in rejects},
        kept=decisions.counts["kept"],
        dropped=dict(dropped.most_common()),
        scorable=run.manifest["counts"]["scorable"],
    )


def checkpoint_findings(path: Trajectory, scores: Scores, groups: np.ndarray) -> tuple[CheckpointFindings, ...]:
    """Margins and accuracy of each checkpoint; the reward panels share one axis, so that they can be compared."""
    rewards = [margins.reward(scores, m) for m in range(len(path.checkpoints))]
    limits = findings.common_limits(np.concatenate(rewards[1:])) if len(rewards) > 1 else None
    drawn = {0, *(findings.evenly(len(rewards) - 1, PANELS - 1) + 1)}
    found = []
    for m, c in enumerate(path.checkpoints):
        logp = margins.logp(scores, m)
        values = rewards[m] if m else logp
        axis = findings.common_limits(logp) if m == 0 or limits is None else limits
        found.append(
            CheckpointFindings(
                name=c.name,
                kind=c.kind,
                family=c.family,
                step=c.step,
                folds=c.folds,
                held_out=c.held_out,
                standing=standing(c),
                noise_sd=c.noise_sd,
                accuracy=findings.Accuracy(
                    reward=findings.win_rate(rewards[m]),
                    logp=findings.win_rate(logp),
                    mean_logp=findings.win_rate(margins.mean_logp(scores, m)),
                ),
                logp_margin=findings.distribution(logp),
                reward_margin=findings.distribution(rewards[m]) if m else None,
                histogram=findings.histogram(values, groups, axis) if m in drawn else None,
            )
        )
    return tuple(found)


def standing(checkpoint: Checkpoint) -> str:
    if checkpoint.kind == "base":
        return "the reference's"
    return {True: "held out", False: "in-sample", None: "unknown"}[checkpoint.held_out]


def worst_suspects(run: Run, decisions: Decisions, settings: AuditSettings) -> tuple[Suspect, ...]:
    """The pairs to read first, with their texts."""
    scores = decisions.scores
    places = suspects.most_suspect(decisions.suspicion, settings.worst)
    ids = [decisions.ids[int(i)].as_py() for i in places]
    parts = tables.iter_parts(run.folder / "pairs", run.stage("pairs"), ["id", "prompt", "chosen", "rejected"])
    texts = suspects.pick_texts(parts, frozenset(ids))
    population = margins.reward(scores)
    population = population[np.isfinite(population)]
    found = []
    for rank, (i, pair_id) in enumerate(zip(places, ids, strict=True), start=1):
        logps = scores.chosen_logp[i] - scores.rejected_logp[i]
        tokens = (int(scores.chosen_tokens[i]), int(scores.rejected_tokens[i]))
        rewards = findings.floats(logps - logps[0])
        messages = {
            side: suspects.excerpts(texts[pair_id][side], settings.characters)
            for side in ("prompt", "chosen", "rejected")
        }
        found.append(
            Suspect(
                rank=rank,
                id=suspects.presentable(pair_id),
                suspicion=float(decisions.suspicion[i]),
                decision=str(decisions.reason[i] or findings.KEPT),
                why=suspects.reasons_to_look(
                    rewards, float(logps[0]), tokens, population, moved_by(decisions.trajectory.end)
                ),
                chosen_tokens=tokens[0],
                rejected_tokens=tokens[1],
                chosen_logps=findings.floats(scores.chosen_logp[i]),
                rejected_logps=findings.floats(scores.rejected_logp[i]),
                margins=findings.floats(logps),
                rewards=rewards,
                **messages,
            )
        )
    return tuple(found)


def identity(manifest: Mapping[str, Any], path: Trajectory) -> dict[str, Any]:
    """What was scored with what, flat: `reference` first, as the page's kicker shows it."""
    reference = dict(manifest["reference"])
    return {
        "reference": reference.pop("name"),
        **reference,
        "max_length": manifest["max_length"],
        "form": manifest["form"],
        "trajectory": " → ".join(path.names),
        "checkpoints_scored": ", ".join(c["name"] for c in manifest["checkpoints"]),
    }
