"""What is looked for in every pair without a model: a registry of findings, and who has them.

To add one: a `Kind` here, its flags in `check` (of an answer by itself: an entry in `answers.CHECKS`), a page
docs/findings/<name>.md, a test. Page, audit.json, --fail-on and terminal take it from here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from functools import cached_property

import numpy as np

from rmo_curate.audit import answers
from rmo_curate.audit.near import NearPair, near_pairs, nearest_prompts
from rmo_curate.audit.per_pair import CHOSEN, REJECTED, WHOLE, per_pair
from rmo_curate.audit.preferences import Preferences, circles, preferences, reversals, text_key
from rmo_curate.audit.shingles import PROMPT_MARK, profile
from rmo_curate.audit.texts import Texts
from rmo_train.console.progress import progress

CONTRADICTIONS = ("reversed", "cycle")
LEAST_VISIBLE = 2  # points of a fault that speaks for itself
BYTES_A_TOKEN = 4  # of UTF-8; an estimate where no model has tokenised the data


@dataclass(frozen=True)
class Kind:
    """A finding. `points` order the pairs: what it says against the label, or against using the pair at all.

    One without points is counted and shown, but lists no pair: there is nothing in it to decide by reading.
    """

    name: str
    title: str
    points: tuple[int, int, int]  # on the chosen answer only, on the rejected one only, on both or on the pair

    @property
    def sided(self) -> bool:
        """Whether one answer can have it and the other not."""
        return self.points[0] > 0

    @property
    def lists(self) -> bool:
        """Whether a pair is one to look at for it."""
        return any(self.points)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("reversed", "Preferred both ways", (0, 0, 4)),
        Kind("cycle", "Preferred in a circle", (0, 0, 3)),
        Kind("repetitive", "Answer repeats itself", (3, 0, 1)),
        Kind("template_marker", "Chat template in the text", (3, 1, 2)),
        Kind("encoding", "Damaged characters", (3, 1, 1)),
        Kind("other_script", "Another writing system", (3, 0, 1)),
        Kind("truncated", "Answer stops short", (2, 0, 1)),
        Kind("prefix", "One answer begins the other", (2, 1, 1)),
        Kind("refusal", "Answer refuses", (2, 0, 0)),
        Kind("overlap", "Also in the held-out data", (0, 0, 2)),
        Kind("near_duplicate", "Nearly the same pair again", (0, 0, 1)),
        Kind("over_long", "Over-long pair", (0, 0, 0)),
        Kind("boilerplate", "Stock phrases", (1, 0, 0)),
    )
}


class Shared(Enum):
    """What of a pair is in the held-out data, too."""

    PAIR = auto()  # prompt and both answers
    PROMPT = auto()
    NEAR_PROMPT = auto()  # nearly the same words


@dataclass(frozen=True)
class Overlap:
    """What the data share with the held-out data (`--against`)."""

    name: str
    held_out_pairs: int
    same_pairs: int  # pairs whose prompt and both answers are there, too
    same_prompts: int  # pairs whose prompt is there, too; same_pairs included
    near_prompts: int  # pairs whose prompt is nearly the same as one there
    pairs: int  # pairs with any of these


@dataclass(frozen=True)
class Checked:
    """Findings of all pairs. `where` holds bits, uint8 [pairs], for each of KINDS; `words` int64 [pairs, 3]."""

    where: dict[str, np.ndarray]
    words: np.ndarray  # of prompt, chosen, rejected
    scripts: list[str]  # of the prompts
    preferences: Preferences
    reversed_by: dict[int, int]
    circle_sizes: dict[int, int]
    near: dict[int, NearPair]  # a pair -> the first one that it nearly repeats
    near_clusters: int
    overlap: Overlap | None
    overlaps: dict[int, Shared]  # a pair -> what of it is in the held-out data

    @cached_property
    def points(self) -> np.ndarray:
        """Points of each pair over all findings: int64 [pairs]."""
        total = np.zeros(len(self.words), np.int64)
        for name, where in self.where.items():
            chosen, rejected, whole = KINDS[name].points
            total += np.select([where == 0, where == CHOSEN, where == REJECTED], [0, chosen, rejected], whole)
        return total

    @cached_property
    def visible(self) -> np.ndarray:
        """Pairs with a fault that a reader sees at once: one of the chosen answer alone, of LEAST_VISIBLE points, or a
        contradiction of another pair. bool [pairs]."""
        seen = np.zeros(len(self.words), bool)
        for name, where in self.where.items():
            chosen = KINDS[name].points[0]
            seen |= where > 0 if name in CONTRADICTIONS else (where == CHOSEN) & (chosen >= LEAST_VISIBLE)
        return seen

    @cached_property
    def any(self) -> np.ndarray:
        """Pairs with at least one finding that lists them: bool [pairs]."""
        return np.any([where > 0 for name, where in self.where.items() if KINDS[name].lists], axis=0)


def check(texts: Texts, max_length: int | None, held_out: Texts | None = None, held_out_name: str = "") -> Checked:
    """Look for every finding. max_length: tokens of prompt + longer answer; None: no limit. held_out: what must not be
    in here."""
    told = per_pair(texts)
    where = {name: np.zeros(len(texts), np.uint8) for name in KINDS}
    where |= dict(zip(answers.CHECKS, told.checks.T, strict=True))
    where |= {"prefix": told.prefix, "other_script": told.other_script}
    with progress("compare the texts", 3, "step") as bar:
        where["over_long"] = over_long(texts, max_length) * np.uint8(WHOLE)
        edges = preferences(told.keys)
        reversed_by = reversals(edges)
        circle_sizes = circles(edges, list(reversed_by))
        bar.advance()
        near = near_pairs(texts, told.signatures)
        first_near = first_of_each(near)
        for pair in near:
            if pair.swapped:
                reversed_by.setdefault(pair.first, pair.second)
                reversed_by.setdefault(pair.second, pair.first)
        bar.advance()
        overlap, overlaps = None, dict[int, Shared]()
        if held_out is not None:
            overlap, overlaps = overlap_with(texts, told.prompt_signatures, held_out, held_out_name)
        bar.advance()
    for name, pairs in (
        ("reversed", reversed_by),
        ("cycle", circle_sizes),
        ("near_duplicate", first_near),
        ("overlap", overlaps),
    ):
        where[name][list(pairs)] = WHOLE
    clusters, scripts = cluster_count(near), told.script.tolist()
    return Checked(
        where, told.words, scripts, edges, reversed_by, circle_sizes, first_near, clusters, overlap, overlaps
    )


def token_counts(texts: Texts) -> np.ndarray:
    """Tokens of prompt, chosen, rejected: a model's where there are some, else estimated from bytes; [pairs, 3]."""
    if texts.tokens is not None:
        return texts.tokens
    columns = [
        np.fromiter((len(t.encode("utf-8", "replace")) // BYTES_A_TOKEN for t in column), np.int64, len(texts))
        for column in (texts.prompt, texts.chosen, texts.rejected)
    ]
    return np.stack(columns, axis=1)


def over_long(texts: Texts, max_length: int | None) -> np.ndarray:
    if texts.too_long is not None:
        return texts.too_long
    if max_length is None:
        return np.zeros(len(texts), dtype=bool)
    tokens = token_counts(texts)
    return tokens[:, 0] + tokens[:, 1:].max(axis=1, initial=0) > max_length


def first_of_each(near: list[NearPair]) -> dict[int, NearPair]:
    """Each pair that is near another, with the earliest of those."""
    first: dict[int, NearPair] = {}
    for pair in sorted(near, key=lambda p: (p.first, p.second)):
        first.setdefault(pair.second, pair)
        first.setdefault(pair.first, pair)
    return first


def cluster_count(near: list[NearPair]) -> int:
    import networkx

    return networkx.number_connected_components(networkx.Graph([(p.first, p.second) for p in near]))


def overlap_with(texts: Texts, signatures: np.ndarray, held_out: Texts, name: str) -> tuple[Overlap, dict[int, Shared]]:
    """Pairs whose prompt, or a nearly equal one, is in the held-out data. `signatures`: of the prompts."""
    prompts = {text_key(text) for text in held_out.prompt}
    contents = {frozenset(map(text_key, answers)) for answers in zip(held_out.chosen, held_out.rejected, strict=True)}
    near = nearest_prompts(signatures, profile(held_out.prompt, PROMPT_MARK)[1], texts.prompt, held_out.prompt)
    shared: dict[int, Shared] = {}
    counts: Counter[str] = Counter()
    for i, (prompt, chosen, rejected) in enumerate(zip(texts.prompt, texts.chosen, texts.rejected, strict=True)):
        if text_key(prompt) in prompts:
            same = frozenset((text_key(chosen), text_key(rejected))) in contents
            counts["prompts"] += 1
            counts["pairs"] += same
            shared[i] = Shared.PAIR if same else Shared.PROMPT
        elif near[i] >= 0:
            counts["near"] += 1
            shared[i] = Shared.NEAR_PROMPT
    return Overlap(name, len(held_out), counts["pairs"], counts["prompts"], counts["near"], len(shared)), shared
