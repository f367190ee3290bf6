"""The page's first screen: the worst pairs, shortened so that three of them can be read at a glance."""

from __future__ import annotations

from dataclasses import dataclass

from rmo_curate.audit.contents import Audit
from rmo_curate.audit.suspects import presentable

WORST = 3
CHARACTERS = 150  # of a prompt or an answer


@dataclass(frozen=True)
class WorstPair:
    """A pair as the first screen shows it. `because` is one sentence."""

    rank: int
    prompt: str
    chosen: str
    rejected: str
    because: str


def worst_pairs(audit: Audit) -> tuple[WorstPair, ...]:
    """The worst suspects; of a conversation, its last message."""
    texts = audit.texts
    return tuple(
        WorstPair(
            suspect.rank,
            shortened(texts.prompt_messages[i][-1]["content"] or "" if texts.prompt_messages[i] else ""),
            *apart(texts.chosen[i], texts.rejected[i]),
            suspect.because,
        )
        for suspect, i in zip(audit.report.suspects[:WORST], audit.positions.tolist(), strict=False)
    )


def apart(chosen: str, rejected: str) -> tuple[str, str]:
    """Both answers shortened, from a little before they part where they begin alike for long."""
    same = next((k for k, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), 0)
    start = max(0, chosen.rfind(" ", 0, max(0, same - CHARACTERS // 3))) if same > CHARACTERS // 2 else 0
    return shortened(chosen, start), shortened(rejected, start)


def shortened(text: str, start: int = 0) -> str:
    """About CHARACTERS of `text` in one line, from `start` on, cut between words where there are any."""
    line = " ".join(presentable(text[start : start + 10 * CHARACTERS]).split())
    head = "… " if start else ""
    if len(line) <= CHARACTERS:
        return head + line
    return head + (line[:CHARACTERS].rsplit(" ", 1)[0] or line[:CHARACTERS]) + " …"
