"""`rmo-curate`: score, proxy, rules, filter, audit, inspect, export, status. Each parses its flags and calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from rmo_curate.audit.settings import AuditCommand, AuditSettings
from rmo_curate.evidence.columns import EvidenceColumns
from rmo_curate.export.formats import Trainer
from rmo_curate.filter.settings import FilterCommand, FilterSettings
from rmo_curate.score.settings import (
    InspectCommand,
    ProxyCommand,
    ProxySettings,
    ScoreCommand,
    ScoreSettings,
    WorkerSettings,
)
from rmo_train.console.command_line import command_line
from rmo_train.console.errors import UserError
from rmo_train.console.settings import Sections, Settings, build, flags, from_recipe, is_awaited, run_app
from rmo_train.console.version import Version
from rmo_train.console.wording import inert

app = command_line("rmo-curate")

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done, then stop")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace everything in the output folder")]


def print_lines(lines: Sequence[str], following: str | None = None) -> None:
    """What a command says, and the command that comes next."""
    typer.echo(inert("\n".join(lines)))
    if following:
        typer.echo(f"next: {following}")


@app.callback()
def rmo_curate(version: Version = False) -> None:
    """Find mislabelled pairs in preference data: score, filter and audit them."""


@app.command()
@flags(ScoreCommand, "score")
def score(settings: ScoreCommand, recipe: Sections, overwrite: Overwrite = False, dry_run: DryRun = False) -> None:
    """Compute every pair's log-probs under the reference and under checkpoints: your own, or a proxy."""
    from rmo_curate.next_command import after_score
    from rmo_curate.score.command import run_score

    lines = run_score(
        settings.data,
        settings.model,
        settings.out,
        settings.part(ScoreSettings),
        build(
            ProxySettings,
            "proxy",
            recipe,
            {"kind": settings.proxy, "folds": settings.folds, "category_column": settings.category_column},
        ),
        checkpoints=settings.checkpoint,
        columns=settings.map,
        workers=settings.part(WorkerSettings),
        share=settings.share,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    asked_for_no_proxy = settings.proxy == "none"  # held-out pairs, say: what they are for is not known here
    silent = dry_run or settings.shard or asked_for_no_proxy
    print_lines(lines, None if silent else after_score(settings.out, recipe))


@app.command()
@flags(ProxyCommand, "proxy")
def proxy(settings: ProxyCommand, recipe: Sections, dry_run: DryRun = False) -> None:
    """Add proxies to a scored run: fit a probe, or train LoRA proxies, and score the pairs with them."""
    from rmo_curate.next_command import after_score
    from rmo_curate.score.command import run_proxy

    workers = settings.part(WorkerSettings)
    lines = run_proxy(
        settings.run,
        settings.part(ProxySettings),
        workers=workers,
        tensor_parallel_size=settings.tensor_parallel_size,
        dry_run=dry_run,
    )
    print_lines(lines, None if dry_run else after_score(settings.run, recipe))


@app.command("filter")
@flags(FilterCommand, "filter")
def filter_(settings: FilterCommand, recipe: Sections, overwrite: Overwrite = False, dry_run: DryRun = False) -> None:
    """Soften labels as far as that pays, or drop noisy and ambiguous pairs, and write what stays as shards."""
    from rmo_curate.filter.command import run_filter
    from rmo_curate.next_command import after_filter

    if dry_run and is_awaited(settings.run, recipe, "score.out"):
        typer.echo(f"{settings.run} does not exist yet; `rmo-curate score` makes it")
        return
    lines = run_filter(settings.run, settings.out, settings.part(FilterSettings), overwrite=overwrite, dry_run=dry_run)
    print_lines(lines, None if dry_run else after_filter(settings.out, recipe))


class RulesCommand(EvidenceColumns):
    """`rmo-curate rules`."""

    run: Path = from_recipe("score.out", description="Run folder made by `rmo-curate score`", argument="RUN")
    high_q: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Quantile of suspicion at which the rules are compared (default: above it are as many pairs as "
        "labels are estimated to be wrong; 0.95 where that cannot be told)",
    )
    end: str | None = Field(None, description="Last checkpoint of the trajectory (default: chosen from the run)")


@app.command()
@flags(RulesCommand)
def rules(
    settings: RulesCommand,
    recipe: Sections,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Compare rules: what each would drop, how far they agree, and their estimated precision and recall."""
    from rmo_curate.filter.rule_report import run_rules
    from rmo_curate.next_command import after_rules

    report = run_rules(settings.run, settings.high_q, settings.end, settings.part(EvidenceColumns))
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        evidence = settings.model_dump(exclude={"run", "high_q"}, exclude_none=True)
        print_lines(report.lines(), after_rules(settings.run, recipe, FilterSettings.model_validate(evidence)))


@app.command()
@flags(AuditCommand, "audit")
def audit(settings: AuditCommand, recipe: Sections) -> None:
    """Report what is wrong with preference data, scored or not: an offline HTML page and its numbers as JSON."""
    from rmo_curate.audit.command import write_audit, write_data_audit
    from rmo_curate.score.run_folder import is_run

    paths, own = settings.data, settings.part(AuditSettings)
    if paths == (recipe.get("score", {}).get("out"),) or (len(paths) == 1 and is_run(Path(paths[0]))):
        if settings.map and "map" not in recipe.get("data", {}):
            raise UserError("--map is for data; a run keeps the columns it was scored with: leave --map out")
        filtering = None
        if "filter" in recipe:
            asked = build(FilterCommand, "filter", recipe, {"run": paths[0], "out": settings.out})
            filtering = asked.part(FilterSettings)
        summary = write_audit(Path(paths[0]), settings.out, own, filtering)
    else:
        summary = write_data_audit(paths, settings.out, own, columns=settings.map)
    print_lines(summary.lines)
    summary.check()


@app.command()
@flags(InspectCommand)
def inspect(settings: InspectCommand) -> None:
    """Preview data before scoring: format, columns, tokenised samples and problems by kind."""
    from rmo_curate.next_command import after_inspect
    from rmo_curate.score.inspection import run_inspect

    limits = ScoreSettings(limit=settings.limit, max_length=settings.max_length)
    lines = run_inspect(settings.data, settings.model, limits, columns=settings.map, to=settings.to)
    print_lines(lines, after_inspect(settings))


class ExportCommand(Settings):
    """`rmo-curate export`."""

    shards: Path = from_recipe("filter.out", description="Shard folder made by `rmo-curate filter`", argument="SHARDS")
    to: Trainer = Field(description="Trainer to export for")
    out: Path = Field(description="Output folder")


@app.command()
@flags(ExportCommand)
def export(settings: ExportCommand) -> None:
    """Export the kept pairs for another trainer, and report what its format cannot hold."""
    from rmo_curate.export.command import run_export

    print_lines(run_export(settings.shards, settings.to, settings.out))


class StatusCommand(Settings):
    """`rmo-curate status`."""

    run: Path = from_recipe("score.out", description="Run folder", argument="RUN")


@app.command()
@flags(StatusCommand)
def status(settings: StatusCommand) -> None:
    """Show what is done in a run folder and what is left."""
    from rmo_curate.score.run_folder import run_status

    print_lines(run_status(settings.run))


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
