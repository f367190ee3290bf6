"""Messages of a conversation: read, split into prompt and responses, checked; `Unfit` says why a record has none.

Where a record holds whole conversations and no prompt, the prompt is found on message boundaries, never by characters:
of two answers that begin alike, a split by characters moves the shared beginning into the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from rmo_curate.read.tool_calls import CALL_KEYS, CALL_ROLES, calls_of, has_calls, turn_in_json, with_ids
from rmo_train.data.tool_calls import ANSWERING, TOOL_CALL, Turn, turn_of

Message = dict[str, str]
Triple = tuple[list[Message], list[Message], list[Message]]  # prompt, chosen, rejected

ROLES = ("system", "developer", "user", "assistant", "tool")
# Other names of roles, in small letters: ShareGPT's, Gemma's and Vertex's, OpenAssistant's.
ROLE_OF = {
    **{role: role for role in ROLES},
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    **dict.fromkeys(CALL_ROLES, TOOL_CALL),
}
ROLE_KEYS = ("role", "from")
CONTENT_KEYS = ("content", "value", "parts")  # parts: Vertex's
MESSAGE_KEYS = (*ROLE_KEYS, *CONTENT_KEYS, *CALL_KEYS)
TEXT_PARTS = (None, "text", "input_text", "output_text")  # types of the parts of a content that are text
# Parts of a message that a model reads and that the pair tables have no place for: dropping them would change the data.
NOT_KEPT = ("reasoning_content", "thinking")
NOTHING: tuple[Any, ...] = (None, "", [], {})  # what tables of messages hold where a message lacks a key


class FullMessage(dict[str, str]):
    """A message of which the data say more than role and content: name, tool_call_id, ids of calls, weight, ...

    The tables have no place for `more`, and it is no part of what makes two messages equal: it is there to find out
    whether the model would read it.
    """

    def __init__(self, kept: Message, more: Mapping[str, Any]):
        super().__init__(kept)
        self.more = more


def more_of(message: Message) -> Mapping[str, Any]:
    """What the data say of a message besides role and content."""
    return message.more if isinstance(message, FullMessage) else {}


class RejectReason(StrEnum):
    """Why an input record is not a pair."""

    BROKEN_LINE = "broken_line"  # not UTF-8, or not JSON
    NOT_AN_OBJECT = "not_an_object"  # JSON, but not an object
    MISSING_FIELD = "missing_field"  # a column that the form needs is absent or null
    EMPTY_PROMPT = "empty_prompt"  # no prompt, or its last message is blank
    EMPTY_RESPONSE = "empty_response"  # chosen or rejected has no message, or ends with a blank one
    IDENTICAL_RESPONSES = "identical_responses"  # chosen and rejected are the same
    NOT_TEXT = "not_text"  # a value of the wrong type, text that UTF-8 cannot hold, or tools that are not a list
    BAD_MESSAGES = "bad_messages"  # an unknown role, turns out of order, a blank turn, or keys that are not kept
    OTHER_FORM = "other_form"  # a record whose form is not that of its source
    NO_PREFERENCE = "no_preference"  # a tie, a label that names no winner, or ranks or scores that are all equal
    TOOL_CALLS_NOT_RENDERED = "tool_calls_not_rendered"  # function calls that the chat template leaves out
    UNREAD_PART = "unread_part"  # images, video or sound, or earlier turns that are in another record
    DUPLICATE = "duplicate"  # the content of an earlier record, whatever its id; the first one stays


class Unfit(Exception):
    """A record that cannot become a pair."""

    def __init__(self, reason: RejectReason, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


# ---------------------------------------------------------------------------------------------------- values


def describe(value: Any) -> str:
    """The kind of a value, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, dict):
        return f"an object (keys: {', '.join(map(repr, value)) or 'none'})"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"a list of objects (keys: {', '.join(map(repr, value[0])) or 'none'})"
    return "a list"


