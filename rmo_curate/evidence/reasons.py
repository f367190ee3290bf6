"""Why a label is believed or doubted: what each source of evidence says, in words with numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmo_curate.evidence.answers import ANSWERS
from rmo_curate.evidence.gather import GENERATORS, REFERENCE, STATES, STYLE_SOURCE
from rmo_curate.evidence.posterior import Posterior
from rmo_curate.evidence.style import Gap
from rmo_curate.score.logistic import sigmoid

RANDOM_FLIPS = (
    "these estimates hold for labels flipped at random; labels that are wrong for a reason, such as a judge's liking "
    "for longer answers or for one model, look right by all that is learned from the data, so most of them are neither "
    "found nor counted"
)
SAID_FEATURES = 3  # of style, those that weigh most
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


def reasons(posterior: Posterior, pair: int) -> list[Reason]:
    """What each source says of a pair's label, what speaks loudest against it first; with the prior, log-odds add up to
    the posterior's."""
    said = [
        Reason(source, float(value), _text(posterior, source, float(value), pair))
        for source, value in zip(posterior.sources, posterior.contributions(pair), strict=True)
        if value != 0
    ]
    return sorted(said, key=lambda reason: reason.log_odds)


def _text(posterior: Posterior, source: str, log_odds: float, pair: int) -> str:
    towards = f"favour the {_side(log_odds)} answer by {abs(log_odds):.1f}"
    if source == ANSWERS:
        return _other_comparisons(posterior, pair)
    if source == STYLE_SOURCE:
        return _style(posterior, pair)
    if source == STATES:
        return f"the model's hidden states {towards}"
    if source == REFERENCE:
        return f"the reference's own log-probs {towards}"
    if source == GENERATORS:
        return (
            f"the model that wrote the {_side(log_odds)} answer usually writes the better one, by {abs(log_odds):.1f}"
        )
    return f"the margins of {source} {towards}"


def _other_comparisons(posterior: Posterior, pair: int) -> str:
    said = []
    for side, name in enumerate(("chosen", "rejected")):
        won, of = int(posterior.won[pair, side]), int(posterior.compared[pair, side])
        if of:
            lost = f"loses {of - won}" if 2 * won < of else f"wins {won}"
            said.append(f"the {name} answer {lost} of its {of} other comparison{'s' * (of > 1)}")
    return "; ".join(said)


def _style(posterior: Posterior, pair: int) -> str:
    """How often such a style wins, and the features that weigh most on that side."""
    from rmo_curate.evidence.texts import STYLE

    by_feature = posterior.style.by_feature(np.array([pair]))[0]
    total = float(by_feature.sum())
    wins = float(sigmoid(np.array(total)))
    order = np.argsort(-by_feature * np.sign(total))[:SAID_FEATURES]
    names = list(STYLE)
    difference = posterior.style.difference[pair]
    leading = [comparative(names[f], bool(difference[f] > 0)) for f in order if by_feature[f] * total > 0]
    which = f" ({', '.join(leading)})" if leading else ""
    verb = f"wins {wins:.0%}" if wins >= 0.5 else f"loses {1 - wins:.0%}"
    category = posterior.style.category_of(pair)
    where = f" in “{category}”" if category else ""
    return f"an answer in the style of the chosen one{which} {verb} of the time{where}"


def comparative(feature: str, more: bool) -> str:
    """What an answer with more of a feature than the other, or with less of it, is said to be."""
    if feature in UNLIKE_MORE:
        return UNLIKE_MORE[feature][0 if more else 1]
    return f"{'more' if more else 'fewer'} {feature}"


def _side(log_odds: float) -> str:
    return "chosen" if log_odds > 0 else "rejected"


def gap_lines(found: Sequence[Gap]) -> list[str]:
    """What decisions do to length and style, a line for the features with the largest gaps."""
    shown = [
        f"{gap.feature} {gap.before:+.2f} sd, {gap.after:+.2f} among the kept pairs" for gap in found[:SAID_FEATURES]
    ]
    return [f"chosen answers less rejected ones: {'; '.join(shown)}"] if shown else []


def in_words(source: str) -> str:
    """What a source of evidence is called in a sentence."""
    names = {
        ANSWERS: "the same answers' other comparisons",
        STYLE_SOURCE: "the answers' style",
        STATES: "the model's hidden states",
        REFERENCE: "the reference's log-probs",
        GENERATORS: "the models that wrote the answers",
    }
    return names.get(source, f"the margins of {source}")


def evidence_line(sources: Sequence[str], missing: Sequence[str]) -> str:
    """Which evidence there is, and what is left out, in a line."""
    left_out = f"; left out: {'; '.join(missing)}" if missing else ""
    return f"evidence: {', '.join(sources)}{left_out}"
