"""The interface of every engine; a scoring stage uses nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from rmo_train.data.pairs import PairData

NOISE_PAIRS = 16  # maximum number of pairs on which the noise of scoring is measured
NOISE_SHARE = 8  # at most one pair in 8 (but at least 4), since it costs an extra pass over them as plain rows


@dataclass(frozen=True)
class Work:
    """Sequences and tokens requested of a scoring stage, and computed by it. Depends on pairs and layout only."""

    sequences: int = 0  # prompt + response, two a pair
    distinct: int = 0
    tokens_asked: int = 0  # if every sequence were computed separately, without padding
    tokens_computed: int = 0

    @classmethod
    def of(cls, data: PairData, rows: np.ndarray, distinct: int, tokens_computed: int) -> Work:
        """The work of scoring the pairs `rows`, given the distinct sequences and tokens that the engine computes."""
        prompts, chosen, rejected = (r.lengths[rows] for r in (data.prompt, data.chosen, data.rejected))
        return cls(2 * len(rows), distinct, int((2 * prompts + chosen + rejected).sum()), tokens_computed)

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def saved(self) -> float:
        """Share of the requested tokens that sharing prompts and responses saved."""
        return 1 - self.tokens_computed / self.tokens_asked if self.tokens_asked else 0.0


def noise_sample(data: PairData) -> np.ndarray:
    """The pairs on which the noise of scoring is measured, int64."""
    return data.spread(min(NOISE_PAIRS, max(4, len(data) // NOISE_SHARE)))


class LayoutOfEngine(Protocol):
    @property
    def reason(self) -> str: ...

    @property
    def recorded(self) -> str: ...

    @property
    def computed_by(self) -> dict[str, str]: ...


class Engine(Protocol):
    """One checkpoint, ready to score."""

    @property
    def layout(self) -> LayoutOfEngine:
        """How sequences are laid out, and why, in one line; and what the trainer needs to compute the same."""

    def work(self, data: PairData, rows: np.ndarray) -> Work:
        """The work of scoring the pairs `rows`."""

    def score(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """Log-probs of the pairs `rows`, float64 nats [len(rows), 2] (chosen, rejected); `advance` counts pairs."""

    def noise_sd(self, data: PairData) -> float:
        """Noise of scoring: sd of the change in D (nats) when the same pairs are scored in another layout."""


@runtime_checkable
class StateEngine(Engine, Protocol):
    """An engine that also has access to the model's hidden states."""

    def state_differences(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """Features of a probe for the pairs `rows` (see `rmo_train.forward.states`): float32 [len(rows), numbers]."""

    def score_with_states(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The results of `score` and `state_differences`, from one forward pass."""