def is_turn(value: Any) -> bool:
    """Whether `value` is a message, in anybody's notation: {role, content}, {from, value}, {role, parts}, or {role} and
    function calls."""
    return isinstance(value, dict) and (
        ("role" in value and ("content" in value or has_calls(value)))
        or (any(k in value for k in ROLE_KEYS) and any(k in value for k in CONTENT_KEYS))
    )


def is_messages(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_turn, value))


def check_text(value: Any, where: str) -> str:
    """`value` as it is; Unfit unless it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise Unfit(RejectReason.NOT_TEXT, f"{where} is {describe(value)}, expected text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as e:
        raise Unfit(RejectReason.NOT_TEXT, f"{where} has a lone surrogate at character {e.start + 1}") from e
    return value


def messages(value: Any, column: str) -> list[Message]:
    """The messages in `value`: role and content, and beside them what else is said of each."""
    if not isinstance(value, list):
        raise Unfit(RejectReason.NOT_TEXT, f"{column} is {describe(value)}, expected a list of messages")
    read = [_as_it_stands(m) or _message(m, f"message {i} of {column}") for i, m in enumerate(value, start=1)]
    return _joined_calls(read) if any(m["role"] == TOOL_CALL for m in read) else read


def _as_it_stands(message: Any) -> Message | None:
    """A message of nothing but a role of `ROLES` and a text; None for any other. Most are such, and this is quick."""
    if not isinstance(message, dict) or len(message) != 2:
        return None
    role, content = message.get("role"), message.get("content")
    if role not in ROLES or not isinstance(content, str):
        return None
    try:
        content.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return {"role": role, "content": content}


def _message(message: Any, where: str) -> Message:
    if not is_turn(message):
        kind = describe(message)
        raise Unfit(RejectReason.BAD_MESSAGES, f"{where} is {kind}, expected an object with role and content")
    written = message.get("role", message.get("from"))
    role = ROLE_OF.get(written.strip().lower()) if isinstance(written, str) else None
    if role is None:
        raise Unfit(RejectReason.BAD_MESSAGES, f"{where} has the role {written!r}, expected {', '.join(ROLES)}")
    if lost := [key for key in NOT_KEPT if message.get(key)]:
        raise Unfit(RejectReason.BAD_MESSAGES, f"{where} has {', '.join(lost)}, which a pair cannot hold")
    more = {k: v for k, v in message.items() if k not in MESSAGE_KEYS and v not in NOTHING}
    content = next((message[key] for key in CONTENT_KEYS if key in message), None)
    if role == TOOL_CALL or has_calls(message):
        content, with_their_ids = _calls(message, role, content, where)
        role, more = TOOL_CALL, more | with_their_ids
    kept = {"role": role, "content": _text(content, where)}
    return FullMessage(kept, more) if more else kept


def _text(content: Any, where: str) -> str:
    """The text of a content, which may be in parts."""
    if isinstance(content, list):
        content = "".join(_part(part, where) for part in content)
    return check_text(content, f"the content of {where}")


def _calls(message: Mapping[str, Any], role: str, content: Any, where: str) -> tuple[str, dict[str, Any]]:
    """The content of a message that calls functions, as pairs hold it, and its calls with their ids, if they have any:
    those are not the same in two records that say the same."""
    if role not in ANSWERING:
        raise Unfit(RejectReason.BAD_MESSAGES, f"{where} ({role}) calls functions, which only the assistant may do")
    try:
        if role == TOOL_CALL:
            turn, ids = turn_in_json(content)
        else:
            calls, ids = calls_of(next(message[key] for key in CALL_KEYS if message.get(key)))
            turn = Turn("" if content is None else _text(content, where), calls)
        named = {"tool_calls": with_ids(turn.message()["tool_calls"], ids)} if any(ids) else {}
        return turn.content(), named
    except ValueError as e:
        raise Unfit(RejectReason.BAD_MESSAGES, f"{where} has {e}") from e
    except RecursionError as e:
        raise Unfit(RejectReason.BAD_MESSAGES, f"{where} has calls that are nested too deep") from e


def _joined_calls(turns: list[Message]) -> list[Message]:
    """`turns` with calls that stand one after the other, as ms-swift writes several of one turn, in one message."""
    joined: list[Message] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"] == TOOL_CALL and not more_of(joined[-1]) and not more_of(turn):
            before, after = turn_of(joined[-1]["content"]), turn_of(turn["content"])
            if not after.text:
                joined[-1] = turn | {"content": Turn(before.text, [*before.calls, *after.calls]).content()}
                continue
        joined.append(turn)
    return joined


def _part(part: Any, where: str) -> str:
    """The text of one part of a content: text, {type: text, text} or, LLaMA-Factory's, {type: text, value}."""
    if isinstance(part, dict) and part.get("type") in TEXT_PARTS:
        part = part.get("text", part.get("value"))
    if isinstance(part, dict):
        kind = part.get("type") or ", ".join(map(str, part))
        raise Unfit(RejectReason.UNREAD_PART, f"{where} has a part that is not text: {kind}")
    return check_text(part, f"a part of the content of {where}")


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def split_conversations(chosen: list[Message], rejected: list[Message]) -> Triple:
    """Two whole conversations as prompt and responses: the prompt is the longest common beginning that an assistant's
    message follows in both. What was said after that belongs to the responses, which may have several turns."""
    if chosen == rejected:
        raise Unfit(RejectReason.IDENTICAL_RESPONSES, "chosen and rejected are the same conversation")
    common = 0
    while common < min(len(chosen), len(rejected)) and chosen[common] == rejected[common]:
        common += 1

    def is_boundary(n: int) -> bool:
        following = [c[n]["role"] if n < len(c) else None for c in (chosen, rejected)]
        return chosen[n - 1]["role"] not in ANSWERING and all(role in ANSWERING for role in following)

    while common and not is_boundary(common):
        common -= 1
    return chosen[:common], chosen[common:], rejected[common:]


