"""Evidence from other comparisons of the same answers.

Many data sets rank several answers to a prompt, so an answer occurs in several pairs. Let e_a ~ N(0, variance) be how
much better answer a is than the other evidence predicts. For the pair (a, b), e_a is estimated from every *other* pair
of a: the other evidence gives the expected result of each (with the opponent's e integrated out), and the difference
between the actual and the expected result moves e_a. Pair (a, b) itself is left out, so its own label has no influence,
and its effect e_a - e_b changes its sign when the pair is swapped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.score.logistic import loss, sigmoid

ANSWERS = "answers"  # the name of this source of evidence
VARIANCES = (0.1, 0.3, 0.6, 1.0, 2.0)  # of e, squared log-odds; if none predicts labels, the effect is 0


@dataclass(frozen=True)
class Comparisons:
    """n pairs as comparisons of answers: the chosen answer of pair i has index `winner[i]`."""

    winner: np.ndarray  # int [n]
    loser: np.ndarray  # int [n]
    answers: int

    @classmethod
    def of(cls, chosen: np.ndarray, rejected: np.ndarray) -> Comparisons:
        """chosen, rejected: keys of the answers [n]; equal answers have equal keys."""
        names, numbers = np.unique(np.concatenate([chosen, rejected]), return_inverse=True)
        return cls(numbers[: len(chosen)], numbers[len(chosen) :], len(names))

    def others(self) -> tuple[np.ndarray, np.ndarray]:
        """(wins, comparisons) of both answers of each pair in other pairs: int [n, 2] each (chosen, rejected)."""
        won = np.bincount(self.winner, minlength=self.answers)
        of = won + np.bincount(self.loser, minlength=self.answers)
        both = np.stack([self.winner, self.loser], axis=1)
        return won[both] - [1, 0], of[both] - 1


def effect(pairs: Comparisons, margin: np.ndarray, variance: float) -> np.ndarray:
    """e_chosen - e_rejected of every pair from the other pairs alone: log-odds [n].

    margin: log-odds of the labels by the other evidence [n], from fits that saw none of the prompt's pairs. Each e is
    one Newton step from 0. This keeps the sums over pairs linear, so a pair is left out by subtracting its term. The
    opponent is integrated out by MacKay's scaling of the log-odds, 1/sqrt(1 + pi variance / 8).
    """
    scale = 1 / np.sqrt(1 + np.pi * variance / 8)
    surprise = scale * sigmoid(-scale * margin)  # by how much the winner did better than expected
    certainty = scale**2 * sigmoid(scale * margin) * sigmoid(-scale * margin)

    def total(values: np.ndarray, sign: int) -> np.ndarray:
        won, lost = (np.bincount(side, values, pairs.answers) for side in (pairs.winner, pairs.loser))
        return won + sign * lost

    gradient, curvature = total(surprise, -1), total(certainty, 1)

    def of(answer: np.ndarray, own: np.ndarray) -> np.ndarray:
        return (gradient[answer] - own) / (1 / variance + curvature[answer] - certainty)

    return of(pairs.winner, surprise) - of(pairs.loser, -surprise)


def best_effect(pairs: Comparisons, margin: np.ndarray) -> tuple[np.ndarray, float]:
    """The effect [n] at the variance that predicts the labels best, and that variance; zeros and 0 if none helps.

    So the source sets its own weight: if labels are too noisy for other pairs to tell anything, it is 0.
    """
    tried = [(loss(margin), 0.0, np.zeros(len(margin)))]
    for variance in VARIANCES:
        effects = effect(pairs, margin, variance)
        tried.append((loss(margin + effects), variance, effects))
    _, variance, effects = min(tried, key=lambda one: one[0])
    return effects, variance
