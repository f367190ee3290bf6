"""Counts over the whole data: how many pairs have each finding, how long texts are, how answers begin."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from rmo_curate.audit.checks import KINDS, Checked, token_counts
from rmo_curate.audit.findings import Counts
from rmo_curate.audit.per_pair import BOTH, CHOSEN, REJECTED, WHOLE
from rmo_curate.audit.suspects import presentable
from rmo_curate.audit.texts import Texts

WHERE = {CHOSEN: "chosen", REJECTED: "rejected", BOTH: "both", WHOLE: "pair"}
REJECTED_RECORDS = {  # findings that make a record no pair at all
    "duplicate": "The same pair again",
    "identical_responses": "Both answers the same",
    "empty_response": "An empty answer",
}
OPENING_WORDS = 4
OPENINGS = 10
LEAST_OPENINGS = 5  # answers that begin alike


@dataclass(frozen=True)
class FindingCount:
    """How many pairs have a finding, or how many input records if it makes a record a reject; `share` is of those."""

    title: str
    of: str  # "pairs" or "records"
    count: int
    share: float
    chosen_only: int | None  # None: the finding concerns the whole pair
    rejected_only: int | None
    both: int | None


@dataclass(frozen=True)
class TextStats:
    distinct_prompts: int
    most_pairs_of_a_prompt: int
    near_duplicate_clusters: int
    writing_systems: dict[str, int]  # of the prompts, the commonest first


@dataclass(frozen=True)
class Quantiles:
    median: float
    p95: float
    most: float


@dataclass(frozen=True)
class Sizes:
    """Lengths of all prompts, chosen or rejected answers."""

    words: Quantiles
    characters: Quantiles
    tokens: Quantiles  # as `tokens_counted_by` says


@dataclass(frozen=True)
class Opening:
    """The first words of many answers, and how often they are preferred."""

    words: str
    chosen: int
    rejected: int


def finding_counts(checked: Checked, counts: Counts) -> dict[str, FindingCount]:
    """Every finding, those of none included; those of records first, then in the order of KINDS."""
    by_name = {}
    for name, title in REJECTED_RECORDS.items():
        n = counts.rejects_by_reason.get(name, 0)
        by_name[name] = FindingCount(title, "records", n, n / max(1, counts.records), None, None, None)
    for name, where in checked.where.items():
        n = int((where > 0).sum())
        sides = [int((where == side).sum()) if KINDS[name].sided else None for side in (CHOSEN, REJECTED, BOTH)]
        by_name[name] = FindingCount(KINDS[name].title, "pairs", n, n / max(1, counts.pairs), *sides)
    return by_name


def text_stats(checked: Checked) -> TextStats:
    per_prompt = np.bincount(checked.preferences.prompt) if len(checked.preferences.prompt) else np.zeros(1, int)
    systems = Counter(name or "none known" for name in checked.scripts)
    return TextStats(
        distinct_prompts=checked.preferences.prompts,
        most_pairs_of_a_prompt=int(per_prompt.max()),
        near_duplicate_clusters=checked.near_clusters,
        writing_systems=dict(systems.most_common()),
    )


def quantiles(values: np.ndarray) -> Quantiles:
    if not len(values):
        return Quantiles(0.0, 0.0, 0.0)
    return Quantiles(float(np.median(values)), float(np.quantile(values, 0.95)), float(values.max()))


def sizes(texts: Texts, checked: Checked) -> dict[str, Sizes]:
    tokens = token_counts(texts)
    columns = {"prompt": texts.prompt, "chosen": texts.chosen, "rejected": texts.rejected}
    return {
        name: Sizes(
            quantiles(checked.words[:, k]),
            quantiles(np.fromiter(map(len, column), np.int64, len(column))),
            quantiles(tokens[:, k]),
        )
        for k, (name, column) in enumerate(columns.items())
    }


def openings(texts: Texts) -> tuple[Opening, ...]:
    """The commonest first words of answers, and how often such an answer was preferred."""
    chosen, rejected = (
        Counter(" ".join(text[:80].split()[:OPENING_WORDS]) for text in column)
        for column in (texts.chosen, texts.rejected)
    )
    both = chosen + rejected
    return tuple(
        Opening(presentable(words), chosen[words], rejected[words])
        for words, n in sorted(both.items(), key=lambda item: (-item[1], item[0]))[:OPENINGS]
        if n >= LEAST_OPENINGS and words
    )
