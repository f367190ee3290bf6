"""Scoring on a GPU: tokens a second as a share of the matrix-product rate, every attention path beside padded batches.

Models of random weights, in bfloat16: SmolLM2-135M's shape and an 8B Llama's, the latter also with vocabularies of 32k
and 256k for the claim that peak memory does not depend on them. Lengths are drawn like UltraFeedback's and HH's
(log-normal, two responses a prompt), or are those of judged pairs. `benchmarks/gpu_day.py` runs it.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.padded import batches_of_tokens, padded_logps
from rmo_train.forward.attention import use_attention
from rmo_train.forward.layout import GPU_TOKENS_PER_BATCH, Layout
from rmo_train.forward.logps import causal_parts, response_logps
from rmo_train.forward.packing import Tree, plain_trees
from rmo_train.training.throughput import peak_memory

LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
}
SHAPES: dict[str, dict[str, int]] = {
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
    },
    "llama-8b": LLAMA_8B,
    "llama-8b-32k": LLAMA_8B | {"vocab_size": 32_000},
    "llama-8b-256k": LLAMA_8B | {"vocab_size": 256_000},
}
# Median tokens of prompt, of one response and of the other, and the log-normal's sigma: as measured on the published
# sets with SmolLM2's tokenizer (HH), as reported for UltraFeedback (409 tokens a sequence, prompt : response 0.42), and
# the means of pairs that a judge labelled.
MIXES = {"ultrafeedback": (120, 290, 290, 0.8), "hh": (111, 40, 40, 0.8), "judged": (65, 151, 104, 0.0)}
LONGEST = 1024  # tokens of a response or prompt; longer draws are cut
PADDED_TOKENS = 16384  # of a padded batch
PADDED = {"padded sdpa": "sdpa", "padded flash_attention_2": "flash_attention_2"}

Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What is measured on, against which rate of bfloat16 matrix products, and how often after a call that warms up."""

    device: torch.device
    tflops: float
    repeats: int

    def measured(self, run: Callable[[], Any]) -> Figures:
        """Seconds (median, least, most; of the first call) and peak GiB of `run`; the first call compiles."""
        seconds = []
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(self.repeats + 1):
            start = time.perf_counter()
            run()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return spread(seconds) | {"peak_gib": peak_memory(self.device)}

    def speed(self, run: Callable[[], Any], pairs: int, tokens: int, operations: float) -> Figures:
        """`run` measured; `operations` are those that the mathematics of one run needs."""
        found = self.measured(run)
        found |= {"pairs_per_second": pairs / found["seconds"], "tokens": tokens}
        return found | {"share_of_matmul_rate": operations / found["seconds"] / 1e12 / self.tflops}

    def free(self) -> None:
        """Give back the memory of what is no longer referred to."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def spread(seconds: Sequence[float]) -> Figures:
    """Median, least and most of all calls but the first, which is there by itself."""
    first, *others = seconds
    return {"seconds": statistics.median(others), "least": min(others), "most": max(others), "first": first}


def tried(work: Callable[[], Figures]) -> Figures:
    """What `work` finds, or why it failed: a path that a machine cannot take is a finding."""
    try:
        return work()
    except Exception as e:
        return {"failed": f"{type(e).__name__}: {str(e).strip()[:300]}"}


def make_trees(mix: str, tokens: int, vocabulary: int) -> list[Tree]:
    """Pairs of random tokens with the lengths of `mix`: as many as `tokens` hold, one at least."""
    prompt, *responses, sigma = MIXES[mix]
    rng = np.random.default_rng(0)

    def draw(median: float) -> np.ndarray:
        length = int(np.clip(median * np.exp(sigma * rng.standard_normal()), 4, LONGEST))
        return rng.integers(0, vocabulary, length).astype(np.int32)

    trees: list[Tree] = []
    used = 0
    while True:
        k = len(trees)
        tree = Tree(draw(prompt), (draw(responses[0]), draw(responses[1])), (2 * k, 2 * k + 1))
        used += tree.tokens
        if trees and used > tokens:
            return trees
        trees.append(tree)


def random_model(shape: str, device: torch.device) -> Any:
    """A Llama of this shape with random weights, bfloat16."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    tied = shape == "smollm2-135m"
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=tied)
    with device:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.config.use_cache = False
    return model


def sequences_of(trees: Sequence[Tree]) -> list[tuple[np.ndarray, int]]:
    """Every prompt with each of its responses, and where the response starts."""
    return [(np.concatenate([t.prompt, r]), len(t.prompt)) for t in trees for r in t.responses]


def score(shape: str, mix: str, tokens: int, names: Sequence[str], bench: Bench) -> Iterator[tuple[str, Figures]]:
    """The attention paths and padded batches `names` on one model and one length mix of `tokens` tokens."""
    bench.free()  # of the model before
    model = random_model(shape, bench.device).eval()
    trees = make_trees(mix, tokens, SHAPES[shape]["vocab_size"])
    decoder, head = causal_parts(model)
    matrices = sum(p.numel() for n, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in n)
    responses = sum(len(r) for t in trees for r in t.responses)
    sequences = sequences_of(trees)

    def packed(path: str) -> tuple[Callable[[], Any], int]:
        layout = Layout(path, GPU_TOKENS_PER_BATCH[path])
        use_attention(model, path)
        size = sum(p.size for p in layout.packs(trees, layout.budget))
        return lambda: response_logps(model, trees, 2 * len(trees), layout), size

    def padded(implementation: str) -> tuple[Callable[[], Any], int]:
        model.set_attn_implementation(implementation)
        batches = list(batches_of_tokens(sequences, PADDED_TOKENS))
        run = lambda: padded_logps(model, sequences, batches, upcast=False)  # noqa: E731
        return run, sum(t.tokens for t in plain_trees(trees))

    def figures(name: str) -> Figures:
        run, size = padded(PADDED[name]) if name in PADDED else packed(name)
        return bench.speed(run, len(trees), size, 2 * (matrices * size + head.weight.numel() * responses))

    yield from beside_padded(f"{shape} {mix}", names, figures)


def beside_padded(
    prefix: str, names: Sequence[str], figures: Callable[[str], Figures]
) -> Iterator[tuple[str, Figures]]:
    """The figures of every name; of those behind padded SDPA also how many times its pairs/s."""
    base = None
    for name in names:
        found = tried(lambda name=name: figures(name))
        rate = found.get("pairs_per_second")
        base = rate if name == "padded sdpa" else base
        yield f"{prefix} {name}", found | ({"times_padded_sdpa": rate / base} if rate and base else {})
