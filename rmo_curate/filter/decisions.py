"""Dual Denoising Filtering: which pairs go, and why. No file is written here.

Both thresholds are computed over all N scorable pairs before anything is dropped, so the order of the checks changes
only the reason that a dropped pair carries: too_long, then duplicate, then noisy, then ambiguous.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rmo_curate.evidence import canaries
from rmo_curate.evidence.expected import outlook
from rmo_curate.evidence.gather import with_posterior
from rmo_curate.evidence.label_noise import Resampled
from rmo_curate.evidence.lengths import FOLLOWING_LENGTH, Lengths
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.rules import Rule, check_proxy, get_rule, is_constant, suspicion
from rmo_curate.evidence.style import gaps
from rmo_curate.evidence.wording import evidence_line, gap_lines, lengths_line, outlook_lines
from rmo_curate.filter import thresholds, worth
from rmo_curate.filter.reviews import ACTIONS, DROP, FLIP, KEEP, reviewed
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.filter.slices import protected, removal_lines
from rmo_curate.runs import margins
from rmo_curate.runs.run import SCORED_COLUMNS, Run, Scores, Trajectory, adding_a_proxy, flagged
from rmo_train.console.errors import UserError
from rmo_train.store.id_hash import Strings, places

REASONS = ("noisy", "ambiguous", "too_long", "duplicate", "decision")

AUTHORS_RANGE = 10.0  # nats; the constant of the authors' script
FLIP_RATE = 0.2  # of the remark on recall
HEAVY_REMOVAL = 0.3  # share of the pairs beyond which removal is reported to cost more than it brings


@dataclass(frozen=True)
class Decisions:
    """What happens to every pair; the arrays are aligned with `run.pairs()`."""

    trajectory: Trajectory
    scores: Scores
    ids: Strings  # [pairs]
    reason: np.ndarray  # [pairs] of None (kept) or one of REASONS
    suspicion: np.ndarray  # [pairs], NaN where there is none
    ambiguity: np.ndarray  # [pairs] |margin|, NaN where there is none
    keep_probability: np.ndarray  # [pairs] of the ambiguity step, NaN where a pair is not scorable
    draw: np.ndarray  # [pairs] in [0, 1), NaN where nothing is drawn (--hard, --low-q 0)
    thresholds: dict[str, float | None]
    counts: dict[str, int]
    flipped: np.ndarray  # bool [pairs]: kept with the answers exchanged
    weight: np.ndarray  # [pairs]
    label_confidence: np.ndarray  # [pairs] P(the label as it is written is right), 1 where no evidence was weighed
    said: list[str]
    settings: FilterSettings  # with `auto` resolved

    @property
    def softens(self) -> bool:
        """Whether the trainer is to soften labels by their confidence."""
        return self.settings.action == "soft-label"

    @property
    def effect(self) -> np.ndarray:
        """What each pair counts in training, kept ones [pairs]: against its label as given where it is flipped, in part
        where it is weighed or its label is softened."""
        softened = 2 * self.label_confidence - 1 if self.softens else 1.0
        return np.where(self.flipped, -1.0, 1.0) * self.weight * softened


@dataclass(frozen=True)
class Wishes:
    """What was asked of single pairs."""

    protected: np.ndarray  # bool [pairs]
    review: np.ndarray  # int8 [pairs], see `rmo_curate.filter.reviews`

    @classmethod
    def none(cls, pairs: int) -> Wishes:
        return cls(np.zeros(pairs, dtype=bool), np.zeros(pairs, dtype=np.int8))


@dataclass(frozen=True)
class Cut:
    """The ambiguity step's result."""

    ambiguity: np.ndarray  # [pairs]
    keep_probability: np.ndarray
    draw: np.ndarray
    dropped: np.ndarray  # bool
    tau: float | None
    gamma: float | None


def decide(run: Run, settings: FilterSettings) -> Decisions:
    """Decide on every pair of a run."""
    trajectory = run.trajectory(settings.proxy)
    rule = get_rule(settings.rule)
    check_proxy(rule, run, trajectory)
    check_margin(run, trajectory, settings)
    pairs = run.pairs([*SCORED_COLUMNS, "tokens_sha"])
    too_long = flagged(pairs, "too_long")
    if too_long.all():
        raise UserError(
            f"{run.folder}: none of its {len(too_long)} pairs is scorable ({too_long.sum()} are longer than "
            f"{run.manifest['max_length']} tokens); score data with pairs that fit, or with a larger --max-length"
        )
    duplicate = repeats(pairs["tokens_sha"])
    pairs = pairs.select(SCORED_COLUMNS)  # the other column, 64 bytes a pair, is read no more
    ids = pairs["id"]
    wishes = Wishes.none(len(ids))
    if settings.protect:
        wishes = replace(wishes, protected=protected(run, settings.protect))
    if settings.decisions is not None:
        wishes = replace(wishes, review=reviewed(settings.decisions, ids))
    scores = run.scores(trajectory, pairs)
    if settings.score_column is not None:
        scores = replace(scores, external=run.external_margin(settings.score_column))
    if settings.weighs_evidence:
        scores = with_posterior(run, scores, settings)
    found = decide_scored(ids, too_long, duplicate, scores, trajectory, settings, wishes)
    removed = found.reason != None  # noqa: E711 (elementwise)
    return replace(found, said=[*found.said, *evidence_lines(found, ~removed), *removal_lines(run, removed)])


