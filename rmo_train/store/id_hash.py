"""A 64-bit hash of every string of an Arrow column at once, used for random draws, joins and duplicates.

The hash is a contract, because draws decide which pairs are kept: h = key; for each 8 bytes of the UTF-8 text (little
endian, the last ones padded with zeros) h = step(h ^ word); at the end h = step(h ^ length in bytes). `step` is one
output of splitmix64 (Steele, Lea, Flood 2014, Fast Splittable Pseudorandom Number Generators) from the state h. It is a
bijection, so two texts that differ in only one word never collide. It is not a cryptographic hash; contents and files
are identified by sha256 (`rmo_train.store.tables`).
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

GAMMA, FIRST, SECOND = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
LEADING = np.array([2 ** (8 * n) - 1 for n in range(9)], dtype=np.uint64)  # masks of a word's first n bytes
BLOCK = 32_768  # rows hashed at a time, so that they fit in the cache

Strings: TypeAlias = pa.Array | pa.ChunkedArray  # text or binary; of the latter, the bytes are hashed


def step(h: np.ndarray) -> np.ndarray:
    """One output of splitmix64 from each state, in place: uint64 [n], modulo 2^64."""
    h += GAMMA
    return mix(h)


def mix(h: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser, in place: uint64 [n] to well-spread uint64 [n], a bijection that keeps 0."""
    h ^= h >> np.uint64(30)
    h *= FIRST
    h ^= h >> np.uint64(27)
    h *= SECOND
    h ^= h >> np.uint64(31)
    return h


def hash64(strings: Strings, key: int = 0) -> np.ndarray:
    """The hash of every string: uint64 [strings]; null hashes as the empty string."""
    hashes = np.full(len(strings), key, dtype=np.uint64)
    chunks = strings.chunks if isinstance(strings, pa.ChunkedArray) else [strings]
    at = 0
    for chunk in chunks:
        for start in range(0, len(chunk), BLOCK):
            block = chunk[start : start + BLOCK]
            _hash_block(block, hashes[at : at + len(block)])
            at += len(block)
    return hashes


def _hash_block(block: pa.StringArray, h: np.ndarray) -> None:
    """Hash one block into `h`, which holds the key."""
    _, offsets, data = block.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[block.offset : block.offset + len(block) + 1].astype(np.int64)
    # Eight spare bytes, so that a word can be read at every byte; what it reads beyond a string's end is masked off.
    text = bytes(memoryview(data)[ends[0] : ends[-1]] if data else b"") + bytes(8)
    words = np.ndarray((len(text) - 7,), dtype="<u8", buffer=text, strides=(1,))
    starts, lengths = ends[:-1] - ends[0], np.diff(ends)
    shortest = lengths.min()
    for at in range(0, int(lengths.max()), 8):
        if at + 8 <= shortest:
            h ^= words[starts + at]
            step(h)
        else:
            rows = np.flatnonzero(lengths > at)
            h[rows] = step(h[rows] ^ (words[starts[rows] + at] & LEADING[np.minimum(lengths[rows] - at, 8)]))
    h ^= lengths.astype(np.uint64)
    step(h)


def draw_bits(stage: str, seed: int, ids: Strings) -> np.ndarray:
    """64 random bits for every id, uint64 [ids], that depend on (stage, seed, id) alone: the project's per-record
    randomness.

    The key is the first 8 bytes of the sha256 of stage and seed, so every seed has its own function.
    """
    return hash64(ids, int.from_bytes(hashlib.sha256(f"{stage}\x1f{seed}".encode()).digest()[:8], "big"))


def fractions(stage: str, seed: int, ids: Strings) -> np.ndarray:
    """A number in [0, 1) for every id, [ids]: the upper 53 bits of its draw."""
    return (draw_bits(stage, seed, ids) >> np.uint64(11)) / 2.0**53


def places(strings: Strings, among: Strings) -> np.ndarray:
    """Index of each string's first occurrence in `among`, or -1: int [strings], exact; null is not found.

    The same as `pyarrow.compute.index_in`, but several times as fast for millions of strings and smaller: looks up
    hashes and compares the matching strings. If two strings share a hash, it falls back to `index_in`.
    """
    if not strings.null_count and not among.null_count:
        hashes = hash64(among)
        same = strings is among
        places = first_places(hashes, hashes if same else hash64(strings))
        paired = np.flatnonzero(places != np.arange(len(places)) if same else places >= 0)
        if _equal(strings, paired, among, places[paired]):
            return places
    indices = pc.index_in(strings, value_set=_combined(among), skip_nulls=True)
    return pc.fill_null(indices, -1).to_numpy().astype(np.int32)


def _combined(strings: Strings) -> pa.Array:
    return strings.combine_chunks() if isinstance(strings, pa.ChunkedArray) else strings


def _equal(strings: Strings, at: np.ndarray, others: Strings, other_at: np.ndarray, block: int = 1 << 20) -> bool:
    """Whether strings[at] equals others[other_at], compared a block at a time."""
    if not len(at):
        return True
    left, right = _combined(strings), _combined(others)
    return all(
        left.take(pa.array(at[i : i + block])).equals(right.take(pa.array(other_at[i : i + block])))
        for i in range(0, len(at), block)
    )


def first_places(hashes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of each wanted hash's first occurrence in `hashes`, or -1: int32 [wanted].

    Hash tables in rounds: each slot takes the first row that falls into it. Rows whose slot is taken by another hash,
    and queries that find another hash, go to the next round with their hashes stepped (a bijection).
    """
    places = np.full(len(wanted), -1, dtype=np.int32)
    rows = np.arange(len(hashes) - 1, -1, -1, dtype=np.int32)  # backwards, because the last write to a slot wins
    asking = np.arange(len(wanted), dtype=np.int32)
    held, asked = hashes[::-1].copy(), wanted.copy()
    while len(rows) and len(asking):
        mask = np.uint64(2 ** (2 * len(rows)).bit_length() - 1)
        slots = (held & mask).astype(np.int64)
        table = np.full(int(mask) + 1, -1, dtype=np.int32)  # slot -> position in `rows`
        table[slots] = np.arange(len(rows), dtype=np.int32)
        winner = table[(asked & mask).astype(np.int64)]
        hit = (winner >= 0) & (held[winner] == asked)
        places[asking[hit]] = rows[winner[hit]]
        ask_again = ~hit & (winner >= 0)  # an empty slot means that it does not occur
        again = held[table[slots]] != held
        rows, asking = rows[again], asking[ask_again]
        held, asked = step(held[again]), step(asked[ask_again])
    return places
