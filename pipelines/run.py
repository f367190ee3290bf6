"""Run a recipe end to end: `python -m pipelines.run RECIPE [--data TRAIN --eval-data HELDOUT]`.

Stages run in order and each of them skips what is finished, so running the same recipe again resumes it:
score -> filter -> train -> score the held-out pairs -> evaluate -> audit. With `eval.baseline` a plain run on all pairs
(no filter, no diversification, no amplification) is trained and evaluated beside it, so the gain is shown on one's own
data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from pipelines.summary import summary_table
from rmo_curate.audit.collect import AuditSettings
from rmo_curate.filter_settings import FilterSettings
from rmo_curate.job import ScoreSettings
from rmo_curate.proxies import ProxySettings
from rmo_train.config import TrainSettings
from rmo_train.errors import UserError
from rmo_train.progress import say
from rmo_train.settings import Settings, build, read_recipe, run_app, without_places

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class DataSettings(Settings):
    """Where the pairs are: files or folders."""

    train: str = Field(description="Training pairs (or --data)")
    heldout: str | None = Field(None, description="Held-out pairs of other prompts (or --eval-data)")


class EvalSettings(Settings):
    """How the trained model is measured."""

    run: Path = Field(description="Run folder of the scored held-out pairs")
    out: Path = Field(description="Folder of the evaluations' JSON files")
    limit: int | None = Field(None, ge=1, description="Use the first N held-out records")
    baseline: bool = Field(True, description="Train and measure plain preference optimisation on all pairs as well")


@dataclass(frozen=True)
class Recipe:
    """A recipe with every section validated by its owner, and the folders of the stages."""

    data: DataSettings
    score: ScoreSettings
    proxy: ProxySettings
    filter: FilterSettings
    train: TrainSettings
    eval: EvalSettings | None
    audit: AuditSettings
    model: str
    run: Path
    shards: Path
    trained: Path
    report: Path

    @property
    def plain_shards(self) -> Path:
        return self.shards.with_name(self.shards.name + "-all")

    @property
    def plain_trained(self) -> Path:
        return self.trained.with_name(self.trained.name + "-plain")

    def evaluations(self) -> list[tuple[str, str, Path]]:
        """(name, model, JSON file) of each model that is measured."""
        if self.eval is None:
            return []
        models = [("base", self.model)]
        if self.eval.baseline:
            models.append((f"plain {self.train.loss.upper()}", str(self.plain_trained)))
        models.append((f"RMO {self.train.loss.upper()}", str(self.trained)))
        files = [self.eval.out / f"{Path(m).name}.json" for _, m in models]
        return [(name, model, file) for (name, model), file in zip(models, files, strict=True)]


def load_recipe(
    path: Path, data: str | None = None, eval_data: str | None = None, limit: int | None = None
) -> Recipe:
    """Read and validate a recipe; `data`, `eval_data` and `limit` take the place of its data section and score.limit."""
    found = read_recipe(path)
    data_section = {**found.get("data", {}), **({"train": data} if data else {})}
    if eval_data:
        data_section["heldout"] = eval_data
    if "train" not in data_section:
        raise UserError(f"{path}: names no training data; give --data FILE (and --eval-data FILE)")

    def folder(section: str, field: str = "out") -> Path:
        value = found.get(section, {}).get(field)
        if not value:
            raise UserError(f"{path}: `{section}.{field}` is missing; the runner needs it")
        return Path(value)

    model = found.get("score", {}).get("model")
    if not model:
        raise UserError(f"{path}: `score.model` is missing: the reference model")
    evaluation = None
    if data_section.get("heldout"):
        evaluation = build(EvalSettings, "eval", found.get("eval", {}), {})
    return Recipe(
        data=build(DataSettings, "data", data_section, {}),
        score=build(ScoreSettings, "score", without_places("score", found), {"limit": limit}),
        proxy=build(ProxySettings, "proxy", found.get("proxy", {}), {}),
        filter=build(FilterSettings, "filter", without_places("filter", found), {}),
        train=build(TrainSettings, "train", without_places("train", found), {}),
        eval=evaluation,
        audit=build(AuditSettings, "audit", without_places("audit", found), {}),
        model=model,
        run=folder("score"),
        shards=folder("filter"),
        trained=folder("train"),
        report=folder("audit"),
    )


def run_recipe(recipe: Recipe) -> None:
    """Every stage in order; a finished one is skipped by its own manifest."""
    from rmo_curate.audit.report import write_audit
    from rmo_curate.filtering import run_filter
    from rmo_curate.job import run_score
    from rmo_train.run import run_training

    def stage(name: str, lines: list[str]) -> None:
        say("\n".join(f"[{name}] {line}" for line in lines))

    stage("score", run_score([recipe.data.train], recipe.model, recipe.run, recipe.score, recipe.proxy))
    stage("filter", run_filter(recipe.run, recipe.shards, recipe.filter))
    stage("train", run_training(recipe.shards, recipe.model, recipe.trained, recipe.train))
    if recipe.eval is not None:
        held_out = recipe.score.model_copy(update={"proxy_folds": 0, "limit": recipe.eval.limit})
        heldout = str(recipe.data.heldout)
        stage("heldout", run_score([heldout], recipe.model, recipe.eval.run, held_out, recipe.proxy))
        if recipe.eval.baseline:
            stage("plain", run_filter(recipe.run, recipe.plain_shards, FilterSettings(rule="none")))
            plain = recipe.train.model_copy(
                update={"diversify": False, "amplify": 0.0, "amplify_preset": None, "amplify_lambda": None}
            )
            stage("plain", run_training(recipe.plain_shards, recipe.model, recipe.plain_trained, plain))
        for name, model, file in recipe.evaluations():
            stage(f"eval {name}", measure(recipe.eval.run, model, file))
    stage("audit", list(write_audit(recipe.run, recipe.report, recipe.audit, recipe.filter).lines))


def measure(held_out: Path, model: str, file: Path) -> list[str]:
    """Evaluate `model` on the held-out run, unless `file` has that evaluation already."""
    from rmo_train.policy import identity
    from rmo_train.run import run_eval
    from rmo_train.tables import read_json, read_manifest, write_json

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
        summary_table(loaded)


if __name__ == "__main__":
    run_app(app)