def decide_scored(
    ids: Strings,
    too_long: np.ndarray,
    duplicate: np.ndarray,
    scores: Scores,
    trajectory: Trajectory,
    settings: FilterSettings,
    wishes: Wishes | None = None,
) -> Decisions:
    """`decide` on what it read: ids, too_long, duplicate [pairs] and their scores. No input or output."""
    wishes = wishes or Wishes.none(len(ids))
    settings = resolved(settings, scores)
    scorable = ~too_long
    n = int(scorable.sum())
    rule = get_rule(settings.rule)
    s = suspicion(rule, scores)
    limit = noisy_limit(rule, scores, s, n, settings)
    budget = limit.pairs
    noisy = thresholds.most_suspect(s, ids, budget)
    cut = (
        authors_range(scores) if settings.preset == "authors-code" else low_quantile(ids, scores, trajectory, settings)
    )

    free = ~wishes.protected
    flipped = noisy & free if settings.action == "flip" else np.zeros(len(ids), dtype=bool)
    by_reason = {
        "ambiguous": cut.dropped & free & ~flipped,
        "noisy": noisy & free & ~flipped,
        "duplicate": duplicate,
        "too_long": too_long,
    }
    code = np.zeros(len(ids), dtype=np.int8)  # 0 = kept, else 1 + the reason's place in REASONS
    for name, dropped in by_reason.items():  # the last one that holds is the one that is told
        code[dropped] = 1 + REASONS.index(name)
    review = np.where(too_long & (wishes.review != DROP), 0, wishes.review)  # without scores a pair cannot be kept
    code[(review == KEEP) | (review == FLIP)] = 0
    code[review == DROP] = 1 + REASONS.index("decision")
    flipped = ((flipped & (review == 0)) | (review == FLIP)) & (code == 0)
    right = right_probability(scores)
    certain = wishes.protected | (review == KEEP) | (review == FLIP)
    confidence = np.where(certain, 1.0, np.where(flipped, 1 - right, right))
    tally = np.bincount(code, minlength=1 + len(REASONS)).tolist()
    counts = {"pairs": len(ids), **dict(zip(("kept", *REASONS), tally, strict=True))}
    limits = {
        "noisy_budget": budget,
        "suspicion": float(s[noisy].min()) if noisy.any() else None,
        "tau": cut.tau,
        "gamma": cut.gamma,
    }
    said = [
        *remarks(counts, limits, limit, n, trajectory, settings),
        *length_lines(scores, settings),
        *asked_lines(flipped, wishes, too_long, settings),
    ]
    return Decisions(
        trajectory,
        scores,
        ids,
        np.array([None, *REASONS], dtype=object)[code],
        s,
        cut.ambiguity,
        cut.keep_probability,
        cut.draw,
        limits,
        counts,
        flipped,
        confidence if settings.action == "weight" else np.ones(len(ids)),
        confidence,
        said,
        settings,
    )


@dataclass(frozen=True)
class Limit:
    """How many noisy pairs there may be at most, and where that number is from."""

    pairs: int
    said: str


def noisy_limit(rule: Rule, scores: Scores, s: np.ndarray, n: int, settings: FilterSettings) -> Limit:
    """The budget of noisy pairs among n scorable ones, by --high-q, --noise-rate or --precision."""
    if not rule.ranks or settings.action in ("weight", "soft-label"):
        return Limit(0, "none")
    if settings.noise_rate is None and settings.precision is None:
        return Limit(thresholds.noisy_budget(n, settings.high_q), f"--high-q {settings.high_q:g}")
    if settings.noise_rate not in (None, "auto"):
        rate = float(settings.noise_rate)
        return Limit(thresholds.noisy_budget(n, 1 - rate), f"--noise-rate {rate:g}")
    assert scores.posterior is not None
    found = Resampled(margins.where_scored(scores.posterior.margin, scores), scores.posterior.groups).rate
    estimated = f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"
    if settings.precision is None:
        return Limit(int(found.value * n), f"--noise-rate auto: {estimated} of the labels are wrong")
    pairs = canaries.budget_of_precision(s, rule.suspicion_of_swapped(scores), found.value, settings.precision)
    if not pairs:
        return Limit(0, f"--precision {settings.precision:g} is not reached at any cut (noise rate {estimated})")
    return Limit(pairs, f"--precision {settings.precision:g} by canaries, at a noise rate of {estimated}")


