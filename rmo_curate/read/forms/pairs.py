"""A prompt and two answers, of any shape and under any name: a table of the names that trainers and data sets use.

The forms of `trl`, `questions` and `sharegpt` come first where they fit; these read what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rmo_curate.read.forms.answers import answer_of, conversations_of, is_conversation, is_said, pair_of, prompt_of
from rmo_curate.read.forms.form import Candidate, Fields, Form, is_text, json_column
from rmo_curate.read.forms.questions import question
from rmo_curate.read.forms.trl import conversational
from rmo_curate.read.messages import RejectReason, Triple, Unfit, is_turn
from rmo_curate.read.tool_calls import CALL_ROLES
from rmo_train.data.tool_calls import ANSWERING


def _pairs(name: str, prompt: str, chosen: str, rejected: str, *, without: tuple[str, ...] = ()) -> Form:
    """A form of three columns, each a text, a message, messages or {messages}."""
    names = (prompt, chosen, rejected)
    looks = f"{prompt}, {chosen} and {rejected} are each text, a message or messages"
    if without:
        looks += f", and there is no {' or '.join(without)}"
    return Form(
        name,
        names,
        looks,
        lambda f: all(is_said(f.get(c)) for c in names),
        lambda f: pair_of(f[prompt], f[chosen], f[rejected], names),
        without=without,
    )


def _whole(name: str, chosen: str, rejected: str) -> Form:
    """A form of two whole conversations that start alike."""
    return Form(
        name,
        (chosen, rejected),
        f"{chosen} and {rejected} are conversations that start alike",
        lambda f: is_conversation(f.get(chosen)) and is_conversation(f.get(rejected)),
        lambda f: conversations_of(f[chosen], f[rejected], (chosen, rejected)),
    )


PAIRS = (
    _pairs("prompt-and-answers", "prompt", "chosen", "rejected"),
    _pairs("prompt-and-responses", "prompt", "chosen_response", "rejected_response"),
    _pairs("stack-exchange-paired", "question", "response_j", "response_k"),
    _pairs("medicalgpt", "question", "response_chosen", "response_rejected"),
    _pairs("openpipe", "prompt_messages", "chosen_messages", "rejected_messages"),
    _pairs("ms-swift-query", "query", "response", "rejected_response"),
    _pairs("autotrain", "prompt", "text", "rejected_text"),
    _pairs("accepted", "prompt", "accepted", "rejected", without=("chosen",)),
    _whole("chosen-messages", "chosen_messages", "rejected_messages"),
    _whole("torchtune", "chosen_conversations", "rejected_conversations"),
    _whole("spin", "real", "generated"),
)


# ---------------------------------------------------------------------------------------------------- forms by hand


def _swift(fields: Fields, rejected: str) -> Triple:
    """ms-swift: the last of `messages` is the chosen answer."""
    whole = answer_of(fields["messages"], "messages")
    if not whole or whole[-1]["role"] not in ANSWERING:
        raise Unfit(
            RejectReason.BAD_MESSAGES, "messages does not end with the chosen answer, a message of the assistant"
        )
    return whole[:-1], whole[-1:], answer_of(fields[rejected], rejected)


def _form(name: str, needs: tuple[str, ...], looks: str, matches: Callable[[Fields], bool], convert: Any) -> Form:
    return Form(name, needs, looks, matches, convert)


SWIFT = _form(
    "ms-swift",
    ("messages", "rejected_response"),
    "messages ends with the chosen answer; rejected_response is text or messages",
    lambda f: is_conversation(f.get("messages")) and is_said(f.get("rejected_response")),
    lambda f: _swift(f, "rejected_response"),
)
SWIFT_MESSAGES = _form(
    "ms-swift-messages",
    ("messages", "rejected_messages"),
    "messages and rejected_messages are conversations that start alike",
    lambda f: is_conversation(f.get("messages")) and is_conversation(f.get("rejected_messages")),
    lambda f: conversations_of(f["messages"], f["rejected_messages"], ("messages", "rejected_messages")),
)


def _input(value: Any) -> tuple[Any, Any]:
    """Messages and tools of OpenAI's `input`: an object, or its messages alone."""
    return (value.get("messages"), value.get("tools")) if isinstance(value, dict) else (value, None)


def _openai(fields: Fields) -> list[Candidate]:
    asked, tools = _input(fields["input"])
    prompt, _ = prompt_of(asked, "input.messages")
    sides = {"chosen": "preferred_output", "rejected": "non_preferred_output"}
    answers = {side: answer_of(fields[column], column) for side, column in sides.items()}
    named = {"tools": tools} if tools else {}
    return [Candidate({**fields, **named, "prompt": prompt, **answers})]


OPENAI = Form(
    "openai",
    ("input", "preferred_output", "non_preferred_output"),
    "input is {messages, tools} or messages; preferred_output and non_preferred_output are messages",
    lambda f: (
        is_said(_input(f.get("input"))[0])
        and is_said(f.get("preferred_output"))
        and is_said(f.get("non_preferred_output"))
    ),
    conversational,
    expand=_openai,
)


def _old_outputs(value: Any) -> list[Any]:
    outputs = json_column(value, "output", list, "a list of the better and the worse answer")
    if not outputs or len(outputs) != 2:
        raise Unfit(RejectReason.NO_PREFERENCE, "output is not a list of two answers, the better one first")
    return list(outputs)


def _old(fields: Fields) -> Triple:
    better, worse = _old_outputs(fields["output"])
    asked = question(fields, "instruction", "input")
    return pair_of(asked, better, worse, ("instruction", "output 1", "output 2"))


OUTPUTS = Form(
    "llama-factory-old",
    ("instruction", "output"),
    "instruction is text, output is a list of two answers, the better one first",
    lambda f: is_text(f.get("instruction")) and isinstance(f.get("output"), list) and len(f["output"]) == 2,
    _old,
    ("input",),
)
BY_HAND = (SWIFT, SWIFT_MESSAGES, OPENAI, OUTPUTS)


def _answers_alone(fields: Fields) -> bool:
    """Whether chosen and rejected are answers and no conversations, so that the prompt stands elsewhere."""

    def is_answer(value: Any) -> bool:
        if isinstance(value, list):
            value = value[0] if value else None
        return isinstance(value, str) or (is_turn(value) and value.get("role", value.get("from")) in NAMES_OF_ANSWERING)

    return is_answer(fields.get("chosen")) and is_answer(fields.get("rejected"))


NAMES_OF_ANSWERING = ("assistant", "gpt", "model", *CALL_ROLES)


def _before_answers(name: str, prompt: str, without: tuple[str, ...] = ("prompt",)) -> Form:
    """A form of a conversation under the name `prompt` and two answers that go on with it."""
    return Form(
        name,
        (prompt, "chosen", "rejected"),
        f"{prompt} is a list of messages, chosen and rejected are answers: each text, a message or messages",
        lambda f: is_conversation(f.get(prompt)) and _answers_alone(f),
        lambda f: pair_of(f[prompt], f["chosen"], f["rejected"], (prompt, "chosen", "rejected")),
        without=without,
    )


BEFORE_ANSWERS = (
    _before_answers("messages-and-answers", "messages"),
    _before_answers("conversations-and-answers", "conversations"),
    _before_answers("context-and-answers", "context", ("prompt", "conversations", "messages")),
)
