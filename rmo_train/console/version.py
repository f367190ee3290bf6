"""`--version` of a command line."""

from __future__ import annotations

from typing import Annotated

import typer

from rmo_train import __version__


def _print_version(context: typer.Context, asked: bool) -> None:
    if asked:
        typer.echo(f"{context.command.name} {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print name and version, and exit")
]
