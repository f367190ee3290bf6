"""The transformers engine: log-probs by the trainer's own packed forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rmo_curate.score.engines.base import Work, noise_sample
from rmo_train.data.pairs import PairData

if TYPE_CHECKING:
    from rmo_train.forward.layout import Workload


@dataclass
class TransformersEngine:
    """One loaded checkpoint; `score` is deterministic for the same rows."""

    checkpoint: str
    dtype: str  # float32 or bfloat16
    workload: Workload  # of all that is to be scored
    tokens_per_batch: int | None = None
    attention: str = "auto"

    def __post_init__(self) -> None:
        from rmo_train.forward.layout import choose_layout
        from rmo_train.model.policy import load_model

        self.model = load_model(self.checkpoint, self.dtype)
        self.layout = choose_layout(
            self.model, self.workload, attention=self.attention, tokens_per_batch=self.tokens_per_batch
        )

    def work(self, data: PairData, rows: np.ndarray) -> Work:
        """The work of scoring the pairs `rows`."""
        from rmo_train.forward.packing import distinct_trees

        trees, slots = distinct_trees(data, rows)
        return Work.of(data, rows, int(slots.max()) + 1, self.layout.tokens(trees))

    def score(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """Log-probs of the pairs `rows`, float64 nats [len(rows), 2] (chosen, rejected); `advance` counts pairs."""
        from rmo_train.forward.logps import pair_logps

        return pair_logps(self.model, data, rows, self.layout, self._in_pairs(data, rows, advance))

    def state_differences(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """Features of a probe for the pairs `rows` (see `rmo_train.forward.states`): float32 [len(rows), numbers]."""
        from rmo_train.forward.states import pair_state_differences

        return pair_state_differences(self.model, data, rows, self.layout, self._in_pairs(data, rows, advance))

    def score_with_states(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The results of `score` and `state_differences`, from one forward pass."""
        from rmo_train.forward.states import pair_logps_and_differences

        return pair_logps_and_differences(self.model, data, rows, self.layout, self._in_pairs(data, rows, advance))

    def _in_pairs(self, data: PairData, rows: np.ndarray, advance: Callable[[float], None]) -> Callable[[int], None]:
        """A callback that counts tokens, from `advance`, which counts pairs."""
        pairs_per_token = len(rows) / self.work(data, rows).tokens_computed
        return lambda tokens: advance(tokens * pairs_per_token)

    def noise_sd(self, data: PairData) -> float:
        """sd of the difference in D between two layouts (as scored, and one response per row), in nats."""
        from rmo_train.forward.attention import use_attention
        from rmo_train.forward.layout import Layout
        from rmo_train.forward.logps import margin_sd, pair_logps

        both = []
        for layout in (Layout("rows", 1), self.layout):
            use_attention(self.model, layout.path)
            both.append(pair_logps(self.model, data, noise_sample(data), layout))
        return margin_sd(*both)
