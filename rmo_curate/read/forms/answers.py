"""Prompts and answers of any shape -> messages: text, a message, a list of messages, {messages}, with their system."""

from __future__ import annotations

from typing import Any

from rmo_curate.read.forms.dialogues import Notation, answer_turns, prompt_turns
from rmo_curate.read.messages import (
    Message,
    RejectReason,
    Triple,
    Unfit,
    check_text,
    is_messages,
    is_turn,
    messages,
    split_conversations,
)


def is_said(value: Any) -> bool:
    """Whether `value` is something said: text, a message, messages, or an object that holds messages."""
    return isinstance(value, str) or is_turn(value) or is_conversation(value)


def is_conversation(value: Any) -> bool:
    """Whether `value` is a list of messages that is not empty, or an object with one under `messages`."""
    if isinstance(value, dict):
        value = value.get("messages")
    return bool(value) and is_messages(value)


def conversation(value: Any, column: str) -> list[Message]:
    """The messages of a list, or of {system, messages}."""
    if isinstance(value, dict) and "messages" in value:
        if value.get("tools"):
            raise Unfit(RejectReason.BAD_MESSAGES, f"{column} has tools of its own; expected them in the column tools")
        system = value.get("system")
        before = [{"role": "system", "content": check_text(system, f"system of {column}")}] if system else []
        return [*before, *messages(value["messages"], column)]
    return messages(value, column)


def prompt_of(value: Any, column: str) -> tuple[list[Message], Notation | None]:
    """What is asked, and the notation of a text with turns."""
    if isinstance(value, str):
        return prompt_turns(value, column)
    return (messages([value], column) if is_turn(value) else conversation(value, column)), None


def answer_of(value: Any, column: str, notation: Notation | None = None) -> list[Message]:
    """What is answered: an answer, or a conversation that ends with it."""
    if isinstance(value, str):
        return answer_turns(value, column, notation)
    return messages([value], column) if is_turn(value) else conversation(value, column)


def joined(prompt: list[Message], chosen: list[Message], rejected: list[Message]) -> Triple:
    """Prompt and answers. Where the answers are conversations that hold the prompt, the prompt is all that they share,
    of which the given one may be the beginning, the end or, if it is one message, any."""
    n = len(prompt)
    for column, said in (("chosen", chosen), ("rejected", rejected)):
        if not said:
            raise Unfit(RejectReason.EMPTY_RESPONSE, f"{column} has no message")
    if not {"user", "system", "developer"} & {chosen[0]["role"], rejected[0]["role"]}:
        return prompt, chosen, rejected
    shared, *answers = split_conversations(chosen, rejected)
    asked = [m["content"].strip() for m in shared if m["role"] == "user"]
    if prompt in (shared[:n], shared[-n:]) or (n == 1 and prompt[0]["content"].strip() in asked):
        return shared, answers[0], answers[1]
    for column, said in (("chosen", chosen), ("rejected", rejected)):
        if all(m["content"].strip() != prompt[-1]["content"].strip() for m in said if m["role"] == "user"):
            raise Unfit(RejectReason.BAD_MESSAGES, f"no user message of {column} is the prompt")
    raise Unfit(RejectReason.BAD_MESSAGES, "chosen and rejected do not share the prompt")


def pair_of(prompt: Any, chosen: Any, rejected: Any, names: tuple[str, str, str]) -> Triple:
    """Prompt, chosen and rejected of any shape; `names`: their columns."""
    asked, notation = prompt_of(prompt, names[0])
    if not asked:
        raise Unfit(RejectReason.EMPTY_PROMPT, f"{names[0]} has no message")
    return joined(asked, answer_of(chosen, names[1], notation), answer_of(rejected, names[2], notation))


def conversations_of(chosen: Any, rejected: Any, names: tuple[str, str]) -> Triple:
    """Two whole conversations, split where they part."""
    return split_conversations(answer_of(chosen, names[0]), answer_of(rejected, names[1]))
