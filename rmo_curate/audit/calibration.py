"""What the evidence about labels is as a whole: its sources, how well calibrated it is, what removal does to style."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.label_noise import LabelNoise
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.style import Gap, gaps
from rmo_curate.evidence.wording import missing_text
from rmo_curate.filter.decisions import Decisions
from rmo_curate.score.logistic import sigmoid

DECILES = 10
LEAST_PAIRS = 20  # of a decile's picture


@dataclass(frozen=True)
class Decile:
    """Pairs whose evidence is about equally strong, whichever answer it favours."""

    pairs: int
    expected: float  # share of labels that agree with the evidence, by the posterior
    observed: float


@dataclass(frozen=True)
class Evidence:
    """What P(label right) is made of. With `prior`, a pair's reasons add up to the log-odds of a right label."""

    sources: tuple[str, ...]
    missing: tuple[str, ...]  # missing sources, each with the reason
    prior: float  # log-odds of a right label before any evidence
    reliability: tuple[Decile, ...]  # the weakest evidence first; empty if there are few pairs
    gaps: tuple[Gap, ...]  # how dropping pairs changes style, by feature


def evidence(posterior: Posterior, known: np.ndarray, effect: np.ndarray) -> Evidence:
    """known: pairs that are counted, bool [n]. effect: what each counts after removal [n], see `style.gaps`."""
    return Evidence(
        sources=posterior.sources,
        missing=tuple(map(missing_text, posterior.missing)),
        prior=posterior.noise.prior,
        reliability=reliability(posterior.margin[known], posterior.noise),
        gaps=tuple(gaps(posterior.style.difference[known], effect[known] != 0, effect[known])),
    )


def effects(decisions: Decisions) -> np.ndarray:
    """What each pair counts after the filter [pairs], nothing where it is dropped."""
    return np.where(decisions.kept, decisions.effect, 0.0)


def reliability(margin: np.ndarray, noise: LabelNoise) -> tuple[Decile, ...]:
    """Pairs by |margin| [n], in groups of equal size: labels that agree with the evidence, expected and observed.

    The true labels are not known, so what is compared is what both know: P(margin > 0 | |margin|).
    """
    if len(margin) < LEAST_PAIRS:
        return ()
    sure = sigmoid(noise.slope * np.abs(margin))
    expected = (1 - noise.rate) * sure + noise.rate * (1 - sure)
    agrees = (margin > 0) + 0.5 * (margin == 0)
    groups = np.array_split(np.argsort(np.abs(margin), kind="stable"), min(DECILES, len(margin) // DECILES))
    return tuple(Decile(len(g), float(expected[g].mean()), float(agrees[g].mean())) for g in groups)
