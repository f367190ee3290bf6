"""Pairs a second and peak memory of scoring: ours, padded transformers, TRL's reference precompute and vLLM.

    python -m benchmarks.score --data judged=FILE --data hh=FILE [--methods trees probe --out FILE]

Each method runs in a separate process with its model loaded. The data are cut into blocks at prompt boundaries, and
the methods take turns on a block, so that a slow minute of the machine affects all of them; ratios are taken within a
block. The grid is benchmarks/plan.yaml; writes benchmarks/results/score.json. A method that is not installed is left
out, and said.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.data import Loaded, load
from benchmarks.environment import environment
from benchmarks.turns import Worker, answers_to_parent, peak_gib, questions
from rmo_train.forward.layout import Workload
from rmo_train.store.files import write_json
from rmo_train.training.throughput import matmul_rate

HERE = Path(__file__).parent
Scorer = Callable[[np.ndarray], np.ndarray]  # rows of the data -> log-probs [n, 2]


def blocks_of(groups: np.ndarray, n: int) -> list[np.ndarray]:
    """n runs of rows of about equal size that end where a prompt ends."""
    ends = np.flatnonzero(np.append(groups[1:] != groups[:-1], True)) + 1
    cuts = [0, *(int(ends[np.argmin(np.abs(ends - len(groups) * k / n))]) for k in range(1, n)), len(groups)]
    return [np.arange(a, b) for a, b in pairwise(cuts)]


# ---------------------------------------------------------------------------------------------------- methods


def engine_scorer(plan: dict[str, Any], data: Loaded, attention: str) -> Scorer:
    from rmo_curate.score.engines.transformers import TransformersEngine

    engine = TransformersEngine(plan["model"], plan["dtype"], Workload.of(data.tokens), attention=attention)
    print(engine.layout.reason, file=sys.stderr)
    return lambda rows: engine.score(data.tokens, rows)


def probe_scorer(plan: dict[str, Any], data: Loaded) -> Scorer:
    """The default of `rmo-curate score`: hidden states from the pass that gives the log-probs, and a probe on them."""
    from rmo_curate.score.buckets import in_buckets
    from rmo_curate.score.engines.transformers import TransformersEngine
    from rmo_curate.score.probe import FOLDS, cross_fitted
    from rmo_curate.score.proxies import assign_folds
    from rmo_curate.score.states import widest

    engine = TransformersEngine(plan["model"], plan["dtype"], Workload.of(data.tokens))
    print(engine.layout.reason, file=sys.stderr)

    def score(rows: np.ndarray) -> np.ndarray:
        logps, differences = engine.score_with_states(data.tokens, rows)
        groups = data.tokens.groups[rows]
        folds = FOLDS if len(np.unique(groups)) >= FOLDS else 1  # the pairs that warm up
        cross_fitted(in_buckets(differences, widest(len(groups))), assign_folds(groups, folds, 0))
        return logps

    return score


def shared_scorer(plan: dict[str, Any], data: Loaded) -> Scorer:
    """Prompts shared within a pair, as the trainer has them."""
    from rmo_curate.score.engines.transformers import TransformersEngine
    from rmo_train.forward.logps import response_logps
    from rmo_train.forward.packing import pair_trees

    engine = TransformersEngine(plan["model"], plan["dtype"], Workload.of(data.tokens))

    def score(rows: np.ndarray) -> np.ndarray:
        trees = pair_trees(data.tokens, rows)
        return response_logps(engine.model, trees, 2 * len(rows), engine.layout).reshape(-1, 2)

    return score


def padded_scorer(plan: dict[str, Any], data: Loaded) -> Scorer:
    """A well-written script."""
    from benchmarks.padded import batches_of_rows, padded_logps
    from rmo_train.model.policy import load_model

    model: Any = load_model(plan["model"], plan["dtype"])
    tokens = data.tokens

    def score(rows: np.ndarray) -> np.ndarray:
        sequences = [
            (np.concatenate([tokens.prompt[i], side[i]]), len(tokens.prompt[i]))
            for i in rows
            for side in (tokens.chosen, tokens.rejected)
        ]
        batches = batches_of_rows(sequences, plan["padded_batch"])
        return padded_logps(model, sequences, batches, upcast=True).reshape(-1, 2)

    return score


def trl_scorer(plan: dict[str, Any], data: Loaded) -> Scorer:
    """DPOTrainer's own precompute of the reference, without its tokenising."""
    import tempfile

    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from rmo_train.model.policy import load_model, load_tokenizer

    model, tokenizer = load_model(plan["model"], plan["dtype"]), load_tokenizer(plan["model"])
    settings = DPOConfig(
        output_dir=tempfile.mkdtemp(),
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=plan["trl_batch"],
        max_length=None,
        report_to="none",
        use_cpu=True,
        bf16=False,  # the weights are bfloat16 already
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=model, args=settings, train_dataset=Dataset.from_list(data.messages[:2]), processing_class=tokenizer
    )
    trainer.model.eval()

    def prepare(rows: np.ndarray) -> Any:
        found = Dataset.from_list([data.messages[i] for i in rows])
        return trainer._prepare_dataset(found, tokenizer, settings, "block")

    prepared = {len(block): prepare(block) for block in blocks_of(data.tokens.groups, plan["blocks"])[:1]}

    def score(rows: np.ndarray) -> np.ndarray:
        dataset = prepared.get(len(rows)) or prepare(rows)
        found = trainer._precompute_ref_logps(dataset, "block", plan["trl_batch"])
        return np.stack([np.array(found["ref_chosen_logps"]), np.array(found["ref_rejected_logps"])], axis=1)

    return score


