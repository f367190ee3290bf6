"""The model card of a training run: data, settings, results, versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData
from rmo_train.report import evaluation_lines, plan_lines, speed_line
from rmo_train.store.manifests import ShardsManifest, versions
from rmo_train.training.plan import Plan
from rmo_train.training.settings import TrainSettings

if TYPE_CHECKING:
    from rmo_train.training.command import Trained


def model_card(
    model: str,
    data: PairData,
    settings: TrainSettings,
    plan: Plan,
    trained: Trained,
    curves: Path | None,
) -> str:
    """Markdown with the Hub's front matter; curves: the chart of the metrics."""
    metrics, best = trained.metrics, trained.best
    counts = {} if data.manifest is None else data.manifest.counts
    kept = f"{len(data)} of {counts['pairs']}" if "pairs" in counts else str(len(data))
    measured = evaluation_lines(trained.evaluation) if trained.evaluation else ["not evaluated on held-out pairs"]
    library = "peft" if settings.lora else "transformers"
    lines = [
        "---",
        f"base_model: {model}",
        f"library_name: {library}",
        "tags: [rmo, preference-optimization, " + settings.loss + "]",
        "---",
        "",
        f"# {model}, aligned with {settings.loss.upper()}",
        "",
        f"Trained on {kept} preference pairs for {counted(trained.steps, 'step')} with rmo.",
        "",
        "## Data",
        "",
        f"- reference log-probs: {data.reference.name} ({data.reference.dtype})",
        f"- filter settings: {data.manifest.settings if isinstance(data.manifest, ShardsManifest) else 'none'}",
        "",
        "## Training",
        "",
        *[f"- {line}" for line in plan_lines(plan, settings)],
        f"- last step: loss {metrics.get('loss', float('nan')):.4f}, "
        f"reward accuracy {metrics.get('rewards/accuracies', float('nan')):.3f}",
        *([f"- {speed_line(metrics)}"] if metrics else []),
        *([f"- the model is {best.name}, which has the best reward accuracy on the held-out pairs"] if best else []),
        "",
        *([f"![metrics of every step]({curves.name})", ""] if curves else []),
        "## Held-out pairs",
        "",
        *["    " + line for line in measured],
        "",
        "## Versions",
        "",
        *[f"- {name} {version}" for name, version in versions().items()],
        "",
    ]
    return "\n".join(lines)
