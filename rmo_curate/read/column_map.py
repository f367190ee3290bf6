"""`--map prompt=question` and a recipe's `data.map`: the names in the data of columns called otherwise there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rmo_train.console.errors import UserError


def column_map(given: Sequence[str] | None, recipe: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Our column -> its name in the data: the recipe's, and over it those of the command line."""
    found = recipe.get("data", {}).get("map") or {}
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in found.items()):
        raise UserError(f"recipe: data.map is {found!r}; expected column names, as {{prompt: question}}")
    columns = dict(found)
    for text in given or []:
        role, _, column = text.partition("=")
        if not role or not column:
            raise UserError(f"--map {text}: expected OUR_COLUMN=NAME_IN_THE_DATA, as --map prompt=question")
        columns[role] = column
    return columns
