"""Function calls in a conversation: as tables hold them, and as chat templates read them.

Tables hold a role and a text for each message. An assistant's message that calls functions therefore has the role
`tool_call`, and JSON as its content: the list of its calls, `[{"name": "weather", "arguments": {"city": "Bern"}}]`, or,
where it says something too, `{"content": "I'll look.", "tool_calls": [...]}`. The order of arguments is kept: it is the
order in which the model wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TOOL_CALL = "tool_call"  # the role of a message that calls functions
ANSWERING = ("assistant", TOOL_CALL)  # roles of what the model says

Call = dict[str, Any]  # name, and arguments by name


@dataclass(frozen=True)
class Turn:
    """What an assistant's message with calls holds."""

    text: str
    calls: Sequence[Call]

    def content(self) -> str:
        """As tables hold it."""
        calls = list(self.calls)
        return json.dumps({"content": self.text, "tool_calls": calls} if self.text else calls, ensure_ascii=False)

    def message(self, no_text: str | None = "") -> dict[str, Any]:
        """As chat templates read it; `no_text` stands for a text that is empty."""
        calls = [{"type": "function", "function": dict(call)} for call in self.calls]
        return {"role": "assistant", "content": self.text or no_text, "tool_calls": calls}

    def others(self) -> Iterator[Turn]:
        """The same turn with another name, and with one argument more, in each of its calls."""
        for i, call in enumerate(self.calls):
            for other in (
                {**call, "name": call["name"] + "_x"},
                {**call, "arguments": {**call["arguments"], "x": "another argument"}},
            ):
                yield Turn(self.text, [*self.calls[:i], other, *self.calls[i + 1 :]])


def turn_of(content: Any) -> Turn:
    """A turn from the content that tables hold; ValueError where it is none."""
    try:
        held = json.loads(content)
    except RecursionError as e:
        raise ValueError("calls that are nested too deep") from e
    text, calls = (held.get("content"), held.get("tool_calls")) if isinstance(held, dict) else ("", held)
    if not isinstance(text, str) or not isinstance(calls, list) or not calls or not all(map(_is_call, calls)):
        raise ValueError(f"no function calls: {content[:80]}")
    return Turn(text, calls)


def _is_call(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("arguments"), dict)


def readable(message: Mapping[str, Any], no_text: str | None = "") -> dict[str, Any]:
    """A message as chat templates read it; ValueError where its calls are none. What stands in it besides role and
    content stays, be it `tool_calls` with their ids."""
    if message.get("role") != TOOL_CALL:
        return dict(message)
    more = {k: v for k, v in message.items() if k not in ("role", "content")}
    return turn_of(message["content"]).message(no_text) | more
