"""The engine that `auto` selects: vLLM if it is installed and there is a GPU, unless transformers is faster."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from rmo_curate.score.engines.base import Engine
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.engines.vllm import VllmEngine, free_device, is_installed, require_installed
from rmo_train.console.errors import RmoError
from rmo_train.console.progress import say
from rmo_train.data.pairs import PairData
from rmo_train.store.manifests import Reference

AUTO = "auto"
MEASURED_PAIRS = 64
WARM_UP_PAIRS = 4


def settled_engine(asked: str, recorded: Reference | None, tensor_parallel_size: int = 1) -> str:
    """The engine asked for; `auto` is what the run was begun with, and stays `auto` where it must be measured.

    tensor_parallel_size: GPUs that share a model; with more than one, `auto` is vLLM where it is installed.
    """
    if asked == "vllm":
        require_installed()
    if asked != AUTO:
        return asked
    if recorded is not None and recorded.engine not in (None, AUTO):  # `auto`: interrupted before the measurement
        return str(recorded.engine)
    if tensor_parallel_size > 1 and is_installed():
        return "vllm"
    from rmo_train.model.policy import default_device

    if default_device().type != "cuda":
        return "transformers"
    if not is_installed():
        say("engine: transformers (vLLM is not installed; it may be faster on this GPU)")
        return "transformers"
    return AUTO


def measured_engine(checkpoint: str, dtype: str, data: PairData, tokens_per_batch: int | None, log: Path) -> str:
    """The faster engine on the first pairs; prints both rates. Transformers if vLLM fails."""
    rows = np.arange(min(MEASURED_PAIRS, len(data)))
    from rmo_train.forward.layout import Workload

    transformers = _rate(TransformersEngine(checkpoint, dtype, Workload.of(data), tokens_per_batch), data, rows)
    free_device()
    try:
        vllm = _rate(VllmEngine(checkpoint, dtype, data.longest(), tokens_per_batch, log=log), data, rows)
    except RmoError as e:
        say(f"engine: transformers ({transformers:,.1f} pairs/s), because vLLM failed: {e}")
        return "transformers"
    engine, line = faster(transformers, vllm)
    say(line)
    return engine


def faster(transformers: float, vllm: float) -> tuple[str, str]:
    """The engine with the higher rate (pairs per second; vLLM at a tie), and the line that reports it."""
    engine = "transformers" if transformers > vllm else "vllm"
    return engine, f"engine: {engine} (measured: vllm {vllm:,.1f} pairs/s, transformers {transformers:,.1f})"


def _rate(engine: Engine, data: PairData, rows: np.ndarray) -> float:
    """Pairs per second, after a warm-up of a few pairs."""
    engine.score(data, rows[:WARM_UP_PAIRS])
    start = time.monotonic()
    engine.score(data, rows)
    return len(rows) / (time.monotonic() - start)
