"""The rule that weighs all evidence."""

from __future__ import annotations

import numpy as np

from rmo_curate.runs.margins import where_scored
from rmo_curate.runs.run import Scores


def posterior(scores: Scores) -> np.ndarray:
    """s = -log-odds that the label is right, given all held-out evidence (`rmo_curate.evidence`): positive if the label
    is more likely wrong than right. Needs no proxy, but finds more with one."""
    assert scores.posterior is not None
    return where_scored(-scores.posterior.log_odds, scores)
