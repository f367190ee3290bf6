"""LLaMA-Factory's ShareGPT form: a conversation of {from, value} and one answer of each kind after it."""

from __future__ import annotations

from rmo_curate.read.forms.answers import is_conversation
from rmo_curate.read.forms.form import Fields, Form, every
from rmo_curate.read.messages import Triple, is_turn, messages


def _sharegpt(fields: Fields) -> Triple:
    prompt = messages(fields["conversations"], "conversations")
    return prompt, messages([fields["chosen"]], "chosen"), messages([fields["rejected"]], "rejected")


SHAREGPT = Form(
    "llama-factory-sharegpt",
    ("conversations", "chosen", "rejected"),
    "conversations is a list of turns {from, value}, chosen and rejected are one turn each",
    lambda f: is_conversation(f.get("conversations")) and every(is_turn, f, "chosen", "rejected"),
    _sharegpt,
)
