"""Records with something else in one place: what the tests of broken records and `benchmarks.fuzz` share."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

JUNK = st.sampled_from(
    [None, "", 0, -1, 1.5, float("nan"), float("inf"), True, 10**400, [], {}, "x", "\ud800", "[", '["a"]', "{'a'",
     ["a"], [None], [[]], [["a", "b"]], {"a": 1}, {"role": "user"}, [{"role": ["x"], "content": "y"}],
     {"role": "user", "content": [{"type": ["a"], "text": 1}]}, [{"role": "user", "content": None}],
     {"messages": []}, {"messages": 5}, {"text": 1, "replies": 5}, "<|im_start|>", "<extra_id_1>", "Human:",
     "\n\nHuman: a\n\nAssistant:", {"text": "a", "role": "prompter", "replies": [{"rank": 1}, {"rank": 2}]},
     [{"role": "a", "candidates": [{"a": 1}]}], {"candidates": []}, 5]
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside `value`."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield (*path, key)
        yield from places(inner, (*path, key))


def with_junk(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    value = copy.copy(value)
    value[path[0]] = with_junk(value[path[0]], path[1:], junk)
    return value
