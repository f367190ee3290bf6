"""TRL's forms, and text prompts beside conversations (UltraFeedback-binarized, Zephyr, Tulu 3)."""

from __future__ import annotations

from rmo_curate.read.forms.answers import conversations_of, is_conversation, joined, pair_of
from rmo_curate.read.forms.form import Fields, Form, all_messages, every, is_text
from rmo_curate.read.messages import Triple, check_text, messages

PCR = ("prompt", "chosen", "rejected")


def standard(fields: Fields) -> Triple:
    for column in PCR:
        if not isinstance(fields[column], str):
            check_text(fields[column], column)
    return pair_of(fields["prompt"], fields["chosen"], fields["rejected"], PCR)


def conversational(fields: Fields) -> Triple:
    prompt, chosen, rejected = (messages(fields[c], c) for c in PCR)
    n = len(prompt)
    if n and chosen[:n] == prompt and rejected[:n] == prompt:  # the responses repeat the prompt
        return prompt, chosen[n:], rejected[n:]
    if n and len(chosen) > n and chosen[0]["role"] == rejected[0]["role"] == "system":  # and its system prompt
        return joined(prompt, chosen, rejected)
    return prompt, chosen, rejected


def prompt_and_conversation(fields: Fields) -> Triple:
    prompt = check_text(fields["prompt"], "prompt")
    chosen, rejected = (messages(fields[c], c) for c in ("chosen", "rejected"))
    return pair_of(prompt, chosen, rejected, PCR)


def implicit(fields: Fields) -> Triple:
    return conversations_of(fields["chosen"], fields["rejected"], ("chosen", "rejected"))


STANDARD = Form(
    "trl-standard",
    PCR,
    "prompt, chosen and rejected are text",
    lambda f: every(is_text, f, *PCR),
    standard,
)
CONVERSATIONAL = Form(
    "trl-conversational",
    PCR,
    "prompt, chosen and rejected are lists of messages",
    lambda f: all_messages(f, *PCR),
    conversational,
)
PROMPT_AND_CONVERSATION = Form(
    "prompt-and-conversation",
    PCR,
    "prompt is text, chosen and rejected are lists of messages",
    lambda f: is_text(f.get("prompt")) and all_messages(f, "chosen", "rejected"),
    prompt_and_conversation,
)
IMPLICIT = Form(
    "trl-implicit",
    ("chosen", "rejected"),
    "chosen and rejected are lists of messages that start alike, and there is no prompt",
    lambda f: every(is_conversation, f, "chosen", "rejected"),
    implicit,
    without=("prompt",),
)
