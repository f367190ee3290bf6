"""Evidence in sentences: why a label is doubted, which evidence there is, what lengths do, what to expect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rmo_curate.evidence.answers import ANSWERS
from rmo_curate.evidence.contributions import Contribution, OtherComparisons, StyleOfChosen
from rmo_curate.evidence.expected import Outlook
from rmo_curate.evidence.gather import GENERATORS, LEAST_PROMPTS, REFERENCE, STATES, STYLE_SOURCE
from rmo_curate.evidence.lengths import Lengths
from rmo_curate.evidence.posterior import Lack, Missing
from rmo_curate.evidence.style import Gap

RANDOM_FLIPS = (
    "these estimates hold for labels flipped at random; labels that are wrong for a reason, such as a judge's liking "
    "for longer answers or for one model, look right by all that is learned from the data, so most of them are neither "
    "found nor counted"
)
LEAST_LOG_ODDS = 0.0488  # below which odds would read as 1.0 to 1: log(1.05)
MOST_LOG_ODDS = 7.0  # beyond which odds are not told apart
SAID_GAPS = 3  # of features, those with the largest
UNLIKE_MORE = {  # features of style -> what the answer with more of it, and with less of it, is said to be
    "length": ("longer", "shorter"),
    "bold": ("more bold text", "less bold text"),
    "code marks": ("more code", "less code"),
    "distinct words": ("more varied wording", "more repetition"),
    "word length": ("longer words", "shorter words"),
    "ends a sentence": ("ends with a full sentence", "stops mid-sentence"),
    "starts upper-case": ("starts with a capital letter", "starts without a capital letter"),
    "sorry": ("says sorry", "does not say sorry"),
    "as an AI": ("says “as an AI”", "does not say “as an AI”"),
    "opens with assent": ("opens by agreeing", "does not open by agreeing"),
    "first person": ("more in the first person", "less in the first person"),
    "second person": ("more talk of “you”", "less talk of “you”"),
    "words of the prompt": ("closer to the prompt's wording", "further from the prompt's wording"),
    "share of the prompt's words": ("repeats more of the prompt", "repeats less of the prompt"),
}  # of any other: more or fewer


@dataclass(frozen=True)
class Reason:
    """What one source says of a label."""

    source: str
    log_odds: float  # added to those of a right label: below 0 it speaks against the label
    text: str


def reasons(contributions: Sequence[Contribution]) -> tuple[Reason, ...]:
    """Why a label is believed or doubted, in the order of its contributions."""
    return tuple(Reason(one.source, one.log_odds, reason_text(one)) for one in contributions)


def reason_text(one: Contribution) -> str:
    side = "chosen" if one.log_odds > 0 else "rejected"
    odds = odds_text(abs(one.log_odds))
    hardly = abs(one.log_odds) < LEAST_LOG_ODDS
    towards = "hardly favour either answer" if hardly else f"favour the {side} answer {odds}"
    if one.comparisons:
        return comparisons_text(one.comparisons)
    if one.style:
        favours = "hardly favours either answer" if hardly else f"favours the {side} answer {odds}"
        return f"{style_text(one.style)} {favours}"
    if one.source == STATES:
        return f"the model's hidden states {towards}"
    if one.source == REFERENCE:
        return f"the reference's own log-probs {towards}"
    if one.source == GENERATORS and hardly:
        return "the models that wrote the two answers do about equally well"
    if one.source == GENERATORS:
        return f"the model that wrote the {side} answer usually writes the better one, {odds}"
    return f"the margins of {one.source} {towards}"


def odds_text(log_odds: float) -> str:
    """Odds in favour (log-odds of 0 or more) as a reader says them."""
    if log_odds > MOST_LOG_ODDS:
        return f"over {math.exp(MOST_LOG_ODDS):,.0f} to 1"
    odds = math.exp(log_odds)
    return f"{odds:,.0f} to 1" if odds >= 10 else f"{odds:.1f} to 1"


def comparisons_text(comparisons: OtherComparisons) -> str:
    said = []
    for name, won, of in zip(("chosen", "rejected"), comparisons.won, comparisons.compared, strict=True):
        if of:
            result = f"loses {of - won}" if 2 * won < of else f"wins {won}"
            said.append(f"the {name} answer {result} of its {of} other comparison{'s' * (of > 1)}")
    return "; ".join(said)


def style_text(style: StyleOfChosen) -> str:
    leading = ", ".join(comparative(feature, more) for feature, more in style.leading)
    which = f" ({leading})" if leading else ""
    where = f", by the taste of “{style.category}”," if style.category else ""
    return f"the chosen answer's style{which}{where}"


def comparative(feature: str, more: bool) -> str:
    """What an answer with more of a feature than the other, or with less of it, is said to be."""
    if feature in UNLIKE_MORE:
        return UNLIKE_MORE[feature][0 if more else 1]
    return f"{'more' if more else 'fewer'} {feature}"


def source_in_words(source: str) -> str:
    """What a source of evidence is called in a sentence."""
    names = {
        ANSWERS: "the same answers' other comparisons",
        STYLE_SOURCE: "the answers' style",
        STATES: "the model's hidden states",
        REFERENCE: "the reference's log-probs",
        GENERATORS: "the models that wrote the answers",
    }
    return names.get(source, f"the margins of {source}")


def missing_text(missing: Missing) -> str:
    """What evidence is not there, and why."""
    return {
        Lack.NOT_HELD_OUT: f"{missing.checkpoint}: not known to be held out, so it may have memorised these labels",
        Lack.PROXY: "no held-out proxy",
        Lack.MODEL: "no model has scored these pairs",
        Lack.PROMPTS: f"style: {missing.prompts} prompt, and a held-out fit needs {LEAST_PROMPTS}",
        Lack.CATEGORIES: "categories: no column says what kind of prompt a pair is of",
        Lack.GENERATORS: "generators: no pair of columns says which model wrote an answer",
    }[missing.lack]


def evidence_line(sources: Sequence[str], missing: Sequence[Missing]) -> str:
    """Which evidence there is, and what is left out, in a line."""
    left_out = f"; left out: {'; '.join(map(missing_text, missing))}" if missing else ""
    return f"evidence: {', '.join(sources)}{left_out}"


def gap_lines(gaps: Sequence[Gap]) -> list[str]:
    """What decisions do to length and style, a line for the features with the largest gaps."""
    shown = [f"{gap.feature} {gap.before:+.2f} sd, {gap.after:+.2f} among the kept pairs" for gap in gaps[:SAID_GAPS]]
    return [f"chosen answers less rejected ones: {'; '.join(shown)}"] if shown else []


def lengths_line(lengths: Lengths) -> str:
    """Which rule suits these data, in a line."""
    share = lengths.longer_chosen
    if lengths.alike:
        return (
            f"answers are of like length (in {share:.0%} of {lengths.unequal:,} scored pairs that differ in it the "
            "chosen one is the longer): rules on summed log-probs, the paper's among them, are not misled by length "
            "here"
        )
    which = "longer" if share > 0.5 else "shorter"
    return (
        f"{max(share, 1 - share):.0%} of the chosen answers are the {which} ones ({lengths.unequal:,} scored pairs "
        f"differ in length): summed log-probs fall with length (the base's are right in {lengths.base_accuracy:.0%} of "
        f"{lengths.pairs:,} scored pairs), so the paper's rule follows length; prefer irm"
    )


def outlook_lines(outlook: Outlook) -> list[str]:
    """What to expect of the evidence at a number of pairs."""
    if outlook.pairs < min(one.least_pairs for one in outlook.measured):
        return []  # fewer than anything was measured at
    measured = " and ".join(f"{one.here:.2f} on {one.data}" for one in outlook.measured)
    said = [
        f"At {outlook.pairs:,} pairs a label flipped at random was more suspect than a right one of like lengths in "
        f"this share of cases (0.5 is chance): {measured}."
    ]
    if not outlook.scored:
        with_model = " and ".join(f"{one.with_model:.2f}" for one in outlook.measured)
        said.append(f"Scored with a 135M model the shares were {with_model}.")
    if outlook.pairs < max(one.most_pairs for one in outlook.measured):
        at_most = " and ".join(f"{one.at_most:.2f} at {one.most_pairs:,} pairs" for one in outlook.measured)
        said.append(f"More pairs help: scored, {at_most}.")
    return said
