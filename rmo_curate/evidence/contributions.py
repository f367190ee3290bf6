"""What each source of evidence says about one label, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.answers import ANSWERS
from rmo_curate.evidence.gather import STYLE_SOURCE
from rmo_curate.evidence.posterior import Posterior

LEADING_FEATURES = 3  # features of style with the largest effect


@dataclass(frozen=True)
class OtherComparisons:
    """Results of the chosen and the rejected answer of a pair in other pairs of the prompt, in this order."""

    won: tuple[int, int]
    compared: tuple[int, int]


@dataclass(frozen=True)
class StyleOfChosen:
    """The features of the chosen answer's style that count most, by preferences learned from other prompts."""

    leading: tuple[tuple[str, bool], ...]  # (feature, whether the chosen answer has more of it), largest effect first
    kind: str | None  # category, or word of the prompt, whose preferences were used; None: those of all pairs
    of_word: bool = False  # whether `kind` is a word


@dataclass(frozen=True)
class Contribution:
    """What one source adds to the log-odds that the label is right; negative: against the label."""

    source: str
    log_odds: float
    comparisons: OtherComparisons | None = None  # of the source `answers`
    style: StyleOfChosen | None = None  # of the source `style`


def contributions(posterior: Posterior, pair: int) -> list[Contribution]:
    """What each source says about a pair's label, strongest evidence against it first. Together with the prior, they
    add up to the posterior's log-odds."""
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
    """The features with the largest effect in the direction that the style favours."""
    from rmo_curate.evidence.texts import STYLE

    by_feature = posterior.style.by_feature(np.array([pair]))[0]
    total = float(by_feature.sum())
    order = np.argsort(-by_feature * np.sign(total))[:LEADING_FEATURES]
    names = list(STYLE)
    difference = posterior.style.difference[pair]
    leading = tuple((names[f], bool(difference[f] > 0)) for f in order if by_feature[f] * total > 0)
    return StyleOfChosen(leading, posterior.style.kind_of(pair), posterior.style.of_words)
