"""Preferences of style that depend on what the prompt says: where prompts say "json", answers with brackets win.

Words that many prompts have in common stand for kinds of prompt where no column of the data names them. Each may change
what each feature of style is worth; the lasso keeps the few such changes that labels follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import scipy.sparse as sp

from rmo_curate.score import logistic
from rmo_curate.score.categories import LEAST_PAIRS
from rmo_train.store.id_hash import hash64

BUCKETS = 2**16  # of hashed words
KEPT_WORDS = 64  # of a prompt: the last ones, which say what is asked
LEAST_PROMPTS = 20  # minimum of different prompts that a word is in
MOST_SHARE = 0.7  # of the pairs; a word of nearly all prompts tells none apart
MOST_WORDS = 250  # the most frequent
MOST_PAIRS = 5000  # maximum that is learned from
STRENGTHS = (2.0, 3.0, 4.0, 6.0)  # of the lasso
BLOCK = 8192  # pairs whose words are compared at a time


@dataclass(frozen=True)
class PromptWords:
    """The distinct words of the prompts of n pairs, hashed."""

    has: sp.csr_matrix  # int8 [n, BUCKETS], 1 where the prompt has a word of this bucket
    names: Mapping[int, str]  # bucket -> its word, of those that occur more than once

    @classmethod
    def of(cls, words: pl.Series) -> PromptWords:
        """words: lists of the distinct words of each prompt, the last `KEPT_WORDS` of which are kept."""
        n = len(words)
        each = pl.DataFrame({"pair": np.arange(n), "word": words.list.tail(KEPT_WORDS)}).explode("word").drop_nulls()
        bucket = (hash64(each["word"].to_arrow().cast(pa.string())) % BUCKETS).astype(np.int32)
        has = sp.csr_matrix((np.ones(len(bucket), np.int8), (each["pair"].to_numpy(), bucket)), shape=(n, BUCKETS))
        has.data[:] = 1  # of two words in one bucket
        counted = each.with_columns(bucket=pl.Series(bucket)).group_by("bucket", "word").len().filter(pl.col("len") > 1)
        return cls(has, dict(counted.sort("len").select("bucket", "word").iter_rows()))

    @classmethod
    def together(cls, parts: Sequence[PromptWords]) -> PromptWords:
        names: dict[int, str] = {}
        for part in parts:
            names.update(part.names)
        return cls(sp.vstack([part.has for part in parts], format="csr"), names)

    def take(self, rows: np.ndarray) -> PromptWords:
        return PromptWords(self.has[rows], self.names)

    def frequent(self, prompt: np.ndarray) -> tuple[sp.csr_matrix, tuple[str, ...]]:
        """The words that may matter: float32 [n, words] and the words. prompt: [n], equal where prompts are."""
        pairs = np.asarray(self.has.sum(axis=0, dtype=np.int64)).ravel()
        _, first = np.unique(prompt, return_index=True)
        prompts = np.asarray(self.has[first].sum(axis=0, dtype=np.int64)).ravel()
        able = (pairs >= LEAST_PAIRS) & (prompts >= LEAST_PROMPTS) & (pairs <= MOST_SHARE * len(prompt))
        kept = np.flatnonzero(able)
        kept = np.sort(kept[np.argsort(-pairs[kept], kind="stable")][:MOST_WORDS])
        return self.has[:, kept].astype(np.float32), tuple(self.names.get(int(k), "") for k in kept)


@dataclass(frozen=True)
class WordFit:
    """What every pair's style is judged by, held out."""

    weights: np.ndarray  # float32 [pairs, features]
    telling: np.ndarray  # int [pairs], the word of the prompt that says most about the pair; -1: none does


class Interactions:
    """Products of words and features as the columns of a design that is never built: [rows, words x features]."""

    def __init__(self, words: sp.csr_matrix, x: np.ndarray):
        self.words, self.by_word, self.x = words, words.tocsc(), x
        self.features = x.shape[1]
        self.shape = (x.shape[0], words.shape[1] * self.features)

    def slope(self, p: np.ndarray) -> np.ndarray:
        product: np.ndarray = self.words.T @ (p[:, None] * self.x)
        return product.ravel()

    def columns(self, some: np.ndarray) -> np.ndarray:
        word, feature = divmod(some, self.features)
        chosen: np.ndarray = self.by_word[:, word].toarray()
        return chosen * self.x[:, feature]

    def energy(self) -> float:
        return float(self.words.sum(axis=1).A1 @ (self.x**2).sum(axis=1))


def fit_words(
    x: np.ndarray, folds: np.ndarray, words: sp.csr_matrix, of_all: logistic.CrossFit, prompt: np.ndarray
) -> WordFit | None:
    """Preferences by the prompt's words on rows x [pairs, features] of columns of like size.

    They are changes to the preferences of all pairs, or fitted together with these, whichever predicts held-out labels
    better; None if neither is clearly better than `of_all`, the cross-fit on the same rows and folds [pairs].
    prompt: [pairs], equal where prompts are.
    """
    if not words.shape[1]:
        return None
    words = sp.hstack([np.ones((len(x), 1), dtype=np.float32), words], format="csr")  # first what all prompts want
    learnt = np.arange(0, len(x), -(-len(x) // MOST_PAIRS))
    rows, said, fold_of = x[learnt], words[learnt], folds[learnt]
    designs = {fold: Interactions(said[fold_of != fold], rows[fold_of != fold]) for fold in np.unique(folds)}
    best, least, margins = None, logistic.least_loss(of_all.margin[learnt]), of_all.margin[learnt]
    for start in (of_all.weights, np.zeros_like(of_all.weights)):
        before, found = np.inf, {fold: np.zeros(words.shape[1] * x.shape[1]) for fold in designs}
        for strength in sorted(STRENGTHS, reverse=True):
            margin = np.empty(len(learnt))
            for fold, design in designs.items():
                found = found | {fold: logistic.lasso(design, strength, design.x @ start[fold], found[fold])}
                asked = fold_of == fold
                weights = start[fold] + said[asked] @ found[fold].reshape(-1, x.shape[1])
                margin[asked] = np.einsum("nf,nf->n", rows[asked], weights)
            lost = logistic.least_loss(margin)
            if lost > before:
                break
            before = lost
            if lost < least:
                best, least, margins = (start, found), lost, margin
    if best is None or not logistic.clearly_better(margins, of_all.margin[learnt], prompt[learnt]):
        return None
    return _of_every_pair(x, folds, words, *best)


def _of_every_pair(
    x: np.ndarray,
    folds: np.ndarray,
    words: sp.csr_matrix,
    start: np.ndarray,
    found: Mapping[int, np.ndarray],
) -> WordFit:
    weights, telling = np.empty_like(x, dtype=np.float32), np.full(len(x), -1)
    for fold, flat in found.items():
        by_word = flat.reshape(-1, x.shape[1]).astype(np.float32)
        used = 1 + np.flatnonzero(by_word[1:].any(axis=1))
        asked = np.flatnonzero(folds == fold)
        for at in range(0, len(asked), BLOCK):
            rows = asked[at : at + BLOCK]
            weights[rows] = start[fold] + words[rows] @ by_word
            if len(used):
                says = np.abs(x[rows] @ by_word[used].T) * words[rows][:, used].toarray()
                telling[rows] = np.where(says.max(axis=1) > 0, used[says.argmax(axis=1)] - 1, -1)
    return WordFit(weights, telling)
