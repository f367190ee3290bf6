"""A recipe: its sections, each validated by the component that it configures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from rmo_curate.audit.settings import AuditCommand
from rmo_curate.filter.settings import FilterCommand
from rmo_curate.score.settings import ProxySettings, ScoreCommand
from rmo_train.console.errors import UserError
from rmo_train.console.settings import Settings, build, read_recipe
from rmo_train.training.settings import TrainCommand, TrainSettings


class DataSettings(Settings):
    """Where the pairs are: files or folders."""

    train: tuple[str, ...] = Field(description="Training pairs (or --data)")
    heldout: str | None = Field(
        None, description="Held-out pairs; their prompts must differ from the training prompts (or --eval-data)"
    )
    map: dict[str, str] = Field({}, description="Names of columns in your data, such as {prompt: question}")


class EvalSettings(Settings):
    """How the trained model is evaluated."""

    run: Path = Field(description="Run folder of the scored held-out pairs")
    out: Path = Field(description="Folder for the evaluations' JSON files")
    limit: int | None = Field(None, ge=1, description="Use the first N held-out records")
    baseline: bool = Field(
        True, description="Also train and evaluate plain preference optimisation on all pairs, for comparison"
    )


@dataclass(frozen=True)
class Recipe:
    """A recipe: the settings of each stage's command."""

    data: DataSettings
    score: ScoreCommand
    proxy: ProxySettings
    filter: FilterCommand
    train: TrainCommand
    eval: EvalSettings | None
    audit: AuditCommand

    @property
    def run(self) -> Path:
        return self.score.out

    @property
    def shards(self) -> Path:
        return self.filter.out

    @property
    def plain_shards(self) -> Path:
        return self.shards.with_name(self.shards.name + "-all")

    @property
    def plain_trained(self) -> Path:
        return self.train.out.with_name(self.train.out.name + "-plain")

    @property
    def plain_train(self) -> TrainSettings:
        """The training settings of plain preference optimisation: the same, without the method's parts."""
        off = {"diversify": False, "amplify": 0.0, "amplify_preset": None, "soft_labels": False}
        return self.train.part(TrainSettings).model_copy(update=off)

    def evaluations(self) -> list[tuple[str, str, Path]]:
        """(name, model, JSON file) of each model that is evaluated."""
        if self.eval is None:
            return []
        folder, loss = self.eval.out, self.train.loss.upper()
        plain = [(f"plain {loss}", str(self.plain_trained), folder / "plain.json")] if self.eval.baseline else []
        return [
            ("base", self.score.model, folder / "base.json"),
            *plain,
            (f"RMO {loss}", str(self.train.out), folder / "rmo.json"),
        ]


def load_recipe(path: Path, data: str | None = None, eval_data: str | None = None, limit: int | None = None) -> Recipe:
    """Read and validate a recipe; `data`, `eval_data` and `limit` override its values."""
    return recipe_of(read_recipe(path), path, data, eval_data, limit)


def recipe_of(
    sections: Mapping[str, Mapping[str, Any]],
    path: Path,
    data: str | None = None,
    eval_data: str | None = None,
    limit: int | None = None,
) -> Recipe:
    """The recipe of these sections, read from `path`."""
    replaced = {name: value for name, value in (("train", data), ("heldout", eval_data)) if value}
    sections = {**sections, "data": {**sections.get("data", {}), **replaced}}
    if "train" not in sections["data"]:
        raise UserError(f"{path} has no training data; give --data FILE (and --eval-data FILE)")
    evaluated = bool(sections["data"].get("heldout"))
    return Recipe(
        data=build(DataSettings, "data", sections, {}),
        score=build(ScoreCommand, "score", sections, {"limit": limit}),
        proxy=build(ProxySettings, "proxy", sections, {}),
        filter=build(FilterCommand, "filter", sections, {}),
        train=build(TrainCommand, "train", sections, {}),
        eval=build(EvalSettings, "eval", sections, {}) if evaluated else None,
        audit=build(AuditCommand, "audit", sections, {}),
    )
