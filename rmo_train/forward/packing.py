"""Packing: lays out prompts and responses without padding, and computes no prompt twice.

A *tree* is one prompt and the responses that follow it, `[prompt | y1 | y2 | ...]`; a pair is a tree of two. A *pack*
is one row of trees within a token budget. A response attends to its prompt and itself, never to a sibling, and its
positions continue the prompt's, so its log-prob is the same as on its own. Its last token predicts nothing and is not
computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmo_train.data.pairs import PairData


@dataclass(frozen=True)
class Tree:
    """One prompt and its responses (token ids, int32); `owners[k]` is the slot of response k in the result."""

    prompt: np.ndarray
    responses: tuple[np.ndarray, ...]
    owners: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens that a forward pass computes."""
        return len(self.prompt) + sum(len(r) - 1 for r in self.responses)


@dataclass(frozen=True)
class Pack:
    """One row of T tokens (or B padded ones) with R response tokens to predict, ready for a model.

    tokens, positions: int64 [B, T]. segments: int64 [S, 4], who sees whom in a single row: tokens `start` to `end` see
    tokens `context` to `context_end` (a prompt) and, causally, one another; its columns are context, context_end,
    start, end, and segments follow each other. `sources[r]` is the position in the flattened rows whose output predicts
    `targets[r]`, which belongs to the response in slot `owners[r]`: int64 [R].
    """

    tokens: np.ndarray
    positions: np.ndarray
    segments: np.ndarray
    sources: np.ndarray
    targets: np.ndarray
    owners: np.ndarray

    @property
    def size(self) -> int:
        """Tokens that a model computes."""
        return self.tokens.size

    @property
    def is_plain(self) -> bool:
        """Whether ordinary causal attention is exact: single sequences, padded on the right."""
        return len(self.segments) == 1

    def mask(self) -> np.ndarray:
        """bool [T, T] of a single row: True where the query (row) may attend to the key (column)."""
        width = self.tokens.shape[1]
        allowed = np.zeros((width, width), dtype=bool)
        for context, context_end, start, end in self.segments:
            allowed[start:end, context:context_end] = True
            allowed[start:end, start:end] = np.tri(end - start, dtype=bool)
        return allowed


def pair_trees(data: PairData, rows: Sequence[int] | np.ndarray) -> list[Tree]:
    """One tree per pair: slot 2k is the chosen response of rows[k], slot 2k + 1 the rejected one."""
    return [Tree(data.prompt[i], (data.chosen[i], data.rejected[i]), (2 * k, 2 * k + 1)) for k, i in enumerate(rows)]


def distinct_trees(data: PairData, rows: Sequence[int] | np.ndarray) -> tuple[list[Tree], np.ndarray]:
    """One tree per distinct prompt, with each distinct response once.

    Returns the trees and an int64 array [len(rows), 2] with the slots of each pair's chosen and rejected response.
    """
    trees: dict[bytes, tuple[np.ndarray, list[np.ndarray], list[int]]] = {}
    slots: dict[tuple[bytes, bytes], int] = {}
    of_pair = np.empty((len(rows), 2), dtype=np.int64)
    for k, i in enumerate(rows):
        prompt = data.prompt[i]
        key = prompt.tobytes()
        _, responses, owners = trees.setdefault(key, (prompt, [], []))
        for side, response in enumerate((data.chosen[i], data.rejected[i])):
            name = (key, response.tobytes())
            if name not in slots:
                slots[name] = len(slots)
                responses.append(response)
                owners.append(slots[name])
            of_pair[k, side] = slots[name]
    return [Tree(p, tuple(r), tuple(o)) for p, r, o in trees.values()], of_pair


def split_tree(tree: Tree, budget: int) -> list[Tree]:
    """`tree` split into pieces of at most `budget` tokens if possible; prompts are repeated, responses never cut."""
    pieces: list[Tree] = []
    responses: list[np.ndarray] = []
    owners: list[int] = []
    size = len(tree.prompt)
    for response, owner in zip(tree.responses, tree.owners, strict=True):
        if responses and size + len(response) - 1 > budget:
            pieces.append(Tree(tree.prompt, tuple(responses), tuple(owners)))
            responses, owners, size = [], [], len(tree.prompt)
        responses.append(response)
        owners.append(owner)
        size += len(response) - 1
    return [*pieces, Tree(tree.prompt, tuple(responses), tuple(owners))]


