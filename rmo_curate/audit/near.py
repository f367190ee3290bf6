"""Near-duplicates: pairs whose prompts and whose answers are nearly the same words. MinHash with banding, then exact.

Two sets of similarity J agree in all ROWS places of one of BANDS bands with probability 1 - (1 - J**ROWS)**BANDS: 0.98
at 0.8. What agrees is compared exactly, so nothing is reported that is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmo_curate.audit.shingles import NOTHING, PERMUTATIONS, jaccard, shingle_sets
from rmo_curate.audit.texts import Texts
from rmo_train.store.id_hash import mix

SIMILARITY = 0.8  # least Jaccard similarity of the prompts, and of the answers
ROWS = 4
BANDS = PERMUTATIONS // ROWS


@dataclass(frozen=True)
class NearPair:
    """Two pairs (positions, first < second) of nearly the same text; `swapped`: with the answers' labels swapped."""

    first: int
    second: int
    similarity: float  # of the answers
    swapped: bool


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """uint64 [rows, BANDS]: equal where all places of a band are."""
    keys = np.zeros((len(signatures), BANDS), np.uint64)
    with np.errstate(over="ignore"):
        for band in range(BANDS):
            for k in range(band * ROWS, (band + 1) * ROWS):
                keys[:, band] = mix(keys[:, band] * np.uint64(31) + signatures[:, k].astype(np.uint64))
    return keys


def candidates(signatures: np.ndarray) -> np.ndarray:
    """int64 [pairs, 2] of rows that agree in a band, first < second, each once.

    In a band's bucket every member meets its neighbour and the first one, so a bucket of m gives at most 2m: enough to
    find a cluster, without m**2 comparisons.
    """
    n = len(signatures)
    filled = np.flatnonzero((signatures != NOTHING).any(axis=1))
    met = [np.zeros(0, np.int64)]
    keys = band_keys(signatures[filled])
    for band in range(BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        same = keys[order[1:], band] == keys[order[:-1], band]
        here = np.flatnonzero(same)
        bucket_start = np.maximum.accumulate(np.where(np.append(True, ~same), np.arange(len(order)), 0))
        members = filled[order]  # in the order of the data within a bucket: the sort is stable
        neighbours = members[here] * n + members[here + 1]
        firsts = members[bucket_start[here]] * n + members[here + 1]
        met += [neighbours, firsts]
    codes = np.unique(np.concatenate(met))
    return np.stack([codes // n, codes % n], axis=1) if n else np.zeros((0, 2), np.int64)


def near_pairs(texts: Texts, signatures: np.ndarray) -> list[NearPair]:
    """Pairs of `texts` that say nearly the same. `signatures`: MinHash of prompt and both answers together."""
    met = candidates(signatures)
    rows = np.unique(met)
    at = {int(p): i for i, p in enumerate(rows)}
    sets = {side: shingle_sets([getattr(texts, side)[p] for p in rows]) for side in ("prompt", "chosen", "rejected")}
    near = []
    for first, second in met.tolist():
        i, j = at[first], at[second]
        if jaccard(sets["prompt"][i], sets["prompt"][j]) < SIMILARITY:
            continue
        (c1, r1), (c2, r2) = ((sets["chosen"][k], sets["rejected"][k]) for k in (i, j))
        straight = min(jaccard(c1, c2), jaccard(r1, r2))
        across = min(jaccard(c1, r2), jaccard(r1, c2))
        if max(straight, across) >= SIMILARITY:
            near.append(NearPair(first, second, max(straight, across), across > straight))
    return near


def nearest_prompts(
    own: np.ndarray, other: np.ndarray, own_texts: Sequence[str], other_texts: Sequence[str]
) -> np.ndarray:
    """For each prompt the position of one in `other` that is nearly the same, else -1: int64 [own]."""
    nearest = np.full(len(own), -1, np.int64)
    if not len(own) or not len(other):
        return nearest
    keys, other_keys = band_keys(own), band_keys(other)
    usable = (other != NOTHING).any(axis=1)
    pairs = [np.zeros((0, 2), np.int64)]
    for band in range(BANDS):
        there = np.flatnonzero(usable)
        order = there[np.argsort(other_keys[there, band], kind="stable")]
        at = np.searchsorted(other_keys[order, band], keys[:, band])
        at = np.minimum(at, max(0, len(order) - 1))
        hit = np.flatnonzero(other_keys[order[at], band] == keys[:, band]) if len(order) else np.zeros(0, np.int64)
        pairs.append(np.stack([hit, order[at[hit]]], axis=1) if len(hit) else pairs[0])
    met = np.unique(np.concatenate(pairs), axis=0)
    rows, others = np.unique(met[:, 0]), np.unique(met[:, 1])
    sets = dict(zip(rows.tolist(), shingle_sets([own_texts[i] for i in rows]), strict=True))
    other_sets = dict(zip(others.tolist(), shingle_sets([other_texts[i] for i in others]), strict=True))
    for i, j in met.tolist():
        if nearest[i] < 0 and jaccard(sets[i], other_sets[j]) >= SIMILARITY:
            nearest[i] = j
    return nearest
