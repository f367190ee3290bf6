"""Preferences that contradict each other: the same two answers preferred both ways, and circles (A > B > C > A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from rmo_train.store.id_hash import mix


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


def preferences(keys: np.ndarray) -> Preferences:
    """keys: uint64 [pairs, 3] of prompt, chosen and rejected answer, equal where the texts are."""
    answers = mix(keys[:, :1].copy()) ^ keys[:, 1:]
    _, prompt = np.unique(keys[:, 0], return_inverse=True)
    _, answer = np.unique(answers, return_inverse=True)
    answer = answer.reshape(answers.shape)
    return Preferences(prompt, answer[:, 0], answer[:, 1])


def reversals(preferred: Preferences) -> dict[int, int]:
    """Position of a pair -> the first pair that prefers the same two answers the other way round."""
    winner, loser = preferred.winner, preferred.loser
    answers = int(max(winner.max(initial=0), loser.max(initial=0))) + 1
    edges, firsts = np.unique(winner * answers + loser, return_index=True)
    turned = loser * answers + winner
    at = np.minimum(np.searchsorted(edges, turned), max(0, len(edges) - 1))
    found = np.flatnonzero((edges[at] == turned) & (winner != loser)) if len(edges) else at
    return dict(zip(found.tolist(), firsts[at[found]].tolist(), strict=True))


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
