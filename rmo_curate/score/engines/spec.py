"""Settings from which any process can load the same engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rmo_curate.score.engines.base import Engine
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.engines.vllm import VllmEngine

if TYPE_CHECKING:
    from rmo_train.forward.layout import Workload


@dataclass(frozen=True)
class EngineSpec:
    """One checkpoint and its engine."""

    engine: str  # transformers or vllm
    model: str
    dtype: str  # float32 or bfloat16
    workload: Workload  # of all pairs, not only those of this process
    tokens_per_batch: int | None
    attention: str
    log: Path  # of vLLM
    gpus: int = 1  # that vLLM splits the model over

    def load(self) -> Engine:
        if self.engine == "vllm":
            longest, tokens = self.workload.longest, self.tokens_per_batch
            return VllmEngine(self.model, self.dtype, longest, tokens, log=self.log, gpus=self.gpus)
        return TransformersEngine(self.model, self.dtype, self.workload, self.tokens_per_batch, self.attention)