def vllm_scorer(plan: dict[str, Any], data: Loaded) -> Scorer:
    import tempfile

    from rmo_curate.score.engines.vllm import VllmEngine

    log = Path(tempfile.mkdtemp()) / "vllm.log"
    engine = VllmEngine(plan["model"], plan["dtype"], Workload.of(data.tokens).longest(), log=log)
    return lambda rows: engine._score(data.tokens, rows)  # without the check against transformers


METHODS: dict[str, Callable[[dict[str, Any], Loaded], Scorer]] = {
    "trees": lambda plan, data: engine_scorer(plan, data, "auto"),
    "probe": probe_scorer,
    "shared": shared_scorer,
    "plain": lambda plan, data: engine_scorer(plan, data, "rows"),
    "padded": padded_scorer,
    "trl": trl_scorer,
    "vllm": vllm_scorer,
}


def worker(method: str, path: str, limit: int | None, plan: dict[str, Any]) -> None:
    """Load, score two pairs, then answer one JSON line a block: {"rows": [first, end]} on standard input."""
    answers = answers_to_parent()
    data = load(path, limit, plan["model"])
    score = METHODS[method](plan, data)
    score(np.arange(2))
    print(json.dumps({"pairs": len(data.tokens)}), file=answers)
    for question in questions():
        start = time.perf_counter()
        logps = score(np.arange(*question["rows"]))
        seconds = time.perf_counter() - start
        margins = (logps[:, 0] - logps[:, 1]).tolist()
        print(json.dumps({"seconds": seconds, "peak_gib": peak_gib(), "margins": margins}), file=answers)


# ---------------------------------------------------------------------------------------------------- the run


def work_of(data: Loaded) -> dict[str, Any]:
    """Tokens of the data under each layout, and the multiply-adds that a pair needs as trees."""
    from rmo_train.forward.packing import distinct_trees, pair_trees, plain_trees

    rows = np.arange(len(data.tokens))
    trees, _ = distinct_trees(data.tokens, rows)
    pairs = pair_trees(data.tokens, rows)
    return {
        "pairs": len(rows),
        "prompts": len(trees),
        "tokens": {
            "plain": sum(t.tokens for t in plain_trees(pairs)),
            "shared": sum(t.tokens for t in pairs),
            "trees": sum(t.tokens for t in trees),
        },
        "response_tokens": {
            "plain": int((data.tokens.chosen.lengths + data.tokens.rejected.lengths).sum()),
            "trees": sum(len(r) for t in trees for r in t.responses),
        },
    }


def model_flop(model: str) -> tuple[int, int]:
    """Floating-point operations of a token in the decoder's matrices, and of a predicted token in the head."""
    from rmo_train.forward.logps import causal_parts
    from rmo_train.model.policy import load_model

    loaded: Any = load_model(model, "float32")
    decoder, head = causal_parts(loaded)
    matrices = sum(p.numel() for n, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in n)
    return 2 * matrices, 2 * head.weight.numel()


