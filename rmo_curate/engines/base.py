"""What every engine answers; a scoring stage knows no more of its engine than this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from rmo_curate.engines.transformers import Work
from rmo_train.pairs import PairData


class HasReason(Protocol):
    @property
    def reason(self) -> str: ...


class Engine(Protocol):
    """One checkpoint, ready to score."""

    @property
    def layout(self) -> HasReason:
        """How sequences are laid out, and why: one line for the manifest."""

    def work(self, data: PairData, rows: np.ndarray) -> Work:
        """What scoring the pairs `rows` takes."""

    def score(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """Log-probs of the pairs `rows`, float64 nats [len(rows), 2] (chosen, rejected); `advance` gets pairs done."""

    def noise_sd(self, data: PairData) -> float:
        """sd of D (nats) that scoring the same pairs in another way gives."""
