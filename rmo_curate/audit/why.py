"""Why a pair is listed, in sentences: what called it noisy, and what its texts have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rmo_curate.audit import answers
from rmo_curate.audit.checks import ANSWER_CHECKS, BOTH, CHOSEN, KINDS, REJECTED, Checked, Shared
from rmo_curate.audit.numerals import magnitude, percent
from rmo_curate.audit.scored import Movement, Scored, movement
from rmo_curate.audit.texts import Texts
from rmo_curate.audit.wording import moved_by
from rmo_curate.evidence.rules import RULES, Rule
from rmo_curate.evidence.wording import Reason
from rmo_curate.filter.grounds import Ground, ground

LEAST_NATS = 0.0005  # less would read as 0.000
ASK_THE_BASE = ("rmo", "rmo-ln")  # rules that also ask what the base prefers
SIDE_NAMES = {CHOSEN: "chosen", REJECTED: "rejected"}


def because(right: float | None, reasons: Sequence[Reason], movement: Sequence[str], findings: Sequence[str]) -> str:
    """Why a pair is listed, in one sentence: what speaks loudest against its label where that is more likely wrong,
    else its first finding, else where its margin went."""
    against = [reason for reason in reasons if reason.log_odds < 0]
    if right is not None and right < 0.5 and against:
        return f"The label is {percent(right)} likely to be right: {against[0].text}."
    return next(iter((*findings, *movement)), "")


def margin_sentences(scored: Scored, i: int) -> Iterator[str]:
    """What the filter's rule made of the margins of pair `i`."""
    rule, because = RULES[scored.settings.rule], ground(scored.decisions, i)
    if because:
        yield ground_sentence(because, rule, "Flipped" if scored.decisions.flipped[i] else "Dropped as noisy")
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
            f"{done}: by all evidence P(label right) is {percent(because.right)}, below 50%. Its suspicion, the "
            f"log-odds of a wrong label, is {suspicion}; pairs of {threshold} or more were called noisy."
        )
    said = (
        f"{done}: rule {rule.name} gives it a suspicion of {suspicion}; pairs of {threshold} or more were called noisy"
    )
    if because.right is None:
        return f"{said}. The rule asks nothing else: P(label right) had no part in it."
    return f"{said} where all evidence doubts the label, too: P(label right) is {percent(because.right)}, below 50%."


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
        if name in ANSWER_CHECKS:
            for side, points in zip((CHOSEN, REJECTED), KINDS[name].points, strict=False):
                if bits & side:
                    said.append((points, f"The {SIDE_NAMES[side]} answer {checked.said[name, side][i]}."))
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
        return "Both answers are the same but for white space at the ends."
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
        Shared.NEAR_PROMPT: f"A prompt of nearly the same words is in {name}.",
    }[checked.overlaps[i]]


PAIR_SENTENCES: dict[str, Callable[[Checked, Texts, int], str]] = {
    "reversed": _reversed,
    "cycle": lambda checked, _, i: f"It closes a circle of preferences among {checked.circle_sizes[i]} answers.",
    "near_duplicate": _near,
    "prefix": _prefix,
    "other_script": _other_script,
    "over_long": _over_long,
    "overlap": _overlap,
}