def measure(name: str, path: str, plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The numbers of one data set after each block, so that a run that is killed keeps what it measured."""
    limit = plan["pairs"].get(name)
    data = load(path, limit, plan["model"])
    blocks = blocks_of(data.tokens.groups, plan["blocks"])
    work = work_of(data)
    operations = operations_of(work, plan["model"])
    more = ["--data", f"x={path}", *(["--limit", str(limit)] if limit else [])]
    workers = {m: Worker("benchmarks.score", m, ["--worker", m, *more]) for m in plan["methods"]}
    for method in [m for m, w in workers.items() if not w.ready]:
        print(f"{name}: {method} left out, it does not run here", flush=True)
        del workers[method]
    found: dict[str, list[dict[str, Any]]] = {m: [] for m in workers}
    rates = []
    for k, block in enumerate(blocks):
        rates.append(matmul_rate(torch.device("cpu"), getattr(torch, plan["dtype"])) / 1e9)
        for method, process in workers.items():
            if k < plan["methods"][method]:
                answer = process.ask({"rows": [int(block[0]), int(block[-1]) + 1]})
                found[method].append(answer)
                print(f"{name} block {k}: {method} {len(block) / answer['seconds']:.2f} pairs/s", flush=True)
        yield {**work, "matmul_gflops": rates, "methods": summary(blocks, found, operations, rates)}
    for process in workers.values():
        process.close()


def operations_of(work: dict[str, Any], model: str) -> dict[str, int]:
    """Floating-point operations of all pairs by the methods that compute no padding."""
    decoder, head = model_flop(model)
    return {
        "trees": decoder * work["tokens"]["trees"] + head * work["response_tokens"]["trees"],
        "shared": decoder * work["tokens"]["shared"] + head * work["response_tokens"]["plain"],
        "plain": decoder * work["tokens"]["plain"] + head * work["response_tokens"]["plain"],
    }


def summary(
    blocks: Sequence[np.ndarray],
    found: Mapping[str, Sequence[dict[str, Any]]],
    operations: Mapping[str, int],
    rates: Sequence[float],
) -> dict[str, dict[str, Any]]:
    """Each method's figures over the blocks that it has scored, beside padded batches and trees on the same blocks."""
    methods: dict[str, dict[str, Any]] = {}
    for method, answers in found.items():
        pace = [len(b) / a["seconds"] for b, a in zip(blocks, answers, strict=False)]
        beside = list(zip(found.get("padded", ()), answers, strict=False))
        ratio = [p["seconds"] / a["seconds"] for p, a in beside]
        over_trees = [a["seconds"] / t["seconds"] for t, a in zip(found["trees"], answers, strict=False)]
        margins = [np.array(a["margins"]) - np.array(p["margins"]) for p, a in beside]
        seconds = sum(a["seconds"] for a in answers)
        methods[method] = {
            "pairs_per_second": sum(map(len, blocks[: len(answers)])) / seconds,
            "by_block": pace,
            "seconds_over_trees": spread(over_trees),
            "peak_gib": max(a["peak_gib"] for a in answers),
        }
        if beside:
            methods[method] |= {
                "over_padded": spread(ratio),
                "margin_sd_to_padded": float(np.concatenate(margins).std()),
            }
        if method in operations and len(answers) == len(blocks):
            share = operations[method] / seconds / 1e9 / statistics.median(rates)
            methods[method]["share_of_matmul_rate"] = share
    return methods


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="NAME=FILE; repeatable")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="only these, trees among them")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "score.json")
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["score"]
    files = dict(item.split("=", 1) for item in given.data)
    if given.methods:
        plan["methods"] = {m: blocks for m, blocks in plan["methods"].items() if m in given.methods}
    if given.worker:
        worker(given.worker, files["x"], given.limit, plan)
        return
    result: dict[str, Any] = {"environment": environment(), "plan": plan}
    for name, path in files.items():
        for so_far in measure(name, path, plan):
            result[name] = so_far
            write_json(given.out, result)


if __name__ == "__main__":
    main()
