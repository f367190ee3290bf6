"""Controls, which a rule must beat; and `none`."""

from __future__ import annotations

import numpy as np

from rmo_curate.runs.margins import where_scored
from rmo_curate.runs.run import Scores
from rmo_train.store.id_hash import fractions


def length(scores: Scores) -> np.ndarray:
    """s = rejected minus chosen tokens: detection by length alone. A control. Needs no proxy."""
    return where_scored((scores.rejected_tokens - scores.chosen_tokens).astype(np.float64), scores)


def random(scores: Scores) -> np.ndarray:
    """s = a hash of the id in [0, 1): drops the same number of pairs at random. A control. Needs no proxy."""
    assert scores.ids is not None
    return where_scored(fractions("random", 0, scores.ids), scores)


def none(scores: Scores) -> np.ndarray:
    """No suspicion: nothing is dropped as noisy."""
    return np.full(len(scores.chosen_tokens), np.nan)
