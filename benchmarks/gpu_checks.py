"""Whether everything is right on this device: packed paths, training and resuming, answers; and the real commands.

`benchmarks/gpu_day.py` runs it. Gaps are recorded as numbers; `ok`: they are within what rmo itself accepts.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import Figures, make_trees, tried
from benchmarks.gpu_train import pairs_of
from rmo_train.forward.attention import use_attention
from rmo_train.forward.layout import GPU_TOKENS_PER_BATCH, PROBE_TOLERANCE, Layout
from rmo_train.forward.logps import response_logps
from rmo_train.forward.states import pair_state_differences
from rmo_train.store.files import read_json
from rmo_train.store.manifests import ShardsManifest, require_manifest

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "data" / "demo"
LORA_RANK = 16
PATHS = ("segments", "dense", "flex")
DTYPES = ("float32", "bfloat16")
PARITY_TOKENS = {"cuda": 8192, "cpu": 640}
STEPS, SAVED_AT = 4, 2  # of a short training run
RESUMED_TOLERANCE = 3  # times what two uninterrupted runs differ by: GPUs add up in no fixed order
LOSS_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}  # of the first loss, from ln 2


def correctness(model: str, folder: Path, device: torch.device) -> Iterator[tuple[str, Figures]]:
    """Paths against plain rows, LoRA and full training with a resume, an answer: in float32 and bfloat16."""
    exact: np.ndarray | None = None
    for dtype in DTYPES:
        for name, figures, logps in parity(model, dtype, device, exact):
            exact = logps if exact is None else exact
            yield f"{dtype} {name}", figures
    for dtype, lora in (("bfloat16", LORA_RANK), ("float32", None), ("bfloat16", None), ("float32", LORA_RANK)):
        name = f"{dtype} {'full' if lora is None else 'LoRA'} training"
        yield name, tried(lambda dtype=dtype, lora=lora: training(model, dtype, lora, folder))
    yield "generate", tried(lambda: generate(model, folder))


def parity(
    model_name: str, dtype: str, device: torch.device, exact: np.ndarray | None
) -> Iterator[tuple[str, Figures, np.ndarray]]:
    """Each path's log-probs and states beside single sequences in plain rows; those beside `exact`, float32's."""
    from rmo_train.model.policy import load_model

    model = load_model(model_name, dtype, device=device)
    trees = make_trees("judged", PARITY_TOKENS[device.type], model.config.vocab_size)
    data, slots = pairs_of(trees), 2 * len(trees)
    lengths = np.array([len(r) for t in trees for r in t.responses])

    def computed(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        use_attention(model, layout.path)
        # Compiled for a CPU, FlexAttention takes minutes; its mask is the same.
        eager = device.type == "cpu" and layout.path == "flex"
        with torch.compiler.set_stance("force_eager") if eager else contextlib.nullcontext():
            logps = response_logps(model, trees, slots, layout)
            return logps, pair_state_differences(model, data, np.arange(len(data)), layout)

    def beside(logps: np.ndarray, other: np.ndarray) -> Figures:
        gaps = (logps - other) / lengths  # nats per token
        rms = float(np.sqrt(np.square(gaps).mean()))
        ok = rms <= PROBE_TOLERANCE[dtype == "float32"]
        return {"logp_gap_rms": rms, "logp_gap_most": float(np.abs(gaps).max()), "ok": ok}

    plain, plain_states = computed(Layout("rows", 1))
    yield "plain rows", beside(plain, plain if exact is None else exact), plain

    def figures(path: str) -> Figures:
        began = time.perf_counter()
        logps, states = computed(Layout(path, GPU_TOKENS_PER_BATCH[path]))
        states_gap = float(np.linalg.norm(states - plain_states) / np.linalg.norm(plain_states))
        return beside(logps, plain) | {"states_gap": states_gap, "seconds": time.perf_counter() - began}

    for path in ("rows", *PATHS):
        yield path, tried(lambda path=path: figures(path)), plain


def training(model: str, dtype: str, lora: int | None, folder: Path) -> Figures:
    """A short run from the references scored in `dtype`: its start, and what a resumed one comes to."""
    from rmo_train.training.command import run_training
    from rmo_train.training.record import read_metrics
    from rmo_train.training.settings import TrainSettings

    began = time.perf_counter()
    shards = short_shards(model, dtype, folder)
    settings = TrainSettings(
        lora=lora, max_steps=STEPS, save_steps=SAVED_AT, gradient_accumulation_steps=1, amplify=0, diversify=False
    )
    whole, resumed, repeated = (folder / f"{dtype}-{lora}-{name}" for name in ("whole", "resumed", "repeated"))
    run_training(shards, model, whole, settings)
    run_training(shards, model, resumed, settings, resume_from_checkpoint=whole / f"checkpoint-{SAVED_AT}")
    before, after, again = (weights(name) for name in (model, str(whole), str(resumed)))
    moved, resumed_gap = float((after - before).norm()), float((after - again).norm())
    repeated_gap = 0.0
    if resumed_gap:
        run_training(shards, model, repeated, settings)
        repeated_gap = float((after - weights(str(repeated))).norm())
    lines = read_metrics(whole)
    off, norms = lines[0]["loss"] - math.log(2), [line["grad_norm"] for line in lines]
    right = abs(off) <= LOSS_TOLERANCE[dtype] and all(map(math.isfinite, norms)) and moved > 0
    return {
        "loss_at_step_0_less_ln_2": off,
        "gradient_norms": norms,
        "attention": read_json(whole / "layout.json")["attention"],
        "moved": moved,  # distances of all weights
        "resumed_gap": resumed_gap,
        "repeated_gap": repeated_gap,
        "ok": right and resumed_gap <= RESUMED_TOLERANCE * repeated_gap,
        "seconds": time.perf_counter() - began,
    }


def short_shards(model: str, dtype: str, folder: Path) -> Path:
    """Some demo pairs scored in `dtype` and kept whole."""
    from rmo_curate.filter.command import run_filter
    from rmo_curate.filter.settings import FilterSettings
    from rmo_curate.score.command import run_score
    from rmo_curate.score.settings import ProxySettings, ScoreSettings

    run, shards = folder / f"run-{dtype}", folder / f"shards-{dtype}"
    settings = ScoreSettings(limit=4 * STEPS, dtype=dtype, engine="transformers")
    run_score([str(DEMO / "train.jsonl")], model, run, settings, ProxySettings(kind="none"))
    run_filter(run, shards, FilterSettings(rule="none"))
    return shards


def weights(folder: str) -> torch.Tensor:
    """All weights of a model (an adapter merged), float32 on the CPU, flattened."""
    from rmo_train.model.policy import load_model

    model: Any = load_model(folder, "float32", device="cpu")
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def generate(model: str, folder: Path) -> Figures:
    """Answers to two prompts of the demo."""
    from rmo_train.generation.command import GenerationSettings, run_generation

    began, out = time.perf_counter(), folder / "answers.json"
    settings = GenerationSettings(limit=2, max_new_tokens=48, engine="transformers")
    run_generation(model, DEMO / "heldout.jsonl", out, settings, overwrite=True)
    answers = [answer["output"] for answer in read_json(out)]
    return {"answers": answers, "ok": all(answers), "seconds": time.perf_counter() - began}


def product(model: str, folder: Path, limit: int | None) -> Iterator[tuple[str, Figures]]:
    """The demo by its real commands, on the first `limit` pairs: seconds of each, and the accuracies at the end."""
    run, heldout, shards, trained = (str(folder / n) for n in ("run", "heldout", "shards", "model"))
    first = () if limit is None else ("--limit", str(limit))
    data = {name: str(DEMO / f"{name}.jsonl") for name in ("train", "heldout")}
    # As in pipelines/quickstart.yaml.
    training = ("--lora", "16", "--learning-rate", "2e-4", "--gradient-accumulation-steps", "2")
    commands = {
        "score": ("rmo_curate", "score", data["train"], "--model", model, "--out", run, *first),
        "filter": ("rmo_curate", "filter", run, "--out", shards),
        "train": ("rmo_train", "run", shards, "--model", model, "--out", trained, *training),
        "score heldout": ("rmo_curate", "score", data["heldout"], "--model", model, "--out", heldout,
                          "--proxy", "none", *first),
        "eval": ("rmo_train", "eval", heldout, "--model", trained, "--out", str(folder / "eval.json")),
    }  # fmt: skip
    for name, (module, *arguments) in commands.items():
        yield name, {"seconds": timed(module, arguments, folder / f"{name.replace(' ', '-')}.log")}
    kept = require_manifest(Path(shards), ShardsManifest, "rmo-curate filter").counts
    measured = read_json(folder / "eval.json")
    del measured["pairs"]  # their margins
    yield "accuracies", measured | {"counts": kept}


def timed(module: str, arguments: list[str], log: Path) -> float:
    """Seconds of `python -m module arguments`, which need not be installed; RuntimeError with its last words."""
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    with log.open("wb") as out:
        command = [sys.executable, "-m", module, *arguments]
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stderr=out).returncode
    if code:
        raise RuntimeError(f"{module} {arguments[0]}: exit {code}\n{log.read_text(errors='replace')[-2000:]}")
    return time.perf_counter() - began
