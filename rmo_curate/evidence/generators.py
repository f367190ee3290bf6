"""The strength of the models that wrote the answers; each pair is a comparison of two of them.

UltraFeedback, Nectar and arena data say which model wrote an answer. Its strength is learned on other prompts, so it
is only a tendency: answers of a strong model win more often, not always.
"""

from __future__ import annotations

import numpy as np

from rmo_curate.score.logistic import CrossFit, cross_fit

RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0)  # on the strengths, which are log-odds


def strengths(chosen: np.ndarray, rejected: np.ndarray, folds: np.ndarray) -> CrossFit:
    """Held-out log-odds [pairs] that the generator of the chosen answer beats that of the rejected one.

    chosen, rejected: names [pairs], "" if unknown; an unknown generator has the average strength, 0.
    """
    from scipy.sparse import csr_matrix

    names, numbers = np.unique(np.concatenate([chosen, rejected]).astype(str), return_inverse=True)
    n = len(chosen)
    row, sign = np.tile(np.arange(n), 2), np.repeat([1.0, -1.0], n)
    known = (names != "")[numbers]
    x = csr_matrix((sign[known], (row[known], numbers[known])), shape=(n, len(names)))
    return cross_fit(x, folds, RIDGES)
