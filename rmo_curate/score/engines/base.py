"""What every engine answers; a scoring stage knows no more of its engine than this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from rmo_train.data.pairs import PairData

NOISE_PAIRS = 16  # at most, that the noise of scoring is measured on;
NOISE_SHARE = 8  # of the data at most one in so many, and four at least: it takes a pass over them as plain rows


@dataclass(frozen=True)
class Work:
    """What a scoring stage is asked for and what it computes: a function of the pairs and the layout alone."""

    sequences: int = 0  # prompt + response, two a pair
    distinct: int = 0
    tokens_asked: int = 0  # every sequence by itself, without padding
    tokens_computed: int = 0

    @classmethod
    def of(cls, data: PairData, rows: np.ndarray, distinct: int, tokens_computed: int) -> Work:
        """The work of the pairs `rows`, of which an engine computes so many distinct sequences and tokens."""
        prompts, chosen, rejected = (r.lengths[rows] for r in (data.prompt, data.chosen, data.rejected))
        return cls(2 * len(rows), distinct, int((2 * prompts + chosen + rejected).sum()), tokens_computed)

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def saved(self) -> float:
        """Share of the tokens asked for that sharing prompts and responses did not compute."""
        return 1 - self.tokens_computed / self.tokens_asked if self.tokens_asked else 0.0


def noise_sample(data: PairData) -> np.ndarray:
    """The pairs that the noise of scoring is measured on, int64."""
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
        """How sequences are laid out and why, in one line, and what the trainer needs of it to compute alike."""

    def work(self, data: PairData, rows: np.ndarray) -> Work:
        """What scoring the pairs `rows` takes."""

    def score(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """Log-probs of the pairs `rows`, float64 nats [len(rows), 2] (chosen, rejected); `advance` gets pairs done."""

    def noise_sd(self, data: PairData) -> float:
        """sd of D (nats) that scoring the same pairs in another way gives."""


@runtime_checkable
class StateEngine(Engine, Protocol):
    """An engine that sees the model's hidden states, too."""

    def state_differences(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """What a probe reads of the pairs `rows`, see `rmo_train.forward.states`: float32 [len(rows), numbers]."""

    def score_with_states(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `score` and `state_differences` return, from one forward pass."""
