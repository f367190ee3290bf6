"""Evidence from the style of answers: judges prefer some styles, and a label against that is less likely right.

Dropping pairs that contradict a preference makes the remaining data more one-sided than the truth; `gaps` measures
this effect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rmo_curate.evidence.prompt_words import PromptWords, fit_words
from rmo_curate.score import logistic
from rmo_curate.score.categories import Categories, fit_categories

RIDGES = (1.0, 3.0, 10.0, 30.0, 100.0)  # on the weights of features of unit size, divided by the root of their number
LASSO = (1.0, 1.5, 2.0, 3.0, 4.0)  # strengths, where few features count: those that a kind of prompt asks for
MANY = 50_000  # pairs, beyond which the penalty on so few weights changes nothing: the lasso of all pairs is not tried
LEAST_GAP = 0.15  # minimum difference between chosen and rejected answers to report, in sd


@dataclass(frozen=True)
class Style:
    """Which styles win in n pairs, learned from the pairs of the other folds."""

    difference: np.ndarray  # float32 [n, features], chosen minus rejected
    weights: np.ndarray  # float32 [n, features], of the unscaled differences: what wins in answers to prompts like this
    like: np.ndarray  # int [n]: the category or word that made a prompt's preferences its own, from 1; 0: none did
    names: tuple[str, ...] = ()  # of these categories or words
    of_words: bool = False  # whether they are words of the prompt

    @classmethod
    def of(
        cls,
        difference: np.ndarray,
        folds: np.ndarray,
        category: np.ndarray | None = None,
        words: PromptWords | None = None,
        prompt: np.ndarray | None = None,
    ) -> Style:
        """Learn from the pairs of the other folds.

        Preferences depend on the kind of prompt. category: str [n], "" if unknown; a large category has weights of its
        own if these predict held-out labels better. words: of the n prompts, each of which may change the weights where
        categories are not known or tell nothing. prompt: [n], equal where prompts are; None: each pair has its own.
        """
        size = (logistic.unit_columns(difference) * np.sqrt(difference.shape[1])).astype(np.float32)
        x = difference / size
        of_all = logistic.cross_fit(x, folds, RIDGES)
        prompt = np.arange(len(x)) if prompt is None else prompt
        if len(x) < MANY:
            few = logistic.cross_fit(x, folds, LASSO, by=logistic.lasso)
            of_all = few if logistic.clearly_better(few.margin, of_all.margin, prompt) else of_all
        own = Categories.none(len(x)) if category is None else Categories.among(category)
        fitted = fit_categories(x, folds, own, of_all, LASSO, logistic.lasso, afresh=True)
        weights = fitted.weights[folds, fitted.categories.of].astype(np.float32)
        if words is not None and not fitted.categories.names:
            has, names = words.frequent(prompt)
            by_word = fit_words(x, folds, has, of_all, prompt)
            if by_word is not None:
                return cls(difference, by_word.weights / size, by_word.telling + 1, names, of_words=True)
        return cls(difference, weights / size, fitted.categories.of, fitted.categories.names)

    @classmethod
    def unknown(cls, difference: np.ndarray) -> Style:
        """For too few prompts to learn from."""
        return cls(difference, np.zeros_like(difference), np.zeros(len(difference), dtype=np.int64))

    def by_feature(self, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """What each feature adds to the log-odds that the chosen answer wins: [rows, features]."""
        added: np.ndarray = self.difference[rows] * self.weights[rows]
        return added

    @property
    def margin(self) -> np.ndarray:
        """The sum over features: held-out log-odds [n]."""
        return np.einsum("nf,nf->n", self.difference, self.weights, dtype=np.float64)

    def kind_of(self, row: int) -> str | None:
        """The category, or the word of its prompt, whose preferences a pair is judged by; None: those of all pairs."""
        number = int(self.like[row])
        return self.names[number - 1] if number else None

    def swapped(self) -> Style:
        return replace(self, difference=-self.difference)


@dataclass(frozen=True)
class Gap:
    """Mean difference in a feature between chosen and rejected answers, in sd of the difference."""

    feature: str
    before: float  # all pairs
    after: float  # among the kept pairs, with their training weights

    @property
    def ratio(self) -> float:
        return self.after / self.before


def gaps(
    difference: np.ndarray, kept: np.ndarray, effect: np.ndarray | None = None, least: float = LEAST_GAP
) -> list[Gap]:
    """How keeping only `kept` (bool [n]) changes every feature with a gap of at least `least` sd, largest first.

    difference: features [n, features], chosen minus rejected. effect: the signed weight of a kept pair [n], negative if
    its answers are exchanged, a fraction for a soft label; default 1.
    """
    from rmo_curate.evidence.texts import STYLE

    counted = np.where(kept, 1.0 if effect is None else effect, 0.0)
    size = np.sqrt(np.mean(np.square(difference, dtype=np.float64), axis=0))
    before = difference.mean(axis=0, dtype=np.float64)
    total = np.abs(counted).sum()
    after = counted @ difference / total if total else np.zeros(len(before))
    with np.errstate(divide="ignore", invalid="ignore"):
        before, after = before / size, after / size
    large = np.flatnonzero(np.abs(before) >= least)
    names = list(STYLE)
    return [Gap(names[f], float(before[f]), float(after[f])) for f in large[np.argsort(-np.abs(before[large]))]]
