"""`--map prompt=question`, or a recipe's `data.map`: the names in the data of columns called otherwise there."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from rmo_train.console.settings import from_recipe


def _pairs(value: Any) -> Any:
    """Texts OUR_COLUMN=NAME, as the command line has them, as a mapping; a mapping as it is."""
    if not isinstance(value, list | tuple):
        return value
    split = [text.partition("=") for text in value]
    for text, (role, _, column) in zip(value, split, strict=True):
        if not role or not column:
            raise ValueError(f"{text} is not OUR_COLUMN=NAME_IN_THE_DATA, as in --map prompt=question")
    return {role: column for role, _, column in split}


ColumnMap = Annotated[dict[str, str], BeforeValidator(_pairs)]  # our column -> its name in the data


def column_map() -> Any:
    """The field of a command's settings."""
    return from_recipe(
        "data.map",
        default={},
        description="Name of a column in your data, such as prompt=question; repeatable",
    )
