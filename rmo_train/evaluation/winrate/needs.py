"""The libraries of the extra `winrate`, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rmo_train.console.errors import UserError
from rmo_train.console.extras import install_command


def needed(module: str, what: str) -> Any:
    """The module; a UserError that names the extra if it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as e:
        raise UserError(f"{what} need {e.name}, which is not installed: `{install_command('winrate')}`") from e
