"""Why a pair is listed, in sentences: what called it noisy, and what its texts have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rmo_curate.audit import answers
from rmo_curate.audit.checks import KINDS, Checked, Shared
from rmo_curate.audit.numerals import magnitude, percent
from rmo_curate.audit.per_pair import BOTH, CHOSEN, REJECTED
from rmo_curate.audit.scored import Movement, Scored, movement
from rmo_curate.audit.texts import Texts
from rmo_curate.audit.wording import moved_by
from rmo_curate.evidence.rules import RULES, Rule
from rmo_curate.evidence.wording import LEAST_LOG_ODDS, Reason, source_in_words
from rmo_curate.filter.grounds import Ground, ground

TOLD_LOG_ODDS = 0.405  # log(1.5): weaker sources are in the table of reasons alone
LEAST_NATS = 0.0005  # less would read as 0.000
ASK_THE_BASE = ("rmo", "rmo-ln")  # rules that also ask what the base prefers
SIDE_NAMES = {CHOSEN: "chosen", REJECTED: "rejected"}


def because(
    right: float | None,
    reasons: Sequence[Reason],
    movement: Sequence[str],
    findings: Sequence[str],
    *,
    visible: bool,
) -> str:
    """Why a pair is listed, in a sentence or two: a fault that a reader sees at once (`visible`), and what speaks
    loudest against its label where that is more likely wrong, with the other sources by name; else its first finding,
    else where its margin went.
    right: None where it cannot be told."""
    against = [reason for reason in reasons if reason.log_odds < 0]
    seen = f"{findings[0]} " if visible and findings else ""
    why = f"{against[0].text}{_others(reasons, against[0])}." if against else ""
    if why and right is None and sum(reason.log_odds for reason in reasons) < -LEAST_LOG_ODDS:
        return f"{seen}Against the label: {why}"
    if why and right is not None and right < 0.5:
        alone = f"by {source_in_words(against[0].source)} alone, " if len(reasons) == 1 else ""
        return f"{seen}{_capitalised(alone + 'the label')} is {percent(right)} likely to be right: {why}"
    return next(iter((*findings, *movement)), "")


def _others(reasons: Sequence[Reason], loudest: Reason) -> str:
    """What else speaks against the label, or for it, by name."""
    told = [reason for reason in reasons if reason is not loudest and abs(reason.log_odds) >= TOLD_LOG_ODDS]
    against = [source_in_words(reason.source) for reason in told if reason.log_odds < 0]
    favour = [source_in_words(reason.source) for reason in told if reason.log_odds > 0]
    sides = {"also against the label": against, "in its favour": favour}
    return "".join(f"; {side}: {', '.join(names)}" for side, names in sides.items() if names)


def _capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def margin_sentences(scored: Scored, i: int) -> Iterator[str]:
    """What the filter's rule made of the margins of pair `i`."""
    rule, because = RULES[scored.settings.rule], ground(scored.decisions, i)
    if because:
        done = "The filter flips it" if scored.decisions.flipped[i] else "The filter drops it as noisy"
        yield ground_sentence(because, rule, done)
    if not rule.needs_proxy:  # what another rule would have said decided nothing
        return
    if rule.name in ASK_THE_BASE and scored.logp[i, 0] <= -LEAST_NATS:
        yield f"The base prefers the rejected answer by {magnitude(-float(scored.logp[i, 0]))} nats."
    if moved := movement(scored, i):
        yield from movement_sentences(moved, moved_by(scored.end))


def ground_sentence(because: Ground, rule: Rule, done: str) -> str:
    """What called a pair noisy, with every number that it went by."""
    suspicion, threshold = magnitude(because.suspicion), magnitude(because.threshold)
    if rule.says_odds and because.right is not None:
        return (
            f"{done}: given all evidence, P(label right) is {percent(because.right)}, below 50%. Its suspicion, the "
            f"log-odds of a wrong label, is {suspicion}; pairs with {threshold} or more were called noisy."
        )
    said = (
        f"{done}: rule {rule.name} gives it a suspicion of {suspicion}; pairs with {threshold} or more were called "
        "noisy"
    )
    if because.right is None:
        return f"{said}. The rule uses nothing else: P(label right) played no part."
    return f"{said} if all evidence doubts the label, too: P(label right) is {percent(because.right)}, below 50%."