def plain_trees(trees: Sequence[Tree]) -> list[Tree]:
    """Every response after its own copy of the prompt, for models that cannot share prompts."""
    return [Tree(t.prompt, (r,), (o,)) for t in trees for r, o in zip(t.responses, t.owners, strict=True)]


def first_fit(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """Indices grouped so that each group's sizes add up to at most `budget` (a larger item gets its own group).

    First fit in decreasing order of size; ties keep the given order, so the result depends on the sizes alone.
    """
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    bins: list[list[int]] = []
    room: list[int] = []
    for i in order:
        at = next((b for b, free in enumerate(room) if free >= sizes[i]), None)
        if at is None:
            bins.append([i])
            room.append(budget - sizes[i])
        else:
            bins[at].append(i)
            room[at] -= sizes[i]
    return bins


def make_pack(trees: Sequence[Tree]) -> Pack:
    """The trees side by side in one row; a prompt and its first response are one causal segment."""
    tokens, positions, segments = [], [], []
    sources, targets, owners = [], [], []
    at = 0
    for tree in trees:
        start, prompt_end = at, at + len(tree.prompt)
        at = prompt_end
        tokens.append(tree.prompt)
        positions.append(np.arange(len(tree.prompt)))
        for k, (response, owner) in enumerate(zip(tree.responses, tree.owners, strict=True)):
            computed = response[:-1]
            end = at + len(computed)
            if k == 0:
                segments.append((start, start, start, end))
            elif len(computed):
                segments.append((start, prompt_end, at, end))
            tokens.append(computed)
            positions.append(np.arange(len(tree.prompt), len(tree.prompt) + len(computed)))
            sources.append(np.concatenate([[prompt_end - 1], np.arange(at, end)]))
            targets.append(response)
            owners.append(np.full(len(response), owner))
            at = end
    row = [np.concatenate(c).astype(np.int64)[None] for c in (tokens, positions)]
    flat = [np.concatenate(c).astype(np.int64) for c in (sources, targets, owners)]
    return Pack(row[0], row[1], np.array(segments, dtype=np.int64), *flat)


def make_rows(sequences: Sequence[Tree]) -> Pack:
    """Trees of one response each, as rows padded on the right: causal attention never looks there."""
    width = max(t.tokens for t in sequences)
    tokens = np.zeros((len(sequences), width), dtype=np.int64)
    sources, targets, owners = [], [], []
    for row, tree in enumerate(sequences):
        (response,), (owner,) = tree.responses, tree.owners
        tokens[row, : tree.tokens] = np.concatenate([tree.prompt, response[:-1]])
        first = row * width + len(tree.prompt) - 1
        sources.append(np.arange(first, first + len(response)))
        targets.append(response)
        owners.append(np.full(len(response), owner))
    positions = np.broadcast_to(np.arange(width), tokens.shape).copy()
    flat = [np.concatenate(c).astype(np.int64) for c in (sources, targets, owners)]
    return Pack(tokens, positions, np.array([[0, 0, 0, width]]), *flat)


def make_packs(trees: Sequence[Tree], budget: int, whole: int = 0) -> list[Pack]:
    """`trees` in packs of at most `budget` tokens, splitting trees that are larger by repeating their prompt; a tree of
    at most `whole` tokens is a pack of its own instead."""
    pieces = [p for t in trees for p in split_tree(t, max(budget, whole))]
    return [make_pack([pieces[i] for i in group]) for group in first_fit([p.tokens for p in pieces], budget)]


def make_row_packs(trees: Sequence[Tree], budget: int) -> list[Pack]:
    """Every response after its own copy of the prompt: rows of similar length together, at most `budget` tokens."""
    groups: list[list[Tree]] = []
    for tree in sorted(plain_trees(trees), key=lambda t: -t.tokens):
        if groups and groups[-1][0].tokens * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(tree)
        else:
            groups.append([tree])
    return [make_rows(g) for g in groups]
