"""`rmo-curate`: score, proxy, rules, filter, audit, inspect, export, status. Each parses its flags and calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rmo_curate.audit.settings import AuditSettings
from rmo_curate.export.formats import Trainer
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.read.column_map import column_map
from rmo_curate.score.probe import ProbeSettings
from rmo_curate.score.proxies import ProxySettings
from rmo_curate.score.settings import ScoreSettings
from rmo_train.console.errors import UserError
from rmo_train.console.settings import RecipeOption, build, flags, place, places, read_recipe, run_app, without_places

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would be done and stop")]
DATA_HELP = "Files or folders (jsonl, json, csv, parquet, arrow; gzip, zstd) or hf:owner/name[:split]"
MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", help="A column that is called otherwise in the data: prompt=question; repeatable"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make everything in the output folder again")]


@app.callback()
def rmo_curate() -> None:
    """Find the noise in preference data: score pairs, filter them, audit them."""


@app.command()
@flags(ScoreSettings)
def score(
    data: Annotated[list[str] | None, typer.Argument(help=DATA_HELP)] = None,
    model: Annotated[str | None, typer.Option(help="Reference model: a folder, a hub name or smollm2-135m")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder")] = None,
    checkpoint: Annotated[list[str] | None, typer.Option(help="A trained checkpoint to score too; repeatable")] = None,
    map: MapOption = None,
    recipe: RecipeOption = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    **given: Any,
) -> None:
    """Record every pair's log-probs under the reference and a chain of checkpoints (your own, or proxies)."""
    from rmo_curate.score.job import run_score

    found = read_recipe(recipe)
    lines = run_score(
        places(data, found, "data.train") or [place(None, found, "DATA", "data.train")],
        place(model, found, "--model", "score.model"),
        Path(place(out, found, "--out", "score.out")),
        build(ScoreSettings, "score", without_places("score", found), given),
        build(ProxySettings, "proxy", found.get("proxy", {}), {}),
        probe=build(ProbeSettings, "probe", found.get("probe", {}), {}),
        checkpoints=places(checkpoint, found, "score.checkpoint"),
        columns=column_map(map, found),
        overwrite=overwrite,
        dry_run=dry_run,
    )
    typer.echo("\n".join(lines))


@app.command()
@flags(ProxySettings)
def proxy(
    run: Annotated[Path | None, typer.Argument(help="Run folder made by `rmo-curate score`")] = None,
    recipe: RecipeOption = None,
    dry_run: DryRun = False,
    **given: Any,
) -> None:
    """Train and score one family of proxies on a scored run."""
    from rmo_curate.score.job import run_proxy

    found = read_recipe(recipe)
    settings = build(ProxySettings, "proxy", found.get("proxy", {}), given)
    typer.echo("\n".join(run_proxy(Path(place(run, found, "RUN", "score.out")), settings, dry_run=dry_run)))


@app.command()
@flags(ProbeSettings)
def probe(
    run: Annotated[Path | None, typer.Argument(help="Run folder made by `rmo-curate score`")] = None,
    recipe: RecipeOption = None,
    dry_run: DryRun = False,
    **given: Any,
) -> None:
    """Fit a linear reward on the reference's hidden states: a proxy for the price of one forward pass."""
    from rmo_curate.score.job import run_probe

    found = read_recipe(recipe)
    settings = build(ProbeSettings, "probe", found.get("probe", {}), given)
    typer.echo("\n".join(run_probe(Path(place(run, found, "RUN", "score.out")), settings, dry_run=dry_run)))


@app.command("filter")
@flags(FilterSettings)
def filter_(
    run: Annotated[Path | None, typer.Argument(help="Run folder made by `rmo-curate score`")] = None,
    out: Annotated[Path | None, typer.Option(help="Shard folder")] = None,
    recipe: RecipeOption = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    **given: Any,
) -> None:
    """Drop noisy and ambiguous pairs (Dual Denoising Filtering) and write the rest as shards."""
    from rmo_curate.filter.filtering import run_filter

    found = read_recipe(recipe)
    settings = build(FilterSettings, "filter", without_places("filter", found), given)
    folder = Path(place(run, found, "RUN", "score.out"))
    if dry_run and run is None and not folder.exists():
        typer.echo(f"{folder} is not there yet: known after `rmo-curate score`")
        return
    shards = Path(place(out, found, "--out", "filter.out"))
    typer.echo("\n".join(run_filter(folder, shards, settings, overwrite=overwrite, dry_run=dry_run)))


