"""What only a scored run can tell: margins and accuracy by checkpoint, trajectories, where a pair went."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rmo_curate.audit import findings
from rmo_curate.audit.wording import standing
from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.filter.decisions import Decisions, decide
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs import margins
from rmo_curate.runs.run import Checkpoint, Run, Scores, Trajectory
from rmo_train.evaluation.intervals import UNKNOWN, share_interval
from rmo_train.evaluation.metrics import Interval
from rmo_train.store.manifests import RunManifest

PANELS = 6  # checkpoints drawn as histograms; the tables hold all


@dataclass(frozen=True)
class CheckpointFindings:
    name: str
    kind: str
    family: str | None
    step: int | None
    folds: int | None
    held_out: bool | None
    standing: str  # whether it is held out, in words
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
    prompts: np.ndarray  # [pairs], equal where prompts are

    @property
    def end(self) -> Checkpoint | None:
        return self.decisions.trajectory.end

    @cached_property
    def usable(self) -> np.ndarray:
        """Pairs that have scores: bool [pairs]."""
        return np.isfinite(self.rewards[:, -1])

    @property
    def share_against(self) -> Interval:
        """Of the scored pairs, the share that training moved against the label; NaN where there was none."""
        if not self.end or not len(self.population):
            return UNKNOWN
        return share_interval((self.population < 0).astype(float), self.prompts[self.usable])

    @cached_property
    def population(self) -> np.ndarray:
        """The end's reward margins of all scored pairs."""
        return self.rewards[self.usable, -1]


def read_scores(
    run: Run, filter_settings: FilterSettings | None, prompts: np.ndarray, names: EvidenceColumns | None = None
) -> Scored:
    """prompts: [pairs], equal where prompts are. names: of columns that are evidence, instead of those that the filter
    names."""
    filter_settings = filter_settings or FilterSettings()
    if names is not None:
        named = {n: value for n in EvidenceColumns.model_fields if (value := getattr(names, n)) is not None}
        filter_settings = filter_settings.model_copy(update=named)
    decisions = decide(run, filter_settings)
    path, scores = decisions.trajectory, decisions.scores
    groups = findings.group_of(decisions.reason)
    logp = np.stack([margins.logp(scores, m) for m in range(len(path.checkpoints))], axis=1)
    rewards = logp - logp[:, :1]
    bands = findings.bands(rewards, groups) if path.end else ()
    checkpoints = checkpoint_findings(path, scores, groups, prompts)
    return Scored(decisions.settings, decisions, logp, rewards, checkpoints, bands, prompts)


def checkpoint_findings(
    path: Trajectory, scores: Scores, groups: np.ndarray, prompts: np.ndarray
) -> tuple[CheckpointFindings, ...]:
    """Margins and accuracy of each checkpoint; the reward panels share one axis, so that they can be compared."""
    rewards = [margins.reward(scores, m) for m in range(len(path.checkpoints))]
    limits = findings.common_limits(np.concatenate(rewards[1:])) if len(rewards) > 1 else None
    drawn = {0, *(findings.evenly(len(rewards) - 1, PANELS - 1) + 1)}
    by_checkpoint = []
    for m, c in enumerate(path.checkpoints):
        logp = margins.logp(scores, m)
        values = rewards[m] if m else logp
        axis = findings.common_limits(logp) if m == 0 or limits is None else limits
        by_checkpoint.append(
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
                    pairs=int(np.isfinite(logp).sum()),
                    prompts=len(np.unique(prompts[np.isfinite(logp)])),
                    reward=findings.win_rate_interval(rewards[m], prompts),
                    logp=findings.win_rate_interval(logp, prompts),
                    mean_logp=findings.win_rate_interval(margins.mean_logp(scores, m), prompts),
                ),
                logp_margin=findings.distribution(logp),
                reward_margin=findings.distribution(rewards[m]) if m else None,
                histogram=findings.histogram(values, groups, axis) if m in drawn else None,
            )
        )
    return tuple(by_checkpoint)


@dataclass(frozen=True)
class Movement:
    """Where a pair's reward margin went, one a checkpoint, beside those of all scored pairs."""

    nats: float  # at the end; above 0: towards the chosen answer
    share_higher: float  # of the scored pairs, those with a higher margin
    steadily_down: bool  # it fell at every checkpoint of several
    turned: bool  # it first rose, and ended below 0


def movement(scored: Scored, i: int) -> Movement | None:
    """Of pair `i`; None where it has no scores, or only the base's."""
    rewards = scored.rewards[i]
    if len(rewards) < 2 or not scored.usable[i]:
        return None
    end, several = float(rewards[-1]), len(rewards) > 2
    return Movement(
        nats=end,
        share_higher=float((scored.population > end).mean()),
        steadily_down=several and bool((np.diff(rewards) < 0).all()),
        turned=several and end < 0 < float(rewards.max()),
    )


def identity(manifest: RunManifest, path: Trajectory) -> dict[str, Any]:
    """What was scored with what, flat: `reference` first, as the page's kicker shows it."""
    reference = manifest.reference.model_dump(exclude_none=True)
    allowed = reference.pop("allowed", ())
    return {
        "reference": reference.pop("name"),
        **reference,
        **({"allowed": ", ".join(allowed)} if allowed else {}),
        "max_length": manifest.max_length,
        "form": manifest.form,
        "trajectory": " → ".join(path.names),
        "checkpoints_scored": ", ".join(c.name for c in manifest.checkpoints),
    }
