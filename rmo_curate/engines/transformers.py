"""The transformers engine: log-probs by the trainer's own packed forward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass

import numpy as np

from rmo_train.pairs import PairData

NOISE_PAIRS = 16


@dataclass(frozen=True)
class Work:
    """What a scoring stage is asked for and what it computes: a function of the pairs and the layout alone."""

    sequences: int = 0  # prompt + response, two a pair
    distinct: int = 0
    tokens_asked: int = 0  # every sequence by itself, without padding
    tokens_computed: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def saved(self) -> float:
        """Share of the tokens asked for that sharing prompts and responses did not compute."""
        return 1 - self.tokens_computed / self.tokens_asked if self.tokens_asked else 0.0


@dataclass
class TransformersEngine:
    """One loaded checkpoint; `score` is deterministic for the same rows."""

    checkpoint: str
    dtype: str  # float32 or bfloat16
    pairs: PairData  # what is scored: its longest pair and a sample of it decide the layout
    tokens_per_batch: int | None = None
    attention: str = "auto"

    def __post_init__(self) -> None:
        from rmo_train.layout import choose_layout
        from rmo_train.policy import load_model

        self.model = load_model(self.checkpoint, self.dtype)
        self.layout = choose_layout(
            self.model, self.pairs, attention=self.attention, tokens_per_batch=self.tokens_per_batch
        )

    def work(self, data: PairData, rows: np.ndarray) -> Work:
        """What scoring the pairs `rows` takes."""
        from rmo_train.packing import distinct_trees

        trees, slots = distinct_trees(data, rows)
        prompts, chosen, rejected = (r.lengths[rows] for r in (data.prompt, data.chosen, data.rejected))
        asked = int((2 * prompts + chosen + rejected).sum())
        return Work(2 * len(rows), int(slots.max()) + 1, asked, self.layout.tokens(trees))

    def score(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """Log-probs of the pairs `rows`, float64 nats [len(rows), 2] (chosen, rejected); `advance` gets pairs done."""
        from rmo_train.logps import response_logps
        from rmo_train.packing import distinct_trees

        trees, slots = distinct_trees(data, rows)
        pairs_per_token = len(rows) / self.layout.tokens(trees)
        logps = response_logps(
            self.model,
            trees,
            int(slots.max()) + 1,
            self.layout,
            lambda tokens: advance(tokens * pairs_per_token),
        )
        return logps[slots]

    def noise_sd(self, data: PairData) -> float:
        """sd of D between two packings (as the scores, and every response in a row of its own), in nats."""
        from rmo_train.attention import use_attention
        from rmo_train.layout import Layout
        from rmo_train.logps import response_logps
        from rmo_train.packing import pair_trees

        rows = np.linspace(0, len(data) - 1, min(NOISE_PAIRS, len(data))).astype(int)
        trees = pair_trees(data, rows)
        margins = []
        for layout in (Layout("rows", 1, "one sequence a row"), self.layout):
            use_attention(self.model, layout.path)
            logps = response_logps(self.model, trees, 2 * len(rows), layout).reshape(-1, 2)
            margins.append(logps[:, 0] - logps[:, 1])
        return float(np.std(margins[0] - margins[1]))
