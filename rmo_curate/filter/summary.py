"""What the decisions on a run come to, in numbers: all that is told of them beside counts and thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.label_noise import Judgeable
from rmo_curate.evidence.lengths import FOLLOWING_LENGTH, Lengths
from rmo_curate.evidence.posterior import Missing
from rmo_curate.evidence.style import Gap, gaps
from rmo_curate.evidence.swapped_copies import Detection
from rmo_curate.filter.caught import caught, suspicion_of_swapped
from rmo_curate.filter.decisions import Decisions, worth_of
from rmo_curate.filter.reviews import ACTIONS, FLIP, KEEP
from rmo_curate.filter.slices import ColumnRemoval, removal
from rmo_curate.filter.worth import Worth
from rmo_curate.runs.run import Run
from rmo_train.store.manifests import TooLong


@dataclass(frozen=True)
class Judged:
    """What the labels were judged by, how many are wrong by that, and what the decisions do to length and style."""

    sources: tuple[str, ...]
    missing: tuple[Missing, ...]
    of: Judgeable  # pairs that have scores
    foretold: bool  # whether held-out labels are foretold better than chance
    noise_rate: float
    worth: Worth | None  # None: too few pairs to tell, or nothing foretells labels
    gaps: tuple[Gap, ...]


@dataclass(frozen=True)
class Summary:
    flipped: int  # of the kept pairs
    protected: int
    reviewed: dict[str, int]  # action -> pairs; empty without a reviewer's decisions
    kept_unscored: int  # pairs that a reviewer keeps, and that are too long: dropped
    lengths: Lengths | None  # None where they cannot mislead the rule
    caught: Detection | None  # by the cut of the noisy; None where nothing is cut, or nothing can be told
    judged: Judged | None  # None where no evidence was weighed
    removal: tuple[ColumnRemoval, ...]
    too_long: TooLong | None  # pairs that were not scored: no filter removed them


def summary(run: Run, decisions: Decisions) -> Summary:
    review = decisions.overrides.review
    stuck = (decisions.reason == "too_long") & np.isin(review, (KEEP, FLIP))
    reviewed = {name: int((review == code).sum()) for code, name in enumerate(ACTIONS, start=1)}
    return Summary(
        flipped=int(decisions.flipped.sum()),
        protected=int(decisions.overrides.protected.sum()),
        reviewed=reviewed if review.any() else {},
        kept_unscored=int(stuck.sum()),
        lengths=Lengths.of(decisions.scores) if decisions.settings.rule in FOLLOWING_LENGTH else None,
        caught=caught_at_cut(decisions),
        judged=judged(decisions),
        removal=removal(run, ~decisions.kept, decisions.reason != "too_long"),
        too_long=run.manifest.too_long,
    )


def judged(decisions: Decisions) -> Judged | None:
    posterior, labels = decisions.scores.posterior, decisions.labels
    if posterior is None or labels is None:
        return None
    return Judged(
        posterior.sources,
        posterior.missing,
        labels.of,
        posterior.noise.tells,
        posterior.noise.rate,
        worth_of(decisions, labels) if labels.estimable else None,
        tuple(gaps(posterior.style.difference, decisions.kept, decisions.effect)),
    )


def caught_at_cut(decisions: Decisions) -> Detection | None:
    """What the cut catches, where a noise rate can be estimated."""
    labels = decisions.labels
    of_swapped = suspicion_of_swapped(decisions) if labels and labels.estimable else None
    return caught(decisions, of_swapped, labels.resampled) if labels and of_swapped is not None else None