def movement_sentences(moved: Movement, mover: str) -> list[str]:
    """mover: what moved it, up to how far."""
    direction = "the rejected answer" if moved.nats < 0 else "the chosen answer"
    nats = abs(moved.nats)
    far = magnitude(nats) if nats >= LEAST_NATS else "less than 0.001"
    said = [
        f"{mover} {far} nats towards {direction}; "
        f"{percent(moved.share_higher)} of the scored pairs have a higher reward margin."
    ]
    if moved.steadily_down:
        said.append("It moved that way at every checkpoint.")
    elif moved.turned:
        said.append("It first moved towards the chosen answer, then away from it.")
    return said


def finding_sentences(checked: Checked, texts: Texts, i: int) -> list[str]:
    """Why pair `i` has its findings: what speaks loudest against its label or its use first."""
    said: list[tuple[int, str]] = []
    for name in KINDS:
        bits = int(checked.where[name][i])
        if not bits:
            continue
        if name in answers.CHECKS:
            for side, column in ((CHOSEN, texts.chosen), (REJECTED, texts.rejected)):
                if bits & side:
                    points = KINDS[name].points[0 if side == CHOSEN else 1]
                    said.append((points, f"The {SIDE_NAMES[side]} answer {answers.CHECKS[name](column[i])}."))
        else:
            said.append((max(KINDS[name].points), PAIR_SENTENCES[name](checked, texts, i)))
    return [sentence for _, sentence in sorted(said, key=lambda one: -one[0])]


def _reversed(checked: Checked, texts: Texts, i: int) -> str:
    return f"The pair {texts.ids[checked.reversed_by[i]]} prefers the same two answers the other way round."


def _near(checked: Checked, texts: Texts, i: int) -> str:
    pair = checked.near[i]
    other = pair.second if pair.first == i else pair.first
    return f"It nearly repeats the pair {texts.ids[other]}: {pair.similarity:.0%} of the answers' word sequences agree."


def _prefix(checked: Checked, texts: Texts, i: int) -> str:
    bits = int(checked.where["prefix"][i])
    if bits == BOTH:
        return "Both answers are the same except for white space at the ends."
    shorter, longer = ("chosen", "rejected") if bits == CHOSEN else ("rejected", "chosen")
    return f"The {longer} answer begins with the whole {shorter} one."


def _other_script(checked: Checked, texts: Texts, i: int) -> str:
    chosen, rejected = answers.script(texts.chosen[i]), answers.script(texts.rejected[i])
    return (
        f"The prompt is written in {checked.scripts[i]}, the chosen answer in {chosen} and the rejected one in "
        f"{rejected}."
    )


def _over_long(checked: Checked, texts: Texts, i: int) -> str:
    if texts.tokens is not None:
        return "It is longer than the run's --max-length, so it was not scored."
    return "It is longer than --max-length, as estimated from its bytes: a trainer would cut or drop it."


def _overlap(checked: Checked, texts: Texts, i: int) -> str:
    assert checked.overlap is not None
    name = checked.overlap.name
    return {
        Shared.PAIR: f"Its prompt and both answers are in {name}, too.",
        Shared.PROMPT: f"Its prompt is in {name}, too.",
        Shared.NEAR_PROMPT: f"A prompt with nearly the same words is in {name}.",
    }[checked.overlaps[i]]


PAIR_SENTENCES: dict[str, Callable[[Checked, Texts, int], str]] = {
    "reversed": _reversed,
    "cycle": lambda checked, _, i: f"It is part of a circle of preferences among {checked.circle_sizes[i]} answers.",
    "near_duplicate": _near,
    "prefix": _prefix,
    "other_script": _other_script,
    "over_long": _over_long,
    "overlap": _overlap,
}
