"""Training on a GPU: tokens a second as a share of the matrix-product rate, packed beside padded, and peak memory.

    make bench-gpu            (python -m benchmarks.gpu_train; --shape tiny runs anywhere, to see that it works)

One optimizer step of DPO on random pairs with the lengths of gpu.py, in bfloat16 with float32 masters, LoRA (r 16) and
full; models of random weights. The 8B shape is measured with vocabularies of 32k, 128k and 256k: peak memory should not
depend on it. What does not fit into the GPU is recorded as that. Writes benchmarks/results/gpu-train.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.environment import environment
from benchmarks.gpu import MIXES, PADDED_TOKENS, SHAPES, make_trees, matmul_rate, measured
from benchmarks.padded import batches_of_tokens, padded_batch
from rmo_train.attention import use_attention
from rmo_train.config import TrainSettings
from rmo_train.job import Job
from rmo_train.layout import GPU_TOKENS_PER_BATCH, Layout
from rmo_train.loop import forward_backward, packed_batch
from rmo_train.lora import fuse
from rmo_train.losses import loss_named
from rmo_train.optimizer import MasterAdamW
from rmo_train.packing import Tree, plain_trees
from rmo_train.pairs import PairData
from rmo_train.plan import make_plan
from rmo_train.policy import add_lora
from rmo_train.ragged import Ragged
from rmo_train.tables import write_json
from rmo_train.throughput import training_flop

LEARNING_RATE = 1e-6
LORA_RANK = 16


def pairs_of(trees: list[Tree]) -> PairData:
    """The trees as pairs whose references are 0."""
    n = len(trees)
    names = np.array([str(k) for k in range(n)], dtype=object)
    sides = (Ragged.from_rows([t.responses[side] for t in trees]) for side in (0, 1))
    columns = (np.ones(n), np.ones(n), np.zeros(n), np.zeros(n))
    return PairData(Path("random"), {}, names, names, Ragged.from_rows([t.prompt for t in trees]), *sides, *columns)


def build(shape: str, lora: int | None, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    tied = shape == "smollm2-135m"
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=tied)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.config.use_cache = False
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if lora is not None:
        model = add_lora(model, lora, 0).to(device)
    return model.train()


def packed_step(model: Any, data: PairData, settings: TrainSettings, path: str) -> tuple[Callable[[], None], int]:
    """One optimizer step of the trainer's own loop, and the tokens that it computes."""
    plan = make_plan(data, settings)
    layout = Layout(path, GPU_TOKENS_PER_BATCH[path], "")
    use_attention(model, path)
    job = Job(model, None, data, settings, plan, layout, Path(), {})
    optimizer = MasterAdamW(model.parameters(), LEARNING_RATE, 0.0)
    rows, loss = np.arange(len(data)), loss_named(settings.loss)
    tokens = sum(p.size for packs, _ in packed_batch(job, rows) for p in packs)

    def step() -> None:
        for packs, members in packed_batch(job, rows):
            forward_backward(job, loss, rows, packs, members)
        optimizer.clip(settings.max_grad_norm)
        optimizer.step(LEARNING_RATE)

    return step, tokens


def padded_step(model: Any, trees: list[Tree], implementation: str) -> tuple[Callable[[], None], int]:
    """The same step as a careful script has it: both sequences of a pair padded, logits of every position."""
    model.set_attn_implementation(implementation)
    optimizer = MasterAdamW(model.parameters(), LEARNING_RATE, 0.0)
    sequences = [(np.concatenate([t.prompt, r]), len(t.prompt)) for t in trees for r in t.responses]
    longest = [max((sequences[2 * k], sequences[2 * k + 1]), key=lambda s: len(s[0])) for k in range(len(trees))]
    batches = list(batches_of_tokens(longest, PADDED_TOKENS // 2))  # of pairs
    device = next(model.parameters()).device

    def step() -> None:
        for batch in batches:
            rows = [sequences[2 * k + side] for side in (0, 1) for k in batch]
            ids, mask, wanted = (x.to(device) for x in padded_batch(rows))
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            logps = (logits.log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2) * wanted[:, 1:]).sum(1)
            margins = 0.1 * (logps[: len(batch)] - logps[len(batch) :])
            (-torch.nn.functional.logsigmoid(margins).sum() / len(trees)).backward()
        optimizer.clip(1.0)
        optimizer.step(LEARNING_RATE)

    return step, sum(t.tokens for t in plain_trees(trees))


def train(shape: str, mix: str, pairs: int, lora: int | None, device: torch.device, rate: float) -> dict[str, Any]:
    """Every path on one model and one length mix; a path that fails is recorded with its reason."""
    trees = make_trees(mix, pairs, SHAPES[shape]["vocab_size"])
    data = pairs_of(trees)
    responses = sum(len(r) for t in trees for r in t.responses)
    settings = TrainSettings(
        per_device_train_batch_size=pairs, gradient_accumulation_steps=1, max_steps=1, amplify=0, diversify=False
    )
    found: dict[str, Any] = {"pairs": pairs, "response_tokens": responses}
    packed = {path: lambda model, path=path: packed_step(model, data, settings, path) for path in GPU_TOKENS_PER_BATCH}
    padded = {
        f"padded {name}": lambda model, name=name: padded_step(model, trees, name)
        for name in ("sdpa", "flash_attention_2")
    }
    for name, prepare in (packed | padded).items():
        try:
            model = build(shape, lora, device)
            if lora is not None and name in packed:
                fuse(model)
            step, tokens = prepare(model)
            numbers: dict[str, Any] = measured(step, device)
        except (RuntimeError, ValueError, ImportError) as e:
            found[name] = {"failed": f"{type(e).__name__}: {str(e).splitlines()[0]}"}
        else:
            decoder, head = training_flop(model)
            work = decoder * tokens + head * responses
            numbers |= {"pairs_per_second": pairs / numbers["seconds"], "tokens": tokens}
            numbers["share_of_matmul_rate"] = work / numbers["seconds"] / 1e12 / rate
            found[name] = numbers
        print(f"{shape} {mix} {'full' if lora is None else 'LoRA'} {name}: {found[name]}", flush=True)
        model = step = None  # frees it before the next one is made
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, action="append", help="repeatable; default: all but tiny")
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gpu-train.json")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ran_on = environment(device=torch.cuda.get_device_name() if device.type == "cuda" else "cpu")
    rate = matmul_rate(device)
    result: dict[str, Any] = {"environment": ran_on, "matmul_tflops": rate, "gradient_checkpointing": True}
    for shape in given.shape or [s for s in SHAPES if s != "tiny"]:
        for mix in MIXES:
            for name, lora in (("lora", LORA_RANK), ("full", None)):
                result[f"{shape} {mix} {name}"] = train(shape, mix, given.pairs, lora, device, rate)
                write_json(given.out, result)


if __name__ == "__main__":
    main()
