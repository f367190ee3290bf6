"""The results of an evaluation: accuracies with intervals, and each pair's margin, as kept in a JSON file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rmo_train.console.errors import UserError, misfit
from rmo_train.evaluation.intervals import LEAST_PROMPTS
from rmo_train.evaluation.metrics import Interval, length_matched_weights
from rmo_train.store.files import read_json

# Reward margin in nats, index of the pair's prompt, chosen minus rejected tokens.
PairMargin = tuple[float, int, int]


def rounded(margin: float) -> float:
    """`margin` to four significant digits, so that signs and ties are kept."""
    return float(f"{margin:.4g}")


@dataclass(frozen=True)
class Evaluation:
    """Accuracies with 95% intervals over prompts (`intervals`), and their data.

    A pair counts as right if its margin is positive; a tie counts 0.5, so the reference itself has a `reward_accuracy`
    of 0.5. `length_accuracy` is that of "the longer answer wins". `pairs_sha256` is a hash of the pairs' ids and
    tokens, `reference_sha256` one of the reference's weights.
    """

    n: int  # pairs
    reward_accuracy: Interval
    logp_accuracy: Interval
    mean_logp_accuracy: Interval
    length_accuracy: Interval
    length_matched_reward_accuracy: Interval
    mean_reward_margin: float  # nats, without beta
    pairs: Mapping[str, PairMargin] = field(repr=False)  # by id
    pairs_sha256: str
    reference_sha256: str | None
    overlap_pairs: int = 0
    overlap_prompts: int = 0

    @property
    def prompts(self) -> int:
        """Number of distinct prompts."""
        return len({prompt for _, prompt, _ in self.pairs.values()})

    @property
    def few(self) -> bool:
        """Whether there are too few prompts for a verdict."""
        return self.prompts < LEAST_PROMPTS

    @property
    def length_matched_n(self) -> int:
        """Pairs that count in the length-matched accuracy."""
        longer_by = np.array([tokens for _, _, tokens in self.pairs.values()])
        return int((length_matched_weights(longer_by, np.zeros(len(longer_by))) > 0).sum())

    def as_json(self) -> dict[str, Any]:
        """The figures first, the pairs last."""
        entries = asdict(self)
        counts = {"n": entries.pop("n"), "prompts": self.prompts, "length_matched_n": self.length_matched_n}
        pairs = entries.pop("pairs")
        return {**counts, **entries, "pairs": pairs}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Evaluation:
        """The inverse of `as_json`; ignores other entries of `value`."""
        fields = {name: value[name] for name in cls.__dataclass_fields__}
        intervals = {k: Interval(**v) for k, v in fields.items() if k.endswith("_accuracy")}
        return cls(**{**fields, **intervals, "pairs": {i: (m, p, t) for i, (m, p, t) in fields["pairs"].items()}})

    def as_metrics(self) -> dict[str, float]:
        names = ("reward_accuracy", "logp_accuracy", "mean_logp_accuracy", "length_matched_reward_accuracy")
        return {f"eval/{name}": getattr(self, name).value for name in names}


def read_evaluation(path: Path) -> Evaluation:
    """Read an evaluation from a JSON file; UserError if it has none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected one that `rmo-train eval --out` wrote")
    try:
        return Evaluation.from_json(read_json(path))
    except (ValueError, TypeError, KeyError, AttributeError) as e:
        raise UserError(
            f"{path}: not an evaluation with the margin of each pair ({misfit(e)}); "
            "evaluate the model again with `rmo-train eval --out`"
        ) from e
