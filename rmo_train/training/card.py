"""The model card that a training run writes: what it was trained on, with what, and how it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rmo_train.data.pairs import PairData
from rmo_train.evaluation.result import Evaluation
from rmo_train.store.tables import versions
from rmo_train.training.config import TrainSettings
from rmo_train.training.plan import Plan


def model_card(
    model: str,
    data: PairData,
    settings: TrainSettings,
    plan: Plan,
    metrics: dict[str, Any],
    evaluation: Evaluation | None,
    best: Path | None,
    curves: Path | None,
) -> str:
    """Markdown with the Hub's front matter.

    best: the checkpoint that the model is, where held-out accuracy chose one; curves: the picture of the metrics.
    """
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
        *([f"- {speed_line(metrics)}"] if metrics else []),
        *([f"- the model is {best.name}: the best reward accuracy on the held-out pairs below"] if best else []),
        "",
        *([f"![metrics of every step]({curves.name})", ""] if curves else []),
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


def speed_line(metrics: dict[str, Any]) -> str:
    """How fast the run's steps were, in one line."""
    return (
        f"{metrics['pairs_per_second']:.3g} pairs/s, {metrics['tokens_per_second']:,.0f} tokens/s, "
        f"{metrics['matmul_share']:.0%} of the matrix-product rate, at most {metrics['peak_memory_gib']:.2f} GiB"
    )
