"""Dual Denoising Filtering: which pairs go, and why. No file is written here.

Both thresholds are computed over all N scorable pairs before anything is dropped, so the order of the checks changes
only the reason that a dropped pair carries: too_long, then duplicate, then noisy, then ambiguous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rmo_curate.evidence.gather import JudgedLabels, with_posterior
from rmo_curate.evidence.rules import Rule, check_proxy, get_rule, sparing_supported, suspicion
from rmo_curate.filter import thresholds
from rmo_curate.filter.ambiguity import check_margin, cut_ambiguous
from rmo_curate.filter.budget import Budget, most_suspect_first, noisy_budget, paying_cut
from rmo_curate.filter.reviews import DROP, FLIP, KEEP, reviewed
from rmo_curate.filter.settings import AUTO, WEIGHING, FilterSettings
from rmo_curate.filter.slices import protected
from rmo_curate.filter.worth import Worth, best_softness, worth
from rmo_curate.runs.run import SCORED_COLUMNS, Run, Scores, Trajectory
from rmo_train.console.errors import UserError
from rmo_train.data.pairs import softened
from rmo_train.store.id_hash import Strings, places
from rmo_train.store.tables import TOO_LONG, flagged

REASONS = ("noisy", "ambiguous", "too_long", "duplicate", "decision")


@dataclass(frozen=True)
class Overrides:
    """What was asked of single pairs, whatever their scores."""

    protected: np.ndarray  # bool [pairs]
    review: np.ndarray  # int8 [pairs], see `rmo_curate.filter.reviews`

    @classmethod
    def none(cls, pairs: int) -> Overrides:
        return cls(np.zeros(pairs, dtype=bool), np.zeros(pairs, dtype=np.int8))


@dataclass(frozen=True)
class Decisions:
    """What happens to every pair; the arrays are aligned with `run.pairs()`."""

    trajectory: Trajectory
    scores: Scores
    labels: JudgedLabels | None  # as all evidence judges them; None where it was not weighed
    ids: Strings  # [pairs]
    reason: np.ndarray  # [pairs] of None (kept) or one of REASONS
    suspicion: np.ndarray  # [pairs], NaN where there is none
    ambiguity: np.ndarray  # [pairs] |margin|, NaN where there is none
    keep_probability: np.ndarray  # [pairs] of the ambiguity step, NaN where a pair is not scorable
    draw: np.ndarray  # [pairs] in [0, 1), NaN where nothing is drawn (--hard, --low-q 0)
    scorable: int  # pairs that both thresholds are computed over
    budget: Budget  # of noisy ones
    thresholds: dict[str, float | None]
    counts: dict[str, int]
    overrides: Overrides
    flipped: np.ndarray  # bool [pairs]: kept with the answers exchanged
    weight: np.ndarray  # [pairs]
    label_confidence: np.ndarray  # [pairs] P(the label as it is written is right), 1 where no evidence was weighed
    paying_softness: float | None  # how far softening labels pays, where that decides and can be told
    settings: FilterSettings

    @property
    def kept(self) -> np.ndarray:
        """bool [pairs]."""
        return self.reason == None  # noqa: E711 (elementwise)

    @property
    def doubted(self) -> int:
        """Pairs with a suspicion above 0."""
        return int((self.suspicion > 0).sum())  # False for NaN

    @property
    def called_noisy(self) -> np.ndarray:
        """bool [pairs]: those that the cut takes; where no pair is dropped as noisy, those whose label is doubted."""
        if self.settings.action in WEIGHING:
            return self.suspicion > 0  # False for NaN
        return (self.reason == "noisy") | self.flipped

    @property
    def least_suspicion(self) -> float | None:
        """Of the pairs called noisy; None if there are none."""
        if self.settings.action in WEIGHING:
            return float(self.suspicion[self.called_noisy].min()) if self.doubted else None
        return self.thresholds["suspicion"]

    @property
    def left_in_doubt(self) -> int:
        """The doubted pairs, if nothing is done about them because that is not expected to pay."""
        untouched = self.budget.cut and not self.budget.cut.pairs
        return self.doubted if untouched or self.paying_softness == 0 else 0

    @property
    def softness(self) -> float:
        """How far the trainer is to soften labels: it takes one for right with probability 1 - softness (1 - P)."""
        if self.settings.action == AUTO:
            return self.paying_softness or 0.0
        return 1.0 if self.settings.action == "soft-label" else 0.0

    @property
    def effect(self) -> np.ndarray:
        """What each pair counts in training, kept ones [pairs]: against its label as given where it is flipped, in part
        where it is weighed or its label is softened."""
        counts = 2 * softened(self.label_confidence, self.softness) - 1
        return np.where(self.flipped, -1.0, 1.0) * self.weight * counts


def decide(run: Run, settings: FilterSettings) -> Decisions:
    """Decide on every pair of a run."""
    trajectory = run.trajectory(settings.end)
    rule = get_rule(settings.rule)
    check_proxy(rule, run, trajectory)
    check_margin(run, trajectory, settings)
    pairs = run.pairs([*SCORED_COLUMNS, "tokens_sha"])
    too_long = flagged(pairs, TOO_LONG)
    if too_long.all():
        raise UserError(
            f"{run.folder}: all of its pairs ({len(too_long):,}) are longer than {run.manifest.max_length} tokens, so "
            "none was scored; score again with a larger --max-length, or give shorter pairs"
        )
    duplicate = repeats(pairs["tokens_sha"])
    pairs = pairs.select(SCORED_COLUMNS)  # the other column, 64 bytes a pair, is read no more
    ids = pairs["id"]
    overrides = Overrides.none(len(ids))
    if settings.protect:
        overrides = replace(overrides, protected=protected(run, settings.protect))
    if settings.decisions is not None:
        overrides = replace(overrides, review=reviewed(settings.decisions, ids))
    scores = run.scores(trajectory, pairs)
    if settings.score_column is not None:
        scores = replace(scores, external=run.external_margin(settings.score_column))
    if settings.weighs_evidence:
        scores = with_posterior(run, scores, settings)
    return decide_scored(ids, too_long, duplicate, scores, trajectory, settings, overrides)


def decide_scored(
    ids: Strings,
    too_long: np.ndarray,
    duplicate: np.ndarray,
    scores: Scores,
    trajectory: Trajectory,
    settings: FilterSettings,
    overrides: Overrides | None = None,
) -> Decisions:
    """`decide` on what it read: ids, too_long, duplicate [pairs] and their scores. No input or output."""
    overrides = overrides or Overrides.none(len(ids))
    scorable = ~too_long
    n = int(scorable.sum())
    labels = JudgedLabels.of_scores(scores) if scores.posterior is not None else None
    plain, rule = get_rule(settings.rule), noisy_rule(settings)
    s = suspicion(plain, scores)  # refused where the rule itself, nothing spared, cannot rank
    if rule is not plain:
        s = rule.suspicion(scores)
    budget = noisy_budget(rule, scores, labels, s, n, settings)
    noisy = thresholds.most_suspect(s, ids, budget.pairs)
    cut = cut_ambiguous(ids, scores, trajectory, settings)

    free = ~overrides.protected
    flipped = noisy & free if settings.action == "flip" else np.zeros(len(ids), dtype=bool)
    by_reason = {
        "ambiguous": cut.dropped & free & ~flipped,
        "noisy": noisy & free & ~flipped,
        "duplicate": duplicate,
        "too_long": too_long,
    }
    code, flipped = settled(by_reason, flipped, overrides)
    right = np.ones(len(ids)) if labels is None else np.nan_to_num(labels.right, nan=1.0)
    certain = overrides.protected | (overrides.review == KEEP) | (overrides.review == FLIP)
    confidence = np.where(certain, 1.0, np.where(flipped, 1 - right, right))
    tally = np.bincount(code, minlength=1 + len(REASONS)).tolist()
    counts = {"pairs": len(ids), **dict(zip(("kept", *REASONS), tally, strict=True))}
    return Decisions(
        trajectory=trajectory,
        scores=scores,
        labels=labels,
        ids=ids,
        reason=np.array([None, *REASONS], dtype=object)[code],
        suspicion=s,
        ambiguity=cut.ambiguity,
        keep_probability=cut.keep_probability,
        draw=cut.draw,
        scorable=n,
        budget=budget,
        thresholds={
            "noisy_budget": budget.pairs,
            "suspicion": float(s[noisy].min()) if noisy.any() else None,
            "tau": cut.tau,
            "gamma": cut.gamma,
        },
        counts=counts,
        overrides=overrides,
        flipped=flipped,
        weight=confidence if settings.action == "weight" else np.ones(len(ids)),
        label_confidence=confidence,
        paying_softness=softness_of(labels) if settings.action == AUTO else None,
        settings=settings,
    )


def settled(
    by_reason: Mapping[str, np.ndarray], flipped: np.ndarray, overrides: Overrides
) -> tuple[np.ndarray, np.ndarray]:
    """What is done with each pair: int8 [pairs], 0 = kept, else 1 + its reason's place in REASONS; and bool [pairs],
    kept with the answers exchanged.

    `by_reason`: where each holds, bool [pairs]; of several the last one is told. A reviewer's word is above all of
    them, but a pair without scores cannot be kept.
    """
    code = np.zeros(len(flipped), dtype=np.int8)
    for name, dropped in by_reason.items():
        code[dropped] = 1 + REASONS.index(name)
    review = np.where(by_reason["too_long"] & (overrides.review != DROP), 0, overrides.review)
    code[(review == KEEP) | (review == FLIP)] = 0
    code[review == DROP] = 1 + REASONS.index("decision")
    return code, ((flipped & (review == 0)) | (review == FLIP)) & (code == 0)


def noisy_rule(settings: FilterSettings) -> Rule:
    """The rule that says which pairs are noisy.

    A label that the evidence on the whole supports is no noise, whatever may go. A rule of margins asks its own
    statistic only, as a preset's and a quantile's do; where all evidence is weighed for how many may go, it is asked of
    each pair, too. Controls and a score of the user's are no part of that evidence and stay as they are.
    """
    rule = get_rule(settings.rule)
    return sparing_supported(rule) if settings.weighs_evidence and rule.needs_proxy else rule


def softness_of(labels: JudgedLabels | None) -> float | None:
    """How far softening labels pays; None where it cannot be told."""
    if labels is None or not labels.estimable:
        return None
    return best_softness(labels.right, labels.margin, labels.resampled)


def worth_of(decisions: Decisions, labels: JudgedLabels) -> Worth:
    """What each action makes the labels worth, and what these decisions do where they are of another kind."""
    settings, posterior = decisions.settings, decisions.scores.posterior
    assert posterior is not None
    noisy = (decisions.reason == "noisy") | (decisions.flipped & (decisions.overrides.review != FLIP))
    left = np.full(len(noisy), True)
    for name in ("ambiguous", "duplicate", "decision"):
        if decisions.counts[name]:
            left &= decisions.reason != name
    if settings.action == "drop" and decisions.budget.cut:
        stays, decided = ~noisy, None
    else:
        stays = np.full(len(noisy), True)
        order = most_suspect_first(labels, -posterior.log_odds)
        stays[order[: paying_cut(labels, order, decisions.scorable).pairs]] = False
        instead = -1.0 if settings.action == "flip" else 0.0
        decided = None if settings.action in WEIGHING else np.where(noisy, instead, 1.0)
    softness = decisions.paying_softness
    if softness is None:
        softness = best_softness(labels.right, labels.margin, labels.resampled)
    return worth(labels.right, labels.margin, labels.resampled, softness, stays, left, decided)


def repeats(tokens_sha: Strings) -> np.ndarray:
    """Which pairs have the same tokens as an earlier one: bool [pairs]."""
    first = places(tokens_sha, tokens_sha)
    return (first >= 0) & (first < np.arange(len(first)))
