"""Evidence in words: reasons to doubt a label, evidence used and missing, effects of length, expected detection."""

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
    "these estimates assume that labels were flipped at random; labels that are wrong for a reason, such as a judge's "
    "preference for longer answers or for one model, agree with the patterns learned from the data, so most of them "
    "are neither found nor counted"
)
LEAST_LOG_ODDS = 0.0488  # log(1.05): smaller odds would be printed as 1.0 to 1
MOST_LOG_ODDS = 7.0  # larger odds are printed as "over 1,097 to 1"
SAID_GAPS = 3  # printed: the features with the largest gaps
UNLIKE_MORE = {  # feature of style -> words for the answer that has more of it, and for the one that has less
    "length": ("longer", "shorter"),
    "bold": ("more bold text", "less bold text"),
    "code marks": ("more code", "less code"),
    "distinct words": ("more varied wording", "more repetition"),
    "word length": ("longer words", "shorter words"),
    "ends a sentence": ("ends with a complete sentence", "stops mid-sentence"),
    "ends with a question": ("ends with a question", "does not end with a question"),
    "starts with a mark": ("starts with a mark or symbol", "starts with a letter or digit"),
    "starts upper-case": ("starts with a capital letter", "starts without a capital letter"),
    "sorry": ("apologises", "does not apologise"),
    "as an AI": ("says “as an AI”", "does not say “as an AI”"),
    "opens with assent": ("opens by agreeing", "does not open by agreeing"),
    "first person": ("more first person", "less first person"),
    "second person": ("more use of “you”", "less use of “you”"),
    "words of the prompt": ("closer to the prompt's wording", "further from the prompt's wording"),
    "share of the prompt's words": ("repeats more of the prompt", "repeats less of the prompt"),
}  # of any other feature: more or fewer


@dataclass(frozen=True)
class Reason:
    """What one source of evidence says about a label."""

    source: str
    log_odds: float  # added to the log-odds that the label is right; negative: against the label
    text: str


def reasons(contributions: Sequence[Contribution]) -> tuple[Reason, ...]:
    """Reasons to believe or doubt a label, in the order of its contributions."""
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
        return "the two models that wrote these answers win about equally often elsewhere"
    if one.source == GENERATORS:
        return f"the model that wrote the {side} answer usually wins on other prompts (odds of {odds})"
    return f"the margins of {one.source} {towards}"


def odds_text(log_odds: float) -> str:
    """Odds from log-odds of 0 or more, such as "3.5 to 1"."""
    if log_odds > MOST_LOG_ODDS:
        return f"over {math.exp(MOST_LOG_ODDS):,.0f} to 1"
    odds = math.exp(log_odds)
    return f"{odds:,.0f} to 1" if odds >= 10 else f"{odds:.1f} to 1"


def comparisons_text(comparisons: OtherComparisons) -> str:
    said = []
    for name, won, of in zip(("chosen", "rejected"), comparisons.won, comparisons.compared, strict=True):
        if of:
            result = f"loses {of - won}" if 2 * won < of else f"wins {won}"
            said.append(f"the {name} answer {result} of {of} other comparison{'s' * (of > 1)}")
    return "; ".join(said)


def style_text(style: StyleOfChosen) -> str:
    leading = ", ".join(comparative(feature, more) for feature, more in style.leading)
    which = f" ({leading})" if leading else ""
    within = f"where the prompt says “{style.kind}”" if style.of_word else f"in “{style.kind}”"
    where = f", judged by what wins {within}," if style.kind else ""
    return f"the chosen answer's style{which}{where}"


def comparative(feature: str, more: bool) -> str:
    """Words for an answer that has more, or less, of a feature than the other answer."""
    if feature in UNLIKE_MORE:
        return UNLIKE_MORE[feature][0 if more else 1]
    return f"{'more' if more else 'fewer'} {feature}"


def source_in_words(source: str) -> str:
    """The name of a source of evidence in a sentence."""
    names = {
        ANSWERS: "other comparisons of the same answers",
        STYLE_SOURCE: "the answers' style",
        STATES: "the model's hidden states",
        REFERENCE: "the reference's log-probs",
        GENERATORS: "the models that wrote the answers",
    }
    return names.get(source, f"the margins of {source}")


def missing_text(missing: Missing) -> str:
    """Which evidence is missing, and why."""
    return {
        Lack.NOT_HELD_OUT: f"{missing.checkpoint}: not known to be held out; it may have memorised these labels",
        Lack.PROXY: "no held-out proxy",
        Lack.MODEL: "no model has scored these pairs",
        Lack.PROMPTS: f"style: a held-out fit needs {LEAST_PROMPTS} different prompts, found {missing.prompts}",
        Lack.CATEGORIES: "categories: no column with the kind of prompt",
        Lack.GENERATORS: "generators: no columns with the models that wrote the answers",
    }[missing.lack]


def evidence_line(sources: Sequence[str], missing: Sequence[Missing]) -> str:
    """Evidence used and missing, in one line."""
    left_out = f"; missing: {'; '.join(map(missing_text, missing))}" if missing else ""
    return f"evidence: {', '.join(sources)}{left_out}"


def gap_lines(gaps: Sequence[Gap]) -> list[str]:
    """How decisions change length and style: one line with the largest gaps."""
    shown = [gap_text(gap) for gap in gaps[:SAID_GAPS]]
    return [f"mean difference between chosen and rejected answers, in sd: {'; '.join(shown)}"] if shown else []


def gap_text(gap: Gap) -> str:
    before, after = f"{gap.before:+.2f}", f"{gap.after:+.2f}"
    return f"{gap.feature} {before}" if before == after else f"{gap.feature} {before} before, {after} after"


def lengths_line(lengths: Lengths) -> str:
    """Whether length misleads rules on these data, in one line."""
    share = lengths.longer_chosen
    if lengths.alike:
        return (
            f"length does not decide here (the chosen answer is the longer one in {share:.0%} of {lengths.unequal:,} "
            "scored pairs that differ in length), so it does not mislead rules on summed log-probs, such as the paper's"
        )
    which = "longer" if share > 0.5 else "shorter"
    return (
        f"the chosen answer is the {which} one in {max(share, 1 - share):.0%} of {lengths.unequal:,} scored pairs that "
        f"differ in length. Summed log-probs fall with length (the base model's agree with the label in "
        f"{lengths.base_accuracy:.0%} of {lengths.pairs:,} scored pairs), so the paper's rule follows length; "
        "use irm instead"
    )


def outlook_lines(outlook: Outlook) -> list[str]:
    """How well wrong labels can be expected to be found with this many pairs."""
    if outlook.pairs < min(one.least_pairs for one in outlook.measured):
        return []  # fewer pairs than any measurement
    measured = " and ".join(f"{one.here:.2f} on {one.data}" for one in outlook.measured)
    said = [
        f"With {outlook.pairs:,} pairs, the length-matched AUROC for labels flipped at random is about this, by "
        f"interpolation between measurements (0.5 is chance): {measured}."
    ]
    if not outlook.scored:
        with_model = " and ".join(f"{one.with_model:.2f}" for one in outlook.measured)
        said.append(f"With scores of a 135M model it is {with_model}.")
    if outlook.pairs < max(one.most_pairs for one in outlook.measured):
        at_most = " and ".join(
            f"{one.at_most:.2f} on {one.data} ({one.most_pairs:,} of them)" for one in outlook.measured
        )
        said.append(f"With scores and as many pairs as were measured at most, it was {at_most}.")
    return said
