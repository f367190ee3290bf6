"""Scoring on a GPU: tokens a second as a share of the matrix-product rate, every attention path beside padded batches.

    make bench-gpu            (python -m benchmarks.gpu; --shape tiny runs anywhere, to see that it works)

Models of random weights, in bfloat16: SmolLM2-135M's shape and an 8B Llama's, the latter also with a vocabulary of 256k
for the claim that peak memory does not depend on it. Lengths are drawn like UltraFeedback's and HH's (log-normal, two
responses a prompt). Writes benchmarks/results/gpu.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import environment
from benchmarks.padded import batches_of_tokens, padded_logps
from rmo_train.attention import use_attention
from rmo_train.layout import GPU_TOKENS_PER_BATCH, Layout
from rmo_train.logps import causal_parts, response_logps
from rmo_train.packing import Tree, plain_trees
from rmo_train.tables import write_json

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
# Median tokens of prompt and response, and the log-normal's sigma: as measured on the published sets with SmolLM2's
# tokenizer (HH), and as reported for UltraFeedback (409 tokens a sequence, prompt : response 0.42).
MIXES = {"ultrafeedback": (120, 290, 0.8), "hh": (111, 40, 0.8)}
LONGEST = 1024  # tokens of a response or prompt; longer draws are cut
PADDED_TOKENS = 16384  # of a padded batch
REPEATS = 5


def make_trees(mix: str, pairs: int, vocabulary: int) -> list[Tree]:
    """Pairs of random tokens with the lengths of `mix`."""
    prompt, response, sigma = MIXES[mix]
    rng = np.random.default_rng(0)

    def draw(median: int) -> np.ndarray:
        length = int(np.clip(median * np.exp(sigma * rng.standard_normal()), 4, LONGEST))
        return rng.integers(0, vocabulary, length).astype(np.int32)

    return [Tree(draw(prompt), (draw(response), draw(response)), (2 * k, 2 * k + 1)) for k in range(pairs)]


def measured(run: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Seconds (median, least, most) and peak GiB of `run`, after one call that warms up and compiles."""
    seconds = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return {
        "seconds": statistics.median(seconds[1:]),
        "least": min(seconds[1:]),
        "most": max(seconds[1:]),
        "first": seconds[0],
        "peak_gib": peak,
    }


def matmul_rate(device: torch.device) -> float:
    """TFLOP/s of 8,192-wide bfloat16 matrix products (512-wide on a CPU)."""
    n = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / measured(lambda: a @ b, device)["seconds"] / 1e12


def score(shape: str, mix: str, pairs: int, device: torch.device, rate: float) -> dict[str, Any]:
    """Every path on one model and one length mix; a path that fails is recorded with its reason."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(
            LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=shape == "smollm2-135m"),
            dtype=torch.bfloat16,
        ).eval()
    trees = make_trees(mix, pairs, SHAPES[shape]["vocab_size"])
    decoder, head = causal_parts(model)
    matrices = sum(p.numel() for n, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in n)
    responses = sum(len(r) for t in trees for r in t.responses)
    found: dict[str, Any] = {"pairs": pairs, "response_tokens": responses}

    def record(name: str, tokens: int, run: Callable[[], Any]) -> None:
        try:
            numbers = measured(run, device)
        except (RuntimeError, ValueError, ImportError) as e:
            found[name] = {"failed": f"{type(e).__name__}: {str(e).splitlines()[0]}"}
        else:
            work = 2 * (matrices * tokens + head.weight.numel() * responses)
            numbers |= {"pairs_per_second": pairs / numbers["seconds"], "tokens": tokens}
            numbers["share_of_matmul_rate"] = work / numbers["seconds"] / 1e12 / rate
            found[name] = numbers
        print(f"{shape} {mix} {name}: {found[name]}", flush=True)

    for path in ("flex", "dense", "segments", "rows"):
        layout = Layout(path, GPU_TOKENS_PER_BATCH[path], "")
        use_attention(model, path)
        sizes = sum(p.size for p in layout.packs(trees, layout.budget))
        record(path, sizes, lambda layout=layout: response_logps(model, trees, 2 * pairs, layout))
    plain = sum(t.tokens for t in plain_trees(trees))
    sequences = [(np.concatenate([t.prompt, r]), len(t.prompt)) for t in trees for r in t.responses]

    def padded() -> None:
        padded_logps(model, sequences, batches_of_tokens(sequences, PADDED_TOKENS), upcast=False)

    for name in ("sdpa", "flash_attention_2"):
        try:
            model.set_attn_implementation(name)
        except (ValueError, ImportError) as e:
            found[f"padded {name}"] = {"failed": str(e).splitlines()[0]}
            continue
        record(f"padded {name}", plain, padded)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="repeatable; default: all but tiny")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu.json")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ran_on = environment(device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu")
    rate = matmul_rate(device)
    result: dict[str, Any] = {"environment": ran_on, "matmul_tflops": rate}
    for shape in given.shape or [s for s in SHAPES if s != "tiny"]:
        for mix in MIXES:
            result[f"{shape} {mix}"] = score(shape, mix, given.pairs, device, rate)
            write_json(given.out, result)
            if device.type == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
