"""A model as judge of pairs of answers: each pair in both orders, and the evaluation of its verdicts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from rmo_train.console.errors import Stopped, UserError
from rmo_train.console.progress import progress
from rmo_train.console.settings import Settings
from rmo_train.console.wording import counted
from rmo_train.evaluation.winrate.answers import Pairing, Text
from rmo_train.evaluation.winrate.endpoint import Endpoint, NoReply, Unavailable
from rmo_train.evaluation.winrate.judgements import Judgements, judgement_key

QUESTION = """\
Two assistants, A and B, were given the same request. Decide whose answer serves the person who asked better.

Look at what each answer says: whether it is right, whether it does what was asked, whether it leaves out what
matters, and whether it is clear. A longer answer is not better for being longer, and which one is shown first does not
matter.

<request>
{request}
</request>

<answer_of_A>
{first}
</answer_of_A>

<answer_of_B>
{second}
</answer_of_B>

Give your reasons in a few sentences. Then write your verdict on a last line of its own, with nothing else on that line:
A if A's answer is better, B if B's answer is better, or tie if neither is.
"""
GIVE_UP = 10  # after this many texts in a row without a server, the rest is left for another run
LABEL = re.compile(r"^(?:(?:my |the )?(?:final )?(?:verdict|answer|winner)(?: is)?\s*:?\s*)", re.IGNORECASE)
MARKS = "*_`#\"'()[]{}<>., \t"  # markup and punctuation around a verdict


class JudgeSettings(Settings):
    """The judge model and its settings."""

    judge: str | None = Field(
        None, description="URL of the judge: an OpenAI-compatible endpoint, such as http://localhost:8000/v1"
    )
    judge_model: str | None = Field(None, description="Name of the judge model at that endpoint")
    judge_tokens: int = Field(1024, ge=1, description="Maximum tokens per verdict, its reasons included")
    concurrency: int = Field(8, ge=1, description="Number of verdicts requested at once")


@dataclass(frozen=True)
class Judged:
    """One pair of answers and its two verdicts, the first with A's answer shown first, the second with B's.

    A verdict is "A" or "B" (the file), "tie", "same" (the answers are equal; the judge was not asked), "unparsable", or
    "failed" (no reply after all tries).
    """

    key: object
    sample: int
    verdicts: tuple[str, str]
    length_a: int  # characters
    length_b: int

    @property
    def win(self) -> float | None:
        """A's share of the two verdicts; None if one is missing, since the other alone would have a position bias."""
        shares = [{"A": 1.0, "B": 0.0, "tie": 0.5, "same": 0.5}.get(v) for v in self.verdicts]
        known = [s for s in shares if s is not None]
        return sum(known) / 2 if len(known) == 2 else None


@dataclass(frozen=True)
class Case:
    """One text for the judge: a pair of answers in one order."""

    row: int  # of the pair
    swapped: bool  # B's answer is shown first
    text: str
    key: str


def request_text(question: Text, first: Text, second: Text) -> str:
    """The judge's prompt; with several turns, the user's messages and each assistant's answers are numbered."""
    return QUESTION.format(request=_numbered(question), first=_numbered(first), second=_numbered(second))


def _numbered(turns: Text) -> str:
    if len(turns) == 1:
        return turns[0]
    return "\n\n".join(f"[turn {i}]\n{text}" for i, text in enumerate(turns, start=1))


def verdict(reply: str) -> str | None:
    """A, B or tie from a reply's last line; None if it is none of them."""
    lines = [line for line in reply.splitlines() if line.strip(MARKS)]
    if not lines:
        return None
    word = LABEL.sub("", lines[-1].strip(MARKS)).strip(MARKS)
    return word if word in ("A", "B") else "tie" if word.lower() == "tie" else None


