"""Kinds of prompt with preferences of their own: what is wanted of a poem is not what is wanted of a proof.

A category's fit starts from that of all pairs and adds deviations, learned from the category's pairs alone. They are
used only if they predict held-out labels better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from rmo_curate.score import logistic

LEAST_PAIRS = 40  # minimum for a category to have preferences of its own
MOST_PAIRS = 5000  # maximum that the deviations of a category are learned from
MOST_CATEGORIES = 200  # the largest; bounds the memory of the weights
LEAST_GAIN = 2.0  # nats of all held-out labels together, by which deviations must predict them better

Fit = Callable[[np.ndarray, float, np.ndarray], np.ndarray]  # rows, penalty, known log-odds -> weights


@dataclass(frozen=True)
class Categories:
    """The categories that are large enough: `of` is each pair's, int [pairs], counted from 1; 0: none of these."""

    of: np.ndarray
    names: tuple[str, ...] = ()  # in the order of their numbers

    @classmethod
    def none(cls, pairs: int) -> Categories:
        return cls(np.zeros(pairs, dtype=np.int64))

    @classmethod
    def among(cls, values: np.ndarray) -> Categories:
        """values: str [pairs], "" if unknown. A single kind of all pairs is none."""
        kinds, numbers, counts = np.unique(values, return_inverse=True, return_counts=True)
        counts = np.where(kinds == "", 0, counts)
        large = np.argsort(-counts, kind="stable")[:MOST_CATEGORIES]
        own = np.zeros(len(kinds), dtype=bool)
        own[large[(counts[large] >= LEAST_PAIRS) & (counts[large] < len(values))]] = True
        return cls(np.where(own, np.cumsum(own), 0)[numbers], tuple(kinds[own].tolist()))


@dataclass(frozen=True)
class CategoryFit:
    """Held-out log-odds of every pair, and what they were computed with."""

    margin: np.ndarray  # float64 [pairs]
    weights: np.ndarray  # [folds, 1 + categories, features]; those of all pairs first
    categories: Categories  # none if their deviations predict no better
    penalty: float | None  # of the deviations; None: there are none


def fit_categories(
    x: np.ndarray,
    folds: np.ndarray,
    categories: Categories,
    of_all: logistic.CrossFit,
    penalties: Sequence[float],
    fit: Fit = logistic.fit,
    afresh: bool = False,
) -> CategoryFit:
    """Deviations from `of_all`, the cross-fit of all pairs on the same rows x [pairs, features] and folds [pairs].

    fit: of a category's deviations, with a ridge or the lasso. Their penalty is the one that predicts held-out labels
    best, tried from the strongest until a weaker one is worse. afresh: also try categories that have nothing in common.
    """
    none = CategoryFit(of_all.margin, of_all.weights[:, None], Categories.none(len(x)), None)
    if not categories.names:
        return none
    alone = logistic.least_loss(of_all.margin)
    starts = (of_all.weights, np.zeros_like(of_all.weights)) if afresh else (of_all.weights,)
    fits = [
        logistic.strongest_first(
            penalties,
            partial(_with_deviations, x, folds, categories, of_all, start, fit),
            lambda fitted: fitted.margin,
        )
        for start in starts
    ]
    best = min(fits, key=lambda fitted: logistic.least_loss(fitted.margin))
    return best if len(x) * (alone - logistic.least_loss(best.margin)) >= LEAST_GAIN else none


def _with_deviations(
    x: np.ndarray,
    folds: np.ndarray,
    categories: Categories,
    of_all: logistic.CrossFit,
    start: np.ndarray,
    fit: Fit,
    penalty: float,
) -> CategoryFit:
    """start: weights [folds, features] that the categories deviate from; other pairs are judged by `of_all`."""
    margin = of_all.margin.copy()
    weights = np.repeat(of_all.weights[:, None], 1 + len(categories.names), axis=1)
    for fold, number in product(np.unique(folds), range(1, 1 + len(categories.names))):
        own, asked = categories.of == number, folds == fold
        rows = np.flatnonzero(own & ~asked)
        if len(rows):
            rows = rows[:: -(-len(rows) // MOST_PAIRS)]
            weights[fold, number] = start[fold] + fit(x[rows], penalty, x[rows] @ start[fold])
            margin[own & asked] = x[own & asked] @ weights[fold, number]
    return CategoryFit(margin, weights, categories, penalty)
