"""Dialogues in one text: `Human:` and `Assistant:` turns, ChatML, Llama 3's headers, NeMo's `<extra_id_1>` turns.

A text that starts with a turn of a notation is split into messages; one written in a template that is not known here
is refused, since a model would be shown the marks as if a user had typed them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rmo_curate.read.messages import Message, RejectReason, Unfit, assistant, check_text, user

HUMAN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


@dataclass(frozen=True)
class Notation:
    """One way to write a dialogue as a text."""

    name: str
    mark: re.Pattern[str]  # what a turn begins with; its group is the role
    end: str  # what may stand at a turn's end besides white space


NEMO = Notation("NeMo's <extra_id_1>", re.compile(r"<extra_id_[01]>(System|User|Assistant)\n?"), "<extra_id_1>")
NOTATIONS = (
    Notation("Human: and Assistant:", HUMAN, ""),
    Notation("ChatML", re.compile(r"<\|im_start\|>(system|user|assistant|tool)\n"), "<|im_end|>"),
    Notation(
        "Llama 3's headers",
        re.compile(r"(?:<\|begin_of_text\|>)?<\|start_header_id\|>(system|user|assistant|tool)<\|end_header_id\|>\s*"),
        "<|eot_id|>",
    ),
    NEMO,
)
ENDS = ("<|im_end|>", "<|eot_id|>")  # special tokens that no answer has as its last word
START = re.compile(r"\s*(?:<\||<s>|\[INST\]|<extra_id_|<start_of_turn>|Human:|Assistant:)")  # worth a closer look
UNKNOWN = re.compile(
    r"\s*(?:<s>\s*)?(\[INST\]|<start_of_turn>|<\|(?:user|system|prompter|assistant|im_start|start)\|?>)"
)
ROLE = {"Human": "user", "User": "user", "Assistant": "assistant", "System": "system"}


def is_dialogue(value: Any) -> bool:
    """Whether a text has turns of both `Human:` and `Assistant:`."""
    return isinstance(value, str) and {m[1] for m in HUMAN.finditer(value)} == {"Human", "Assistant"}


def notation_of(text: str, column: str) -> Notation | None:
    """The notation of a text that starts with a turn; None for plain text. Unfit where its marks are not known."""
    if not START.match(text):
        return None
    start = text.lstrip()
    for notation in NOTATIONS:
        if notation.mark.match(start) and (notation.mark is not HUMAN or is_dialogue(text)):
            return notation
    if found := UNKNOWN.match(text):
        raise Unfit(
            RejectReason.BAD_MESSAGES,
            f"{column} is written in a chat template ({found[1]}); expected the plain text, or messages",
        )
    return None


def split(text: str, notation: Notation, before: str = "") -> list[Message]:
    """The turns of a text; what stands before the first mark is a turn of the role `before`. A blank system turn is
    none."""
    marks = list(notation.mark.finditer(text))
    ends = [*(m.start() for m in marks[1:]), len(text)][: len(marks)]
    turns = [
        {"role": ROLE.get(m[1], m[1]), "content": _inside(text[m.end() : end], notation)}
        for m, end in zip(marks, ends, strict=True)
    ]
    head = _inside(text[: marks[0].start()] if marks else text, notation)
    if before and (head or not turns):
        turns = [{"role": before, "content": head}, *turns]
    return [t for t in turns if t["role"] != "system" or t["content"]]


def _inside(text: str, notation: Notation) -> str:
    return (text.strip().removesuffix(notation.end) if notation.end else text).strip()


def prompt_turns(text: str, column: str) -> tuple[list[Message], Notation | None]:
    """A prompt's messages, without the empty turn that the answers fill, and its notation (None: plain text)."""
    notation = notation_of(check_text(text, column), column)
    if notation is None and "<|im_start|>" in text:
        raise Unfit(RejectReason.BAD_MESSAGES, f"{column} has ChatML's <|im_start|> inside a text; expected messages")
    if notation is None and NEMO.end in text:  # HelpSteer2: the first turn has no mark
        turns, notation = split(text, NEMO, before="user"), NEMO
    elif notation is None:
        return [user(text)], None
    else:
        turns = split(text.lstrip(), notation)
    return (turns[:-1] if turns and turns[-1] == assistant("") else turns), notation


def answer_turns(text: str, column: str, notation: Notation | None) -> list[Message]:
    """An answer's messages; `notation` is that of its prompt, in which it may go on."""
    own = notation_of(check_text(text, column), column)
    if own is not None:
        return split(text.lstrip(), own)
    if notation is not None and notation.mark is HUMAN:  # marks of plain words, which an answer may quote
        return [assistant(text.strip())]
    if notation is not None:
        return split(text, notation, before="assistant")
    if text.rstrip().endswith(ENDS):
        for end in ENDS:
            text = text.rstrip().removesuffix(end)
    return [assistant(text)]
