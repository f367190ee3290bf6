"""What each source of evidence says of one label, in numbers: why that label is believed or doubted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.answers import ANSWERS
from rmo_curate.evidence.gather import STYLE_SOURCE
from rmo_curate.evidence.posterior import Posterior

LEADING_FEATURES = 3  # of style, those that weigh most


@dataclass(frozen=True)
class OtherComparisons:
    """How the chosen and the rejected answer of a pair did in other pairs of the prompt, in this order."""

    won: tuple[int, int]
    compared: tuple[int, int]


@dataclass(frozen=True)
class StyleOfChosen:
    """What of the chosen answer's style decides, by the taste learned from other prompts."""

    leading: tuple[tuple[str, bool], ...]  # (feature, whether the chosen answer has more of it), what weighs most first
    category: str | None  # whose taste it is; None: that of all pairs


@dataclass(frozen=True)
class Contribution:
    """What one source adds to the log-odds of a right label; below 0 it speaks against the label."""

    source: str
    log_odds: float
    comparisons: OtherComparisons | None = None  # of the source `answers`
    style: StyleOfChosen | None = None  # of the source `style`


def contributions(posterior: Posterior, pair: int) -> list[Contribution]:
    """What each source says of a pair's label, what speaks loudest against it first; with the prior, log-odds add up to
    the posterior's."""
    each = [
        Contribution(
            source,
            float(value),
            other_comparisons(posterior, pair) if source == ANSWERS else None,
            style_of_chosen(posterior, pair) if source == STYLE_SOURCE else None,
        )
        for source, value in zip(posterior.sources, posterior.contributions(pair), strict=True)
        if value != 0
    ]
    return sorted(each, key=lambda one: one.log_odds)


def other_comparisons(posterior: Posterior, pair: int) -> OtherComparisons:
    chosen, rejected = posterior.won[pair].tolist()
    of_chosen, of_rejected = posterior.compared[pair].tolist()
    return OtherComparisons((chosen, rejected), (of_chosen, of_rejected))


def style_of_chosen(posterior: Posterior, pair: int) -> StyleOfChosen:
    """The features that weigh most on the side that its style speaks for."""
    from rmo_curate.evidence.texts import STYLE

    by_feature = posterior.style.by_feature(np.array([pair]))[0]
    total = float(by_feature.sum())
    order = np.argsort(-by_feature * np.sign(total))[:LEADING_FEATURES]
    names = list(STYLE)
    difference = posterior.style.difference[pair]
    leading = tuple((names[f], bool(difference[f] > 0)) for f in order if by_feature[f] * total > 0)
    return StyleOfChosen(leading, posterior.style.category_of(pair))
