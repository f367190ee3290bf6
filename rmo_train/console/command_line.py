"""Command lines with plain-text `--help`: at 80 columns, no flag name or sentence is cut."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup


class _WholeSummaries(TyperGroup):
    """Wraps the first sentence of each command; typer would cut it to one line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, command.get_short_help_str(sys.maxsize)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def command_line(name: str) -> typer.Typer:
    """The typer application of a program. Without rich, whose help tables cut long flag names."""
    return typer.Typer(
        name=name,
        cls=_WholeSummaries,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
