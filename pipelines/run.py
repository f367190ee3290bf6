"""Run a recipe end to end: `python -m pipelines.run RECIPE [--data TRAIN --eval-data HELDOUT]`.

Stages run in order and each of them skips what is finished, so running the same recipe again resumes it:
score -> filter -> train -> score the held-out pairs -> evaluate -> audit. With `eval.baseline` a plain run on all pairs
(no filter, no diversification, no amplification) is trained and evaluated beside it, so the gain is shown on one's own
data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.recipe import Recipe, load_recipe
from pipelines.summary import print_table
from pipelines.summary import summary as closing
from rmo_curate.filter.settings import FilterSettings
from rmo_train.console.progress import say
from rmo_train.console.settings import run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def run_recipe(recipe: Recipe) -> None:
    """Every stage in order; a finished one is skipped by its own manifest."""
    from rmo_curate.audit.report import write_audit
    from rmo_curate.filter.filtering import run_filter
    from rmo_curate.score.job import run_score
    from rmo_train.training.run import run_training

    def stage(name: str, lines: list[str]) -> None:
        say("\n".join(f"[{name}] {line}" for line in lines))

    stage(
        "score",
        run_score(
            [recipe.data.train],
            recipe.model,
            recipe.run,
            recipe.score,
            recipe.proxy,
            probe=recipe.probe,
            checkpoints=recipe.checkpoints,
            columns=recipe.data.map,
        ),
    )
    stage("filter", run_filter(recipe.run, recipe.shards, recipe.filter))
    stage("train", run_training(recipe.shards, recipe.model, recipe.trained, recipe.train))
    if recipe.eval is not None:
        held_out = recipe.score.model_copy(update={"proxy_folds": 0, "probe": False, "limit": recipe.eval.limit})
        heldout = str(recipe.data.heldout)
        lines = run_score([heldout], recipe.model, recipe.eval.run, held_out, recipe.proxy, columns=recipe.data.map)
        stage("heldout", lines)
        if recipe.eval.baseline:
            stage("plain", run_filter(recipe.run, recipe.plain_shards, FilterSettings(rule="none")))
            stage("plain", run_training(recipe.plain_shards, recipe.model, recipe.plain_trained, recipe.plain_train))
        for name, model, file in recipe.evaluations():
            stage(f"eval {name}", measure(recipe.eval.run, model, file))
    audited = write_audit(recipe.run, recipe.report, recipe.audit, recipe.filter)
    stage("audit", list(audited.lines))
    audited.check()


def measure(held_out: Path, model: str, file: Path) -> list[str]:
    """Evaluate `model` on the held-out run, unless `file` has that evaluation already."""
    from rmo_train.model.policy import identity
    from rmo_train.store.tables import read_json, read_manifest, write_json
    from rmo_train.training.run import run_eval

    manifest: dict[str, Any] = read_manifest(held_out) or {}
    key = {"weights_sha256": identity(model).weights_sha256, "inputs": manifest.get("inputs")}
    if file.is_file() and read_json(file).get("key") == key:
        return [f"{file}: already measured"]
    result = run_eval(held_out, model)
    write_json(file, {"key": key, **result.as_json()})
    return result.lines()


@app.command()
def main(
    recipe: Annotated[Path, typer.Argument(help="Recipe file, as pipelines/quickstart.yaml")],
    data: Annotated[str | None, typer.Option(help="Training pairs: file or folder")] = None,
    eval_data: Annotated[str | None, typer.Option(help="Held-out pairs of other prompts")] = None,
    limit: Annotated[int | None, typer.Option(help="Use the first N training records")] = None,
    summary: Annotated[bool, typer.Option(help="Print the closing table")] = True,
) -> None:
    """Run a recipe end to end; run it again to resume."""
    loaded = load_recipe(recipe, data, eval_data, limit)
    run_recipe(loaded)
    if summary:
        print_table(closing(loaded))


if __name__ == "__main__":
    run_app(app)
