"""Texts as hashed words and three-word shingles, and their MinHash signatures: numpy over whole data sets at once.

A word is a run of letters and digits (any script; case does not count); where a script puts no spaces between words
(Chinese, Japanese, Korean syllables) every character is one. MinHash: Broder 1997, "On the resemblance and containment
of documents"; the share of equal places in two signatures estimates the Jaccard similarity of the shingle sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from rmo_train.data.ragged import Ragged
from rmo_train.store.id_hash import GAMMA, mix

WIDTH = 3  # words of a shingle
PERMUTATIONS = 32
CHUNK = 1 << 22  # bytes of text hashed at a time
NOTHING = np.uint32(0xFFFFFFFF)  # the signature of a text without words


BYTE_VALUE = mix(np.arange(1, 257, dtype=np.uint64) * GAMMA)
BASE = 0x100000001B3  # odd, so that it has an inverse modulo 2**64
INVERSE = pow(BASE, -1, 1 << 64)
MULTIPLIERS = mix(np.arange(1000, 1000 + PERMUTATIONS, dtype=np.uint64) * GAMMA) | np.uint64(1)
PLACES = mix(np.arange(1, 1 + WIDTH, dtype=np.uint64) * GAMMA) | np.uint64(1)  # of a word in its shingle
PROMPT_MARK = np.uint64(0xA5A5A5A55A5A5A5A)  # a prompt's words are others than an answer's

ASCII_WORD = np.zeros(256, bool)
ASCII_WORD[[*range(48, 58), *range(97, 123), *range(65, 91)]] = True
ASCII_WORD[0x80:] = True  # bytes of letters beyond ASCII


def chunks(texts: Sequence[str]) -> Iterator[list[bytes]]:
    """The texts in lower case as UTF-8, about CHUNK bytes at a time."""
    batch, size = [], 0
    for text in texts:
        encoded = text.lower().encode("utf-8", "replace")
        batch.append(encoded)
        size += len(encoded) + 1
        if size >= CHUNK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def powers(base: int, n: int) -> np.ndarray:
    """base ** 0 … base ** (n - 1), modulo 2**64."""
    factors = np.full(n, np.uint64(base))
    factors[:1] = 1
    with np.errstate(over="ignore"):
        return np.multiply.accumulate(factors)


def words(encoded: list[bytes]) -> Ragged:
    """The words of each text, hashed to uint64: a polynomial of the bytes, by differences of one running sum."""
    lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
    text_starts = np.concatenate([[0], np.cumsum(lengths + 1)])
    data = np.frombuffer(b" ".join([*encoded, b""]), np.uint8)
    inside = ASCII_WORD[data]
    following = np.append(data[1:], np.uint8(32))
    # U+2000–207F (dashes, quotation marks) and U+3000–303F (CJK punctuation) part words like a space does.
    lead = np.flatnonzero(((data == 0xE2) & (following <= 0x81)) | ((data == 0xE3) & (following == 0x80)))
    lead = lead[(following[lead] >= 0x80) & (lead + 2 < len(data))]
    for offset in range(3):
        inside[lead + offset] = False
    before = np.append(False, inside[:-1])
    alone = (data >= 0xE3) & (data <= 0xED)  # first bytes of CJK characters and Hangul
    starts = inside & (~before | alone)
    ends = inside & ~np.append(inside[1:] & ~starts[1:], False)
    first, last = np.flatnonzero(starts), np.flatnonzero(ends)
    with np.errstate(over="ignore"):
        total = np.cumsum(BYTE_VALUE[data] * powers(BASE, len(data)), dtype=np.uint64)
        start_total = np.where(first > 0, total[first - 1], np.uint64(0))
        hashes = mix((total[last] - start_total) * powers(INVERSE, len(data))[first])
    return Ragged(hashes, np.searchsorted(first, text_starts))


def shingles(word_hashes: Ragged) -> Ragged:
    """Hashes of every WIDTH words in a row; a shorter text is one shingle, one without words none."""
    values, lengths = word_hashes.values, word_hashes.lengths
    counts = np.where(lengths >= WIDTH, lengths - WIDTH + 1, np.minimum(lengths, 1))
    # Position of each shingle's first word: the row's start plus the place within the row.
    at = np.arange(counts.sum()) + np.repeat(word_hashes.offsets[:-1] - (np.cumsum(counts) - counts), counts)
    ends = np.repeat(word_hashes.offsets[1:], counts)
    total = np.zeros(len(at), np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(WIDTH):
            there = at + offset < ends
            total += np.where(there, values[np.minimum(at + offset, max(0, len(values) - 1))], GAMMA) * PLACES[offset]
    return Ragged.from_lengths(mix(total), counts)


def signatures(shingle_hashes: Ragged, mark: np.uint64 = np.uint64(0)) -> np.ndarray:
    """MinHash of each row's shingles, uint32 [rows, PERMUTATIONS]; NOTHING where a row has none. `mark` tells kinds
    of text apart: the same words give unrelated hashes under another mark."""
    rows = np.full((len(shingle_hashes), PERMUTATIONS), NOTHING, np.uint32)
    filled = np.flatnonzero(shingle_hashes.lengths > 0)
    if not len(filled):
        return rows
    values, starts = mix(shingle_hashes.values ^ mark), shingle_hashes.offsets[filled]
    with np.errstate(over="ignore"):
        for k, multiplier in enumerate(MULTIPLIERS):
            hashes = ((values * multiplier) >> np.uint64(32)).astype(np.uint32)
            rows[filled, k] = np.minimum.reduceat(hashes, starts)
    return rows


def profile(texts: Sequence[str], mark: np.uint64 = np.uint64(0)) -> tuple[np.ndarray, np.ndarray]:
    """(words of each text: int64 [texts], signatures: uint32 [texts, PERMUTATIONS])."""
    counts, rows = [np.zeros(0, np.int64)], [np.zeros((0, PERMUTATIONS), np.uint32)]
    for encoded in chunks(texts):
        word_hashes = words(encoded)
        counts.append(word_hashes.lengths)
        rows.append(signatures(shingles(word_hashes), mark))
    return np.concatenate(counts), np.concatenate(rows)


def shingle_sets(texts: Sequence[str]) -> list[np.ndarray]:
    """The distinct shingles of each text, sorted."""
    sets = []
    for encoded in chunks(texts):
        hashes = shingles(words(encoded))
        sets += [np.unique(hashes[i]) for i in range(len(encoded))]
    return sets


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A and B| / |A or B| of two sorted arrays of distinct values; two empty sets are equal."""
    if not len(a) or not len(b):
        return float(len(a) == len(b))
    common = int((b[np.minimum(np.searchsorted(b, a), len(b) - 1)] == a).sum())
    return common / (len(a) + len(b) - common)
