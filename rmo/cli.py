"""The command line `rmo`: runs a recipe, from data to an evaluated model and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rmo_train.console.command_line import command_line
from rmo_train.console.settings import RECIPE, flags, run_app
from rmo_train.console.trust import TrustSettings
from rmo_train.console.version import Version

app = command_line("rmo")


@app.callback()
def rmo(version: Version = False) -> None:
    """Curate preference data and train on them, end to end. For single stages, see `rmo-curate` and `rmo-train`."""


@app.command()
@flags(TrustSettings)
def run(
    settings: TrustSettings,
    recipe: Annotated[Path, typer.Argument(help="Recipe file", show_default=True)] = RECIPE,
    data: Annotated[str | None, typer.Option(help="Training pairs: file or folder")] = None,
    eval_data: Annotated[
        str | None, typer.Option(help="Held-out pairs; their prompts must differ from the training prompts")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Use the first N training records")] = None,
    summary: Annotated[bool, typer.Option(help="Print the summary table at the end")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what each stage would do and stop")] = False,
) -> None:
    """Run a recipe end to end; run it again to resume."""
    from rmo.recipe import load_recipe
    from rmo.run import run_recipe
    from rmo.summary import print_table
    from rmo.summary import summary as closing

    loaded = load_recipe(recipe, data, eval_data, limit)
    run_recipe(loaded, dry_run=dry_run)
    if summary and not dry_run:
        print_table(closing(loaded))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Output folder of the demo")] = Path("demo-run"),
    json: Annotated[Path | None, typer.Option(help="Also write the summary table to this JSON file")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what each stage would do and stop")] = False,
) -> None:
    """Run the demo: the whole pipeline on the embedded model and bundled pairs; run it again to resume."""
    from rmo.demo import run_demo

    run_demo(out, json, dry_run=dry_run)


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
