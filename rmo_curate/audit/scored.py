"""What only a scored run can tell: margins and accuracy by checkpoint, trajectories, why a pair is suspect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rmo_curate.audit import findings, suspects
from rmo_curate.audit.wording import moved_by
from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.filter.decisions import Decisions, decide
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs import margins
from rmo_curate.runs.run import Checkpoint, Run, Scores, Trajectory

PANELS = 6  # checkpoints drawn as histograms; the tables hold all


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
class Scored:
    """The scores of a run, and what the filter would decide."""

    settings: FilterSettings
    decisions: Decisions
    logp: np.ndarray  # [pairs, checkpoints] D_m, nats
    rewards: np.ndarray  # [pairs, checkpoints] D_m - D_0
    checkpoints: tuple[CheckpointFindings, ...]
    bands: tuple[findings.Band, ...]

    @cached_property
    def population(self) -> np.ndarray:
        """The end's reward margins of all scored pairs."""
        return self.rewards[np.isfinite(self.rewards[:, -1]), -1]


def read_scores(run: Run, filter_settings: FilterSettings | None, names: EvidenceColumns | None = None) -> Scored:
    """names: of columns that are evidence, instead of those that the filter names."""
    if filter_settings is None:  # without a proxy the reward margin is 0, so no pair is ambiguous by it
        filter_settings = FilterSettings.model_validate({} if run.trajectory().end else {"low_q": 0.0})
    if names is not None:
        given = {n: value for n in EvidenceColumns.model_fields if (value := getattr(names, n)) is not None}
        filter_settings = filter_settings.model_copy(update=given)
    decisions = decide(run, filter_settings)
    path, scores = decisions.trajectory, decisions.scores
    groups = findings.group_of(decisions.reason)
    logp = np.stack([margins.logp(scores, m) for m in range(len(path.checkpoints))], axis=1)
    rewards = logp - logp[:, :1]
    bands = findings.bands(rewards, groups) if path.end else ()
    return Scored(decisions.settings, decisions, logp, rewards, checkpoint_findings(path, scores, groups), bands)


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


def why_suspect(scored: Scored, i: int) -> tuple[str, ...]:
    """What the margins of pair `i` say, in sentences."""
    mover = moved_by(scored.decisions.trajectory.end)
    return suspects.reasons_to_look(findings.floats(scored.rewards[i]), scored.population, mover)


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
