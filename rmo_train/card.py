"""The model card that a training run writes: what it was trained on, with what, and how it did."""

from __future__ import annotations

from typing import Any

from rmo_train.config import TrainSettings
from rmo_train.evaluate import Evaluation
from rmo_train.pairs import PairData
from rmo_train.plan import Plan
from rmo_train.tables import versions


def model_card(
    model: str,
    data: PairData,
    settings: TrainSettings,
    plan: Plan,
    metrics: dict[str, Any],
    evaluation: Evaluation | None,
) -> str:
    """Markdown with the Hub's front matter."""
    counts = data.manifest.get("counts", {})
    kept = f"{len(data)} of {counts['pairs']}" if "pairs" in counts else str(len(data))
    measured = ["not evaluated on held-out pairs"] if evaluation is None else evaluation.lines()
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
        f"Trained on {kept} preference pairs in {plan.steps} steps with rmo.",
        "",
        "## Data",
        "",
        f"- reference log-probs: {data.reference.get('name')} ({data.reference.get('dtype')})",
        f"- filter settings: {data.manifest.get('settings', 'none')}",
        "",
        "## Training",
        "",
        *[f"- {line}" for line in plan.lines(settings)],
        f"- last step: loss {metrics.get('loss', float('nan')):.4f}, "
        f"reward accuracy {metrics.get('rewards/accuracies', float('nan')):.3f}",
        "",
        "## Held-out pairs",
        "",
        *["    " + line for line in measured],
        "",
        "## Versions",
        "",
        *[f"- {name} {found}" for name, found in versions().items()],
        "",
    ]
    return "\n".join(lines)