def resolved(settings: FilterSettings, scores: Scores) -> FilterSettings:
    """The settings with `--action auto` as what makes these labels worth most."""
    if settings.action != "auto":
        return settings
    assert scores.posterior is not None
    best = worth.best_action(known_right(scores, scores.posterior))
    if best == "drop":
        return settings.model_copy(update={"action": "drop", "noise_rate": "auto"})
    return settings.model_copy(update={"action": best} if best else {"action": "drop", "high_q": 1.0})


def known_right(scores: Scores, posterior: Posterior) -> np.ndarray:
    """P(the label is right) of the pairs that have scores."""
    right = margins.where_scored(posterior.right, scores)
    return right[np.isfinite(right)]


def right_probability(scores: Scores) -> np.ndarray:
    """P(the label is right) [pairs], by the posterior of all evidence; 1 where it was not computed."""
    if scores.posterior is None:
        return np.ones(len(scores.chosen_tokens))
    return np.nan_to_num(margins.where_scored(scores.posterior.right, scores), nan=1.0)


def evidence_lines(decided: Decisions, kept: np.ndarray) -> list[str]:
    """What the labels were judged by, how many are wrong by that, and what the decisions do to length and style."""
    posterior = decided.scores.posterior
    if posterior is None:
        return []
    return [
        evidence_line(posterior.sources, posterior.missing),
        f"an estimated {posterior.noise.rate:.0%} of the labels are wrong",
        *worth.lines(known_right(decided.scores, posterior)),
        *outlook_lines(outlook(len(kept), scored=decided.trajectory.end is not None)),
        *(f"style: {line}" for line in gap_lines(gaps(posterior.style.difference, kept, decided.effect))),
    ]


def length_lines(scores: Scores, settings: FilterSettings) -> list[str]:
    """Whether the lengths of the answers mislead a rule, where one is used."""
    if settings.rule == "none":
        return []
    lengths = Lengths.of(scores)
    misled = settings.rule in FOLLOWING_LENGTH and not lengths.alike
    return [f"{'warning: ' if misled else ''}{lengths_line(lengths)}"]


def asked_lines(flipped: np.ndarray, wishes: Wishes, too_long: np.ndarray, settings: FilterSettings) -> list[str]:
    """What actions, protected slices and reviewers changed, a line each."""
    lines = []
    if flipped.any():
        lines.append(f"{flipped.sum():,} of the kept pairs are flipped: chosen and rejected are exchanged")
    if settings.action in ("weight", "soft-label"):
        column = {"weight": "weight", "soft-label": "label_confidence"}[settings.action]
        lines.append(
            f"noisy: --action {settings.action}, so none is dropped; `{column}` is the probability that a pair's label "
            "is right"
        )
    if wishes.protected.any():
        lines.append(f"{wishes.protected.sum():,} pairs are protected ({', '.join(settings.protect)})")
    if wishes.review.any():
        said = [f"{(wishes.review == code).sum():,} {name}" for code, name in enumerate(ACTIONS, start=1)]
        lines.append(f"reviewed: {', '.join(said)}")
    if (stuck := too_long & np.isin(wishes.review, (KEEP, FLIP))).any():
        lines.append(f"warning: {stuck.sum():,} pairs that a reviewer keeps are too long and have no scores: dropped")
    return lines


def repeats(tokens_sha: Strings) -> np.ndarray:
    """Which pairs have the same tokens as an earlier one: bool [pairs]."""
    first = places(tokens_sha, tokens_sha)
    return (first >= 0) & (first < np.arange(len(first)))


def check_margin(run: Run, trajectory: Trajectory, settings: FilterSettings) -> None:
    """Without a T the reward margin is 0 everywhere, so nothing can be told ambiguous by it."""
    if trajectory.end is None and settings.low_q > 0 and settings.margin == "reward":
        raise UserError(
            f"--low-q {settings.low_q:g} with --margin reward needs a proxy, since the reward margin of the base is 0, "
            f"and {run.folder} has scores of the base only; take --margin logp or mean_logp (the base's own margin), "
            f"--low-q 0, or {adding_a_proxy(run.folder)}"
        )