def check_triple(triple: Triple) -> Triple:
    """`triple` as it is; Unfit unless it can be scored: something asked, two different answers, turns in order."""
    prompt, chosen, rejected = triple
    if not prompt:
        raise Unfit(RejectReason.EMPTY_PROMPT, "no prompt: chosen and rejected do not begin with the same messages")
    if prompt[-1]["role"] in ANSWERING:
        raise Unfit(RejectReason.BAD_MESSAGES, "the prompt ends with an assistant message, expected a user's")
    if not prompt[-1]["content"].strip() and prompt[-1]["role"] != "tool":
        raise Unfit(RejectReason.EMPTY_PROMPT, "the prompt's last message is empty")
    for column, response in (("chosen", chosen), ("rejected", rejected)):
        if not response:
            raise Unfit(RejectReason.EMPTY_RESPONSE, f"{column} has no message")
        if response[-1]["role"] not in ANSWERING:
            role = response[-1]["role"]
            raise Unfit(
                RejectReason.BAD_MESSAGES, f"{column} ends with a message of role {role!r}, expected 'assistant'"
            )
        if response[0]["role"] not in ANSWERING:
            role = response[0]["role"]
            raise Unfit(RejectReason.BAD_MESSAGES, f"{column} starts with a message of role {role!r} after the prompt")
        if not response[-1]["content"].strip():
            raise Unfit(RejectReason.EMPTY_RESPONSE, f"{column} is empty")
    for column, turns in (("prompt", prompt), ("chosen", chosen), ("rejected", rejected)):
        for i, message in enumerate(turns, start=1):
            # An empty system prompt or tool result says something; an empty turn is a gap in the conversation.
            if message["role"] in ("user", "assistant") and not message["content"].strip():
                raise Unfit(RejectReason.BAD_MESSAGES, f"message {i} of {column} ({message['role']}) is empty")
    if chosen == rejected:
        raise Unfit(RejectReason.IDENTICAL_RESPONSES, "chosen and rejected are the same")
    return triple
