"""Whether the lengths of answers mislead what is summed over their tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rmo_curate.runs import margins
from rmo_curate.runs.run import Scores

ALIKE = 0.6  # share of pairs whose longer answer is the chosen one, beyond which length decides
FOLLOWING_LENGTH = ("rmo",)  # rules that ask for the sign of the base's summed margin


@dataclass(frozen=True)
class Lengths:
    """What lengths say of the labels of scored pairs."""

    longer_chosen: float  # of the pairs whose answers differ in length, the share whose chosen answer is the longer one
    base_accuracy: float  # of the base's summed log-probs
    unequal: int  # pairs whose answers differ in length, which `longer_chosen` is of
    pairs: int  # scored ones, which `base_accuracy` is of

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
