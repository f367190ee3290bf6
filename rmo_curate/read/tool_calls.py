"""Function calls as data write them -> one turn: OpenAI's `tool_calls`, its older `function_call`, and the turns of
calls of LLaMA-Factory (`function_call`) and ms-swift (`tool_call`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rmo_train.data.tool_calls import TOOL_CALL, Call, Turn

CALL_KEYS = ("tool_calls", "function_call")
CALL_ROLES = ("function_call", TOOL_CALL)  # of a turn whose content is the JSON of calls


def has_calls(message: Mapping[str, Any]) -> bool:
    """Whether a message has function calls beside its content."""
    return any(message.get(key) for key in CALL_KEYS)


def calls_of(value: Any) -> tuple[list[Call], list[Any]]:
    """The calls in `value`, a list of them, one alone or the JSON text of either, and the id of each, None where it has
    none; ValueError says what is wrong."""
    if isinstance(value, str):
        value = _parsed(value, "the calls")
    listed = value if isinstance(value, list) else [value]
    if not listed:
        raise ValueError("an empty list of calls")
    return [_call(one) for one in listed], [one.get("id") for one in listed]


def turn_in_json(content: Any) -> tuple[Turn, list[Any]]:
    """The turn in the content of a message of one of `CALL_ROLES`, and the ids of its calls: calls as in `calls_of`, or
    {content, tool_calls}."""
    held = _parsed(content, "the content") if isinstance(content, str) else content
    text = held.get("content") if isinstance(held, dict) and "tool_calls" in held else ""
    if not isinstance(text, str):
        raise ValueError("calls whose content is not text")
    calls, ids = calls_of(held["tool_calls"] if text else held)
    return Turn(text, calls), ids


def with_ids(calls: list[dict[str, Any]], ids: list[Any]) -> list[dict[str, Any]]:
    return [call if i is None else {"id": i, **call} for call, i in zip(calls, ids, strict=True)]


def _call(value: Any) -> Call:
    function = value.get("function", value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or (value.get("type") or "function") != "function":
        raise ValueError("a call that is not a function's {name, arguments}")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name.strip():
        raise ValueError("a call without a function name")
    if isinstance(arguments, str) and arguments.strip():
        arguments = _parsed(arguments, f"the arguments of {name}")
    if arguments in (None, ""):
        arguments = {}
    if not isinstance(arguments, dict):
        raise ValueError(f"arguments of {name} that are not an object")
    return {"name": name, "arguments": arguments}


def _parsed(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{what}, which are not JSON ({e})") from e