@app.command()
def rules(
    run: Annotated[Path | None, typer.Argument(help="Run folder made by `rmo-curate score`")] = None,
    high_q: Annotated[float, typer.Option(min=0, max=1, help="Quantile of suspicion that each rule is cut at")] = 0.95,
    proxy: Annotated[str | None, typer.Option(help="Checkpoint of the run that ends the trajectory")] = None,
    generator_column: Annotated[
        str | None, typer.Option(help="NAME of the columns chosen_NAME and rejected_NAME that name an answer's model")
    ] = None,
    category_column: Annotated[
        str | None, typer.Option(help="Column that says what kind of prompt a pair is of")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
    recipe: RecipeOption = None,
) -> None:
    """What each rule would drop, how far rules agree, and what swapped copies say of their precision and recall."""
    from rmo_curate.evidence.columns import EvidenceColumns
    from rmo_curate.filter.rule_report import run_rules

    folder = Path(place(run, read_recipe(recipe), "RUN", "score.out"))
    names = EvidenceColumns(generator_column=generator_column, category_column=category_column)
    found = run_rules(folder, high_q, proxy, names)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else "\n".join(found.lines()))


@app.command()
@flags(AuditSettings)
def audit(
    data: Annotated[
        list[str] | None, typer.Argument(help=f"A run folder made by `score`; or data. {DATA_HELP}")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html and audit.json")] = None,
    map: MapOption = None,
    recipe: RecipeOption = None,
    **given: Any,
) -> None:
    """Say what is wrong with preference data, scored or not: an offline HTML report, and its numbers as JSON."""
    from rmo_curate.audit.report import is_run, write_audit, write_data_audit

    found = read_recipe(recipe)
    paths = data or [place(None, found, "RUN or DATA", "score.out")]
    folder = Path(place(out, found, "--out", "audit.out"))
    settings = build(AuditSettings, "audit", without_places("audit", found), given)
    if not data or (len(paths) == 1 and is_run(paths[0])):
        if map:
            raise UserError("--map is for data; a run was read with its own")
        filtering = build(FilterSettings, "filter", without_places("filter", found), {}) if "filter" in found else None
        summary = write_audit(Path(paths[0]), folder, settings, filtering)
    else:
        summary = write_data_audit(paths, folder, settings, columns=column_map(map, found))
    typer.echo("\n".join(summary.lines))
    summary.check()


@app.command()
def inspect(
    data: Annotated[list[str] | None, typer.Argument(help="Files or folders, as `score` takes them")] = None,
    model: Annotated[str | None, typer.Option(help="Render and tokenise for this model: a folder or a name")] = None,
    limit: Annotated[int | None, typer.Option(help="Look at the first N input records only")] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of prompt + longer response that `score` takes")
    ] = None,
    map: MapOption = None,
    recipe: RecipeOption = None,
) -> None:
    """Show what data hold before they are scored: form, columns, samples with their tokens, problems by kind."""
    from rmo_curate.score.inspection import run_inspect

    found = read_recipe(recipe)
    given = {"limit": limit, "max_length": max_length}
    lines = run_inspect(
        places(data, found, "data.train") or [place(None, found, "DATA", "data.train")],
        model or found.get("score", {}).get("model"),
        build(ScoreSettings, "score", without_places("score", found), given),
        columns=column_map(map, found),
    )
    typer.echo("\n".join(lines))


@app.command()
def export(
    shards: Annotated[Path | None, typer.Argument(help="Shard folder made by `rmo-curate filter`")] = None,
    to: Annotated[Trainer | None, typer.Option(help="The trainer that is to read the pairs")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write")] = None,
    recipe: RecipeOption = None,
) -> None:
    """Write the kept pairs as another trainer reads them, and say what that cannot carry."""
    from rmo_curate.export.write import run_export

    folder = Path(place(shards, read_recipe(recipe), "SHARDS", "filter.out"))
    if to is None:
        raise UserError(f"--to is missing; expected {', '.join(Trainer)}")
    if out is None:
        raise UserError("--out is missing: give the folder to write")
    typer.echo("\n".join(run_export(folder, to, out)))


@app.command()
def status(run: Annotated[Path | None, typer.Argument(help="Run folder")] = None, recipe: RecipeOption = None) -> None:
    """Say what is done in a run folder and what is left."""
    from rmo_curate.score.run_folder import run_status

    typer.echo("\n".join(run_status(Path(place(run, read_recipe(recipe), "RUN", "score.out")))))


def main() -> None:
    run_app(app)


if __name__ == "__main__":
    main()
