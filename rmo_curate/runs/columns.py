"""The column of the user's data that names the kind of prompt: preferences may differ by kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from rmo_train.console.errors import UserError

CATEGORY_NAMES = ("category", "task", "task_type", "subset", "domain", "kind", "source", "dataset")  # in this order


def category_setting(before: str = "") -> Any:
    """The field of every command that learns preferences. before: where it looks before it looks for names."""
    return Field(
        None,
        description=f"Column with the kind of prompt, since preferences may differ by kind (default: {before}category, "
        "task, source or similar, if present)",
    )


def text_names(types: Mapping[str, pa.DataType]) -> list[str]:
    """The columns that hold texts; types: of each column."""
    return [name for name, kind in types.items() if pa.types.is_string(kind) or pa.types.is_large_string(kind)]


def category_column(texts: Collection[str], name: str | None, where: str) -> str | None:
    """The text column with the kind of prompt; a UserError if `name` is given but missing."""
    if name is None:
        return next((n for n in CATEGORY_NAMES if n in texts), None)
    if name not in texts:
        raise UserError(
            f"--category-column {name}: {where} has no text column {name}; its text columns are "
            f"{', '.join(sorted(texts)) or 'none'}"
        )
    return name
