"""Whether the lengths of answers mislead sums over their tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores

ALIKE = 0.6  # if a larger share of the chosen answers are the longer (or shorter) ones, length decides
FOLLOWING_LENGTH = ("rmo",)  # rules that use the sign of the base's summed margin


@dataclass(frozen=True)
class Lengths:
    """How lengths and labels of scored pairs are related."""

    longer_chosen: float  # among pairs whose answers differ in length, the share whose chosen answer is longer
    base_accuracy: float  # of the base's summed log-probs
    unequal: int  # pairs whose answers differ in length: the denominator of `longer_chosen`
    pairs: int  # scored pairs: the denominator of `base_accuracy`

    @classmethod
    def of(cls, scores: Scores) -> Lengths:
        known = np.isfinite(scores.chosen_logp[:, -1])
        difference = scores.chosen_tokens[known].astype(np.int64) - scores.rejected_tokens[known]
        unequal = difference != 0
        longer = float((difference[unequal] > 0).mean()) if unequal.any() else 0.5
        base = float((margins.logp(scores, 0)[known] > 0).mean())
        return cls(longer, base, int(unequal.sum()), int(known.sum()))

    @property
    def alike(self) -> bool:
        return max(self.longer_chosen, 1 - self.longer_chosen) < ALIKE
