"""Preferences that contradict each other: the same two answers preferred both ways, and circles (A > B > C > A)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from rmo_curate.audit.texts import Texts


def text_key(text: str) -> bytes:
    """16 bytes, equal for texts that differ in case and white space only."""
    return blake2b(" ".join(text.split()).casefold().encode("utf-8", "replace"), digest_size=16).digest()


@dataclass(frozen=True)
class Preferences:
    """All pairs as edges `winner > loser` between numbered answers to numbered prompts."""

    prompt: np.ndarray  # int64 [pairs]
    winner: np.ndarray  # int64 [pairs]; the same text answering another prompt is another answer
    loser: np.ndarray

    @property
    def prompts(self) -> int:
        return int(self.prompt.max()) + 1 if len(self.prompt) else 0


def preferences(texts: Texts) -> Preferences:
    prompts: dict[bytes, int] = {}
    answers: dict[tuple[int, bytes], int] = {}
    columns: list[tuple[int, int, int]] = []
    for prompt, chosen, rejected in zip(texts.prompt, texts.chosen, texts.rejected, strict=True):
        p = prompts.setdefault(text_key(prompt), len(prompts))
        winner, loser = (answers.setdefault((p, text_key(text)), len(answers)) for text in (chosen, rejected))
        columns.append((p, winner, loser))
    edges = np.array(columns, np.int64).reshape(-1, 3)
    return Preferences(edges[:, 0], edges[:, 1], edges[:, 2])


def reversals(preferred: Preferences) -> dict[int, int]:
    """Position of a pair -> the first pair that prefers the same two answers the other way round."""
    edges: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, edge in enumerate(zip(preferred.winner.tolist(), preferred.loser.tolist(), strict=True)):
        edges[edge].append(i)
    return {i: edges[b, a][0] for (a, b), pairs in edges.items() if a != b and (b, a) in edges for i in pairs}


def circles(preferred: Preferences, left_out: Sequence[int]) -> dict[int, int]:
    """Position of a pair -> the number of answers in its circle of three or more. `left_out`: pairs that are reversed
    outright, which make circles of two."""
    import networkx

    out = np.zeros(len(preferred.winner), bool)
    out[list(left_out)] = True
    kept = np.flatnonzero(~out & (preferred.winner != preferred.loser))
    while len(kept):  # whoever never wins, or never loses, is in no circle: that leaves little for the search below
        inside = np.isin(preferred.winner[kept], preferred.loser[kept]) & np.isin(
            preferred.loser[kept], preferred.winner[kept]
        )
        if inside.all():
            break
        kept = kept[inside]
    graph = networkx.DiGraph()
    graph.add_edges_from(zip(preferred.winner[kept].tolist(), preferred.loser[kept].tolist(), strict=True))
    member = {
        answer: (number, len(part))
        for number, part in enumerate(networkx.strongly_connected_components(graph))
        if len(part) > 2
        for answer in part
    }
    circled = {}
    for i in kept.tolist():
        ours, theirs = (member.get(int(side[i])) for side in (preferred.winner, preferred.loser))
        if ours is not None and ours == theirs:
            circled[i] = ours[1]
    return circled
