"""What explains a data set: the findings that are strong, each by a statistic of its own, in a sentence with its n."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rmo_curate.audit.checks import CONTRADICTIONS
from rmo_curate.audit.findings import Counts
from rmo_curate.audit.numerals import percent
from rmo_curate.audit.overview import FindingCount, Opening
from rmo_curate.evidence.style import Gap
from rmo_curate.evidence.wording import comparative

LEAST_SHARE = 0.05  # of the pairs (of the records) that a finding must concern
CONTRADICTED = 0.01  # share of the pairs from which contradictions stand out: one label in two of them is wrong
LOPSIDED, SURE = 0.15, 3.0  # how far from one half a share of wins must be, and in how many standard errors
WIDE_GAP = 0.5  # sd of the difference of a feature
MOST_OPENINGS, MOST_FEATURES = 2, 3
MOST = 4  # on the first screen and in the terminal
OF_LENGTH = ("length", "words")  # features of style that the length says already


@dataclass(frozen=True)
class StandingOut:
    """A strong finding. `section`: the section of the page that has its details."""

    text: str
    section: str


@dataclass(frozen=True)
class Observed:
    """What the findings are chosen from. longer, shorter: pairs whose chosen answer is that."""

    counts: Counts
    findings: Mapping[str, FindingCount]
    lengths_known: bool  # by the tokenizer and the limit of a run; estimated ones cost nobody a pair
    contradictions: int
    openings: Sequence[Opening]
    longer: int
    shorter: int
    gaps: Sequence[Gap]
    gaps_of: int  # pairs


def standing_out(seen: Observed) -> tuple[StandingOut, ...]:
    """The strong findings, what makes labels doubtful first."""
    by_answers = (*begun_alike(seen), *by_length(seen), *on_one_side(seen), *in_form(seen))
    return (*contradicting(seen), *by_answers, *lost(seen))


def standard_errors(won: int, lost: int) -> float:
    """How far from one half the share of wins is, in the binomial's standard errors at one half, sqrt(n) / 2 wins."""
    n = won + lost
    return abs(won - n / 2) / (math.sqrt(n) / 2) if n else 0.0


def lopsided(won: int, lost: int, pairs: int) -> bool:
    """Whether answers of a kind win, or lose, so often that the kind tells the label: by LOPSIDED and by SURE, and in
    LEAST_SHARE of the pairs."""
    n = won + lost
    return (
        n >= LEAST_SHARE * pairs and abs(won / n - 0.5) >= LOPSIDED and standard_errors(won, lost) >= SURE
        if n
        else False
    )


def contradicting(seen: Observed) -> Iterator[StandingOut]:
    n, pairs = seen.contradictions, seen.counts.pairs
    if pairs and n / pairs >= CONTRADICTED:
        yield StandingOut(
            f"{n:,} of {pairs:,} pairs ({percent(n / pairs)}) contradict others of the same prompt, so some of their "
            "labels are wrong or a matter of taste.",
            "findings",
        )


def lost(seen: Observed) -> Iterator[StandingOut]:
    """Records that are no pairs, and findings of whole pairs."""
    counts = seen.counts
    if counts.records and counts.rejects / counts.records >= LEAST_SHARE:
        reason = next(iter(counts.rejects_by_reason)).replace("_", " ")
        yield StandingOut(
            f"{counts.rejects:,} of {counts.records:,} records ({percent(counts.rejects / counts.records)}) are not "
            f"usable as pairs; the commonest reason is “{reason}”.",
            "rejects",
        )
    for name, finding in seen.findings.items():
        whole = finding.of == "pairs" and finding.chosen_only is None and name not in CONTRADICTIONS
        same = name == "near_duplicate" and finding.count <= seen.contradictions  # both ways is nearly the same, too
        estimated = name == "over_long" and not seen.lengths_known
        if whole and not same and not estimated and finding.share >= LEAST_SHARE:
            yield StandingOut(
                f"{finding.title}: {finding.count:,} of {counts.pairs:,} pairs ({percent(finding.share)}).",
                f"explained-{name}",
            )


def begun_alike(seen: Observed) -> Iterator[StandingOut]:
    strong = [o for o in seen.openings if lopsided(o.chosen, o.rejected, seen.counts.pairs)]
    for o in sorted(strong, key=lambda o: -standard_errors(o.chosen, o.rejected))[:MOST_OPENINGS]:
        n = o.chosen + o.rejected
        yield StandingOut(
            f"Of the {n:,} answers that begin with “{o.words}”, {percent(o.chosen / n)} are the chosen ones: the first "
            "words alone predict the label.",
            "openings",
        )


def by_length(seen: Observed) -> Iterator[StandingOut]:
    if lopsided(seen.longer, seen.shorter, seen.counts.pairs):
        n, more = seen.longer + seen.shorter, seen.longer > seen.shorter
        share = max(seen.longer, seen.shorter) / n
        yield StandingOut(
            f"The {'longer' if more else 'shorter'} answer is the chosen one in {percent(share)} of the {n:,} pairs "
            f"whose answers differ in length: a model trained on these learns to write {'more' if more else 'less'}.",
            "length",
        )


def on_one_side(seen: Observed) -> Iterator[StandingOut]:
    for name, finding in seen.findings.items():
        chosen, rejected = finding.chosen_only or 0, finding.rejected_only or 0
        if lopsided(chosen, rejected, seen.counts.pairs):
            yield StandingOut(
                f"{finding.title}: only the chosen one in {chosen:,} pairs, only the rejected one in {rejected:,}, of "
                f"{seen.counts.pairs:,} pairs.",
                f"explained-{name}",
            )


def in_form(seen: Observed) -> Iterator[StandingOut]:
    wide = [g for g in seen.gaps if g.feature not in OF_LENGTH and abs(g.before) >= WIDE_GAP]
    sure = [g for g in wide if abs(g.before) * math.sqrt(seen.gaps_of) >= SURE]
    if sure:
        told = ", ".join(f"{comparative(g.feature, g.before > 0)} ({abs(g.before):.2f})" for g in sure[:MOST_FEATURES])
        yield StandingOut(
            f"Chosen answers differ in form from rejected ones, in standard deviations over {seen.gaps_of:,} pairs: "
            f"{told}.",
            "evidence",
        )
