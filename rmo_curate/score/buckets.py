"""Hidden states as they are kept: no more numbers of a pair than are asked for, in half precision.

They are made so where they are computed: of a wide model a part of the pairs has hundreds of megabytes of states, and
what is kept of many pairs is a hundredth of that.
"""

from __future__ import annotations

import numpy as np


def kept(differences: np.ndarray, width: int) -> np.ndarray:
    """What is kept of `differences` [n, numbers]: float16 [n, at most `width`]."""
    limit = np.finfo(np.float16).max
    return np.clip(in_buckets(differences, width), -limit, limit).astype(np.float16)


def in_buckets(values: np.ndarray, width: int) -> np.ndarray:
    """`values` [n, numbers] as they are, or where that is more than `width` a count sketch of them: [n, width].

    Every number goes, with a random sign, into a random bucket: inner products keep their values in expectation
    (Charikar et al. 2002), and no matrix of projections is needed.
    """
    if values.shape[1] <= width:
        return values
    rng = np.random.default_rng(0)
    bucket = rng.integers(0, width, size=values.shape[1:])
    sign = rng.choice([-1.0, 1.0], values.shape[1])
    order = np.argsort(bucket, kind="stable")
    starts = np.searchsorted(bucket[order], np.arange(width))
    filled = np.flatnonzero(np.diff(np.append(starts, len(order))))
    sums = np.zeros((len(values), width), dtype=np.float32)
    sums[:, filled] = np.add.reduceat((values * sign)[:, order], starts[filled], axis=1)
    return sums