def low_quantile(ids: Strings, scores: Scores, trajectory: Trajectory, settings: FilterSettings) -> Cut:
    """tau = the low_q quantile of |margin_T|; soft: drop where the pair's draw < P(drop); hard: drop below tau.

    A pair exactly at tau stays in a hard cut.
    """
    a = np.abs(margins.MARGINS[settings.margin](scores))
    if trajectory.end is None and settings.margin == "reward":
        a = np.full_like(a, np.nan)  # 0 by definition, which tells nothing
    scorable = np.isfinite(scores.chosen_logp[:, -1])
    nothing = np.full(len(a), np.nan)
    if settings.low_q == 0:
        return Cut(a, np.where(scorable, 1.0, np.nan), nothing, np.zeros(len(a), dtype=bool), None, None)
    if is_constant(a):
        raise UserError(
            f"--low-q {settings.low_q:g}: every pair has the same {settings.margin} margin under {scores.names[-1]!r} "
            f"({np.nanmax(a):.6g}), so none is more ambiguous than another; take another --margin or --proxy, "
            "or --low-q 0"
        )
    tau = float(np.quantile(a[scorable], settings.low_q))
    if settings.hard:
        dropped = a < tau
        return Cut(a, np.where(scorable, 1.0 - dropped, np.nan), nothing, dropped, tau, None)
    p_drop = thresholds.drop_probability(a, tau)
    draw = thresholds.draws(settings.seed, ids)
    return Cut(a, 1 - p_drop, draw, draw < p_drop, tau, tau / thresholds.STEEPNESS)


def authors_range(scores: Scores) -> Cut:
    """The authors' script: drop where |D_0| <= 10 and |D_T| <= 10 nats, whatever the data's scale."""
    a = np.maximum(np.abs(margins.logp(scores, 0)), np.abs(margins.logp(scores)))
    dropped = a <= AUTHORS_RANGE
    keep = np.where(np.isfinite(a), 1.0 - dropped, np.nan)
    return Cut(a, keep, np.full(len(a), np.nan), dropped, AUTHORS_RANGE, None)


def remarks(
    counts: dict[str, int],
    limits: dict[str, Any],
    limit: Limit,
    n: int,
    trajectory: Trajectory,
    settings: FilterSettings,
) -> list[str]:
    """What a user should know of these decisions, a line each."""
    shown = ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in REASONS if name != "decision")
    said = [f"{counts['pairs']:,} pairs = {counts['kept']:,} kept + {shown}"]
    end = trajectory.end
    if end is not None:
        held_out = {
            True: "held out",
            False: "NOT held out: it was trained on these pairs, so flips that it memorised look clean",
            None: "whether it was held out is unknown",
        }[end.held_out]
        folds = f" ({end.folds} folds)" if end.cross_fitted else ""
        said.append(f"T = {end.name}{folds}, {held_out}")
    if settings.rule == "none":
        said.append("noisy: --rule none, so none is dropped")
    elif settings.action in ("drop", "flip"):
        says_odds = get_rule(settings.rule).says_odds
        only = "where the label is more likely wrong than right" if says_odds else "with suspicion > 0"
        least = ""
        if (cut := limits["suspicion"]) is not None:
            likely = f"is {1 / (1 + math.exp(cut)):.0%} likely to be right" if says_odds else f"has {cut:.4g}"
            least = f"; the least suspect of them {likely}"
        said.append(
            f"noisy: --rule {settings.rule}, at most {limits['noisy_budget']:,} of {n:,} scorable pairs "
            f"({limit.said}), and only {only}{least}"
        )
        if settings.noise_rate is None and settings.precision is None:
            most = min(1.0, (1 - settings.high_q) / FLIP_RATE)
            said.append(
                f"if {FLIP_RATE:.0%} of pairs are flipped, --high-q {settings.high_q:g} finds at most {most:.0%} "
                "of them"
            )
    if settings.preset == "authors-code":
        said.append(f"ambiguous: |D_0| and |D_T| both at most {AUTHORS_RANGE:g} nats, the authors' constant")
    elif limits["tau"] is not None:
        unit = "nats per token" if settings.margin == "mean_logp" else "nats"
        how = "hard cut" if settings.hard else f"soft cut of width gamma = {limits['gamma']:.4g}"
        said.append(
            f"ambiguous: |{settings.margin} margin| of {trajectory.names[-1]} around tau = {limits['tau']:.4g} {unit} "
            f"(--low-q {settings.low_q:g}), {how}"
        )
    removed = 1 - counts["kept"] / counts["pairs"]
    if removed > HEAVY_REMOVAL:
        said.append(
            f"warning: {removed:.0%} of the pairs are removed; beyond {HEAVY_REMOVAL:.0%} the loss of data is reported "
            "to cost more than the noise did: compare with a random drop of the same size"
        )
    return said
