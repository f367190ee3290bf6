"""How strong the models are that wrote the answers: a strength each, of which pairs give the differences.

UltraFeedback, Nectar and arena data say which model wrote an answer. Its strength is learned on other prompts, so it is
no more than a habit of the judge: good generators are right more often, not always.
"""

from __future__ import annotations

import numpy as np

from rmo_curate.score.logistic import CrossFit, cross_fit

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)  # of the strengths, log-odds


def strengths(chosen: np.ndarray, rejected: np.ndarray, folds: np.ndarray) -> CrossFit:
    """Held-out log-odds [pairs] that the chosen answer's generator beats the rejected one's.

    chosen, rejected: names [pairs], "" where unknown: an unknown generator has strength 0, that of an average one.
    """
    from scipy.sparse import csr_matrix

    names, numbers = np.unique(np.concatenate([chosen, rejected]).astype(str), return_inverse=True)
    n = len(chosen)
    row, sign = np.tile(np.arange(n), 2), np.repeat([1.0, -1.0], n)
    known = (names != "")[numbers]
    x = csr_matrix((sign[known], (row[known], numbers[known])), shape=(n, len(names)))
    return cross_fit(x, folds, RIDGES)