def judge_pairs(
    pairings: Sequence[Pairing], settings: JudgeSettings, kept: Judgements
) -> tuple[list[Judged], str | None]:
    """Both verdicts on every pair of answers, and the reason of the first failure.

    Sample i of A is compared with sample i of B. Replies in `kept` are not requested again.
    """
    rows = [
        (pairing, sample, a, b)
        for pairing in pairings
        for sample, (a, b) in enumerate(zip(pairing.a, pairing.b, strict=True))
    ]
    cases = [
        _case(row, swapped, pairing.question or (), a, b, settings)
        for row, (pairing, _, a, b) in enumerate(rows)
        if a != b
        for swapped in (False, True)
    ]
    reasons = _ask([case for case in cases if kept.get(case.key) is None], settings, kept)
    verdicts = {(case.row, case.swapped): _said(case, kept) for case in cases}
    judged = [
        Judged(
            pairing.key,
            sample,
            (verdicts.get((row, False), "same"), verdicts.get((row, True), "same")),
            sum(map(len, a)),
            sum(map(len, b)),
        )
        for row, (pairing, sample, a, b) in enumerate(rows)
    ]
    return judged, reasons[0] if reasons else None


def _case(row: int, swapped: bool, question: Text, a: Text, b: Text, settings: JudgeSettings) -> Case:
    text = request_text(question, b, a) if swapped else request_text(question, a, b)
    return Case(row, swapped, text, judgement_key(str(settings.judge_model), settings.judge_tokens, text))


def _said(case: Case, kept: Judgements) -> str:
    reply = kept.get(case.key)
    if reply is None:
        return "failed"
    word = verdict(reply) or "unparsable"
    return {"A": "B", "B": "A"}.get(word, word) if case.swapped else word


def _ask(cases: Sequence[Case], settings: JudgeSettings, kept: Judgements) -> list[str]:
    """Request the replies to `cases` and store them; returns the reasons of failures."""
    if not cases:
        return []
    try:
        return asyncio.run(_ask_all(cases, settings, kept))
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped; {counted(len(kept.replies), 'verdict')} stored in {kept.path}. Run the command again to resume"
        ) from None


async def _ask_all(cases: Sequence[Case], settings: JudgeSettings, kept: Judgements) -> list[str]:
    reasons: list[str] = []
    away = 0  # texts in a row for which the server was not available
    model = str(settings.judge_model)
    different = {case.key: case for case in cases}  # equal cases are requested once
    unasked = iter(different.values())

    async with Endpoint(str(settings.judge), model, settings.judge_tokens) as endpoint:
        with progress("judge", len(different), "verdict") as bar:

            async def ask(case: Case) -> None:
                nonlocal away
                try:
                    kept.add(case.key, model, await endpoint.reply(case.text))
                    away = 0
                except NoReply as e:
                    away = away + 1 if isinstance(e, Unavailable) else 0
                    reasons.append(str(e))
                bar.advance()

            async def work() -> None:
                for case in unasked:
                    await ask(case)
                    if away >= GIVE_UP:
                        return

            await ask(next(unasked))  # alone, so that a wrong URL, model or key is reported once
            await asyncio.gather(*(work() for _ in range(settings.concurrency)))
    return reasons


def check_settings(settings: JudgeSettings, pairings: Sequence[Pairing]) -> None:
    """Refuse what cannot be judged, before the first request."""
    if not (settings.judge and settings.judge_model):
        named, lacking = ("--judge", "--judge-model") if settings.judge else ("--judge-model", "--judge")
        raise UserError(f"{named} also needs {lacking}: give the endpoint's URL and the name of a model there")
    for pairing in pairings:
        if pairing.question is None:
            raise UserError(
                "these answers refer to their prompts by index only; give the questions with --prompts FILE"
            )
        if len(pairing.a) != len(pairing.b):
            raise UserError(
                f"prompt {pairing.key!r:.60}: {counted(len(pairing.a), 'answer')} in one file, {len(pairing.b)} in the "
                "other; expected the same number in both (--samples), since answers are compared one to one"
            )
