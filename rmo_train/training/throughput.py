"""Training speed: pairs and tokens per second, share of the machine's matmul rate, peak memory.

The share counts only the operations that the mathematics needs. Recomputation to save memory (logits, activations under
gradient checkpointing) and the products of attention itself are not counted, so the share is a lower bound.
"""

from __future__ import annotations

import resource
import statistics
import sys
import time
from typing import Any

import torch

from rmo_train.forward.logps import causal_parts

SIZE = {"cpu": 1024, "cuda": 8192}  # of the square matrices used to measure the rate
REPEATS = 7


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of square matrix products, a median; measuring takes about 0.1 s.

    The matrices come from a generator of their own: a resumed run has already restored its random state, from which
    dropout must continue.
    """
    size, apart = SIZE.get(device.type, SIZE["cuda"]), torch.Generator(device)
    a, b = (torch.randn(size, size, device=device, generator=apart).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(REPEATS + 1):  # the first one warms up
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[1:])


def training_flop(model: Any) -> tuple[int, int]:
    """FLOPs per token, forward and backward: (in the decoder, in the head for a predicted token).

    Per weight: two forward, two for the gradient of its input, and two more if the weight is trained.
    """
    decoder, head = causal_parts(model)
    matrices = [p for name, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in name]
    return sum(map(_operations, matrices)), _operations(head.weight)


def _operations(weight: torch.nn.Parameter) -> int:
    return (6 if weight.requires_grad else 4) * weight.numel()


def peak_memory(device: torch.device) -> float:
    """Peak memory so far in GiB: allocated by torch on a GPU, otherwise resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


class Speed:
    """Speed over the steps of one process; evaluations and saves between them do not count."""

    def __init__(self, model: Any, processes: int = 1):
        parameter = next(model.parameters())
        self.device, self.processes = parameter.device, processes
        self.rate = matmul_rate(parameter.device, parameter.dtype)
        self.decoder_flop, self.head_flop = training_flop(model)
        self.seconds = 0.0
        self.pairs = self.tokens = self.predicted = 0
        self.began = 0.0

    def start(self) -> None:
        self.began = time.perf_counter()

    def stop(self, pairs: int, tokens: int, predicted: int) -> dict[str, float]:
        """The speed so far, after a step of `pairs` with `tokens` computed, `predicted` of them response tokens."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds += time.perf_counter() - self.began
        self.pairs += pairs
        self.tokens += tokens
        self.predicted += predicted
        operations = self.decoder_flop * self.tokens + self.head_flop * self.predicted
        return {
            "pairs_per_second": self.pairs / self.seconds,
            "tokens_per_second": self.tokens / self.seconds,
            "matmul_share": operations / self.seconds / (self.rate * self.processes),
            "peak_memory_gib": peak_memory(self.device),
        }
