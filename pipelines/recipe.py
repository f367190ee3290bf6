"""A recipe: its sections, each validated by its owner, and the folders of its stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from rmo_curate.audit.settings import AuditSettings
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.score.probe import ProbeSettings
from rmo_curate.score.proxies import ProxySettings
from rmo_curate.score.settings import ScoreSettings
from rmo_train.console.errors import UserError
from rmo_train.console.settings import Settings, build, places, read_recipe, without_places
from rmo_train.training.config import TrainSettings


class DataSettings(Settings):
    """Where the pairs are: files or folders."""

    train: str = Field(description="Training pairs (or --data)")
    heldout: str | None = Field(None, description="Held-out pairs of other prompts (or --eval-data)")
    map: dict[str, str] = Field({}, description="Columns that are called otherwise in the data: {prompt: question}")


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
    probe: ProbeSettings
    filter: FilterSettings
    train: TrainSettings
    eval: EvalSettings | None
    audit: AuditSettings
    model: str
    checkpoints: tuple[str, ...]
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

    @property
    def plain_train(self) -> TrainSettings:
        """The training settings of plain preference optimisation: the same, without the method's parts."""
        off = {"diversify": False, "amplify": 0.0, "amplify_preset": None, "soft_labels": False}
        return self.train.model_copy(update=off)

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


def load_recipe(path: Path, data: str | None = None, eval_data: str | None = None, limit: int | None = None) -> Recipe:
    """Read and validate a recipe; `data`, `eval_data` and `limit` take the place of what it says."""
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
        probe=build(ProbeSettings, "probe", found.get("probe", {}), {}),
        filter=build(FilterSettings, "filter", without_places("filter", found), {}),
        train=build(TrainSettings, "train", without_places("train", found), {}),
        eval=evaluation,
        audit=build(AuditSettings, "audit", without_places("audit", found), {}),
        model=model,
        checkpoints=tuple(places(None, found, "score.checkpoint")),
        run=folder("score"),
        shards=folder("filter"),
        trained=folder("train"),
        report=folder("audit"),
    )
