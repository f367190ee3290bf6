"""Margins: a checkpoint's log-prob of the chosen response minus that of the rejected one.

Pure functions of a run's `Scores`. Notation: l_m(y) is the summed log-prob (nats) of response y under checkpoint m;
checkpoint 0 is the base. A pair without scores has NaN in every column, and therefore a NaN margin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rmo_curate.runs.run import Scores

MAD_TO_SD = 1.4826  # standard deviation / median absolute deviation of a normal distribution


def logp(scores: Scores, m: int = -1) -> np.ndarray:
    """D_m = l_m(chosen) - l_m(rejected): [pairs], nats. Grows with the responses' lengths."""
    return scores.chosen_logp[:, m] - scores.rejected_logp[:, m]


def mean_logp(scores: Scores, m: int = -1) -> np.ndarray:
    """l_m(chosen)/|chosen| - l_m(rejected)/|rejected|: [pairs], nats per token."""
    return scores.chosen_logp[:, m] / scores.chosen_tokens - scores.rejected_logp[:, m] / scores.rejected_tokens


def reward(scores: Scores, m: int = -1) -> np.ndarray:
    """D_m - D_0: [pairs], nats; 0 at the base.

    DPO's implicit reward margin without its beta (Rafailov et al. 2023, eq. 5).
    """
    return logp(scores, m) - logp(scores, 0)


MARGINS: dict[str, Callable[..., np.ndarray]] = {"reward": reward, "logp": logp, "mean_logp": mean_logp}


def length_terms(chosen_tokens: np.ndarray, rejected_tokens: np.ndarray) -> np.ndarray:
    """Difference in length of a pair's answers: [pairs, 3]: its sign, in tokens, and in log tokens.

    Each is scaled to unit size on these pairs (0 if no pair differs) and changes its sign when the pair is swapped.
    Fits that must not mistake length for quality include these terms as covariates, and omit them when scoring a pair.
    """
    difference = np.asarray(chosen_tokens, dtype=np.float64) - rejected_tokens
    terms = np.stack([np.sign(difference), difference, np.sign(difference) * np.log1p(np.abs(difference))], axis=1)
    size = np.sqrt(np.mean(terms**2, axis=0)) if len(terms) else np.ones(3)
    return terms / np.where(size > 0, size, 1.0)


def swapped(scores: Scores) -> Scores:
    """The same pairs with chosen and rejected exchanged: every margin changes its sign, exactly."""
    return replace(
        scores,
        chosen_logp=scores.rejected_logp,
        rejected_logp=scores.chosen_logp,
        chosen_tokens=scores.rejected_tokens,
        rejected_tokens=scores.chosen_tokens,
        external=None if scores.external is None else -scores.external,
        posterior=None if scores.posterior is None else scores.posterior.swapped(),
    )


def where_scored(values: np.ndarray, scores: Scores) -> np.ndarray:
    """`values` [pairs] that do not depend on scores, with NaN for pairs without scores, which no rule ranks."""
    return np.where(np.isfinite(scores.chosen_logp[:, 0]), values, np.nan)


def on_one_scale(margin: np.ndarray, scores: Scores) -> np.ndarray:
    """`margin` [pairs] of the last checkpoint divided by its fold's MAD around 0 (median |margin| x 1.4826); unitless.

    Proxies of different folds have margins of different size, and the largest would fill every top list. The MAD is
    around 0, not around the median, so that a margin keeps its sign and swapping a pair negates it.
    """
    scaled = np.full(len(margin), np.nan)
    fold = np.full(len(margin), -1) if scores.fold is None else scores.fold
    for k in np.unique(fold):
        rows = fold == k
        known = np.abs(margin[rows & np.isfinite(margin)])
        mad = MAD_TO_SD * float(np.median(known)) if len(known) else 0.0
        scaled[rows] = margin[rows] / mad if mad > 0 else margin[rows]
    return scaled
