"""Which pairs are ambiguous: those whose margin is near 0, by a quantile of it or by the authors' constant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.rules import is_constant
from rmo_curate.filter import thresholds
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs import margins
from rmo_curate.runs.run import Run, Scores, Trajectory, adding_a_proxy
from rmo_train.console.errors import UserError
from rmo_train.store.id_hash import Strings

AUTHORS_RANGE = 10.0  # nats; the constant of the authors' script


@dataclass(frozen=True)
class Cut:
    """The ambiguity step's result."""

    ambiguity: np.ndarray  # [pairs] |margin|, NaN where there is none
    keep_probability: np.ndarray  # [pairs]
    draw: np.ndarray  # [pairs]
    dropped: np.ndarray  # bool [pairs]
    tau: float | None
    gamma: float | None


def check_margin(run: Run, trajectory: Trajectory, settings: FilterSettings) -> None:
    """Without a T the reward margin is 0 everywhere, so nothing can be told ambiguous by it."""
    if trajectory.end is None and settings.low_q > 0 and settings.margin == "reward":
        raise UserError(
            f"--low-q {settings.low_q:g} with --margin reward needs a proxy, since the reward margin of the base is 0, "
            f"and {run.folder} has scores of the base only; take --margin logp or mean_logp (the base's own margin), "
            f"--low-q 0, or {adding_a_proxy(run.folder)}"
        )


def cut_ambiguous(ids: Strings, scores: Scores, trajectory: Trajectory, settings: FilterSettings) -> Cut:
    if settings.preset == "authors-code":
        return authors_range(scores)
    return low_quantile(ids, scores, trajectory, settings)


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
            f"({np.nanmax(a):.6g}), so none is more ambiguous than another; take another --margin or --end, "
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
