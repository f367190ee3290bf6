"""TRL's forms, and text prompts beside conversations (UltraFeedback-binarized, Zephyr)."""

from __future__ import annotations

from rmo_curate.read.forms.form import Fields, Form, all_messages, every, is_text
from rmo_curate.read.messages import (
    RejectReason,
    Triple,
    Unfit,
    assistant,
    check_text,
    messages,
    split_conversations,
    user,
)


def standard(fields: Fields) -> Triple:
    prompt, chosen, rejected = (check_text(fields[c], c) for c in ("prompt", "chosen", "rejected"))
    return [user(prompt)], [assistant(chosen)], [assistant(rejected)]


def conversational(fields: Fields) -> Triple:
    prompt, chosen, rejected = (messages(fields[c], c) for c in ("prompt", "chosen", "rejected"))
    n = len(prompt)
    if n and chosen[:n] == prompt and rejected[:n] == prompt:  # the responses repeat the prompt
        return prompt, chosen[n:], rejected[n:]
    return prompt, chosen, rejected


def prompt_and_conversation(fields: Fields) -> Triple:
    prompt, chosen, rejected = (
        check_text(fields["prompt"], "prompt"),
        messages(fields["chosen"], "chosen"),
        messages(fields["rejected"], "rejected"),
    )
    if all(response and response[0]["role"] == "assistant" for response in (chosen, rejected)):
        return [user(prompt)], chosen, rejected  # answers alone
    for column, conversation in (("chosen", chosen), ("rejected", rejected)):
        if not conversation:
            raise Unfit(RejectReason.EMPTY_RESPONSE, f"{column} has no message")
        asked = next((m["content"] for m in conversation if m["role"] == "user"), "")
        if asked.strip() != prompt.strip():
            raise Unfit(RejectReason.BAD_MESSAGES, f"the first user message of {column} is not the prompt")
    return split_conversations(chosen, rejected)  # the conversations hold the prompt: it is not put before them


def implicit(fields: Fields) -> Triple:
    return split_conversations(messages(fields["chosen"], "chosen"), messages(fields["rejected"], "rejected"))


STANDARD = Form(
    "trl-standard",
    ("prompt", "chosen", "rejected"),
    "prompt, chosen and rejected are text",
    lambda f: every(is_text, f, "prompt", "chosen", "rejected"),
    standard,
)
CONVERSATIONAL = Form(
    "trl-conversational",
    ("prompt", "chosen", "rejected"),
    "prompt, chosen and rejected are lists of messages",
    lambda f: all_messages(f, "prompt", "chosen", "rejected"),
    conversational,
)
PROMPT_AND_CONVERSATION = Form(
    "prompt-and-conversation",
    ("prompt", "chosen", "rejected"),
    "prompt is text, chosen and rejected are lists of messages",
    lambda f: is_text(f.get("prompt")) and all_messages(f, "chosen", "rejected"),
    prompt_and_conversation,
)
IMPLICIT = Form(
    "trl-implicit",
    ("chosen", "rejected"),
    "chosen and rejected are lists of messages that start alike, and there is no prompt",
    lambda f: all_messages(f, "chosen", "rejected"),
    implicit,
    without=("prompt",),
)
