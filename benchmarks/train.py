"""Pairs a second and peak memory of training: ours by attention path, a padded loop, and TRL's DPOTrainer.

    python -m benchmarks.train --data judged=FILE --data hh=FILE

DPO with the grid of benchmarks/plan.yaml. Each method lives in a process of its own; they take turns step by step on
the same optimizer batches in the same order, so that a slow minute of the machine hits all of them; the first step
warms up and does not count. References are scored once, by our engine, and given to all. TRL's precision and
micro-batch are those that were fastest in a trial before (`tune`). Losses are compared step by step in float32.
Results of the same plan in results/train.json are not measured again.
Writes benchmarks/results/train.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
import yaml

from benchmarks.data import Loaded, load
from benchmarks.environment import environment
from benchmarks.turns import Worker, answers_to_parent, peak_gib, questions
from rmo_train.forward.layout import Workload
from rmo_train.store.files import read_json, write_json
from rmo_train.training.throughput import matmul_rate

HERE = Path(__file__).parent
OUT = HERE / "results" / "train.json"
Report = Callable[[float, float], None]  # seconds and loss of a step: answers, and waits for the next turn


def settings_of(case: dict[str, Any]) -> Any:
    from rmo_train.training.settings import TrainSettings

    return TrainSettings(
        lora=case["lora"],
        per_device_train_batch_size=case["pairs_per_step"],
        gradient_accumulation_steps=1,
        max_steps=case["steps"],
        learning_rate=case["learning_rate"],
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        bf16=case["dtype"] == "bfloat16",
        attention=case["attention"],
        amplify=0,
        diversify=False,
    )


# ---------------------------------------------------------------------------------------------------- methods


def ours(case: dict[str, Any], data: Loaded, report: Report) -> None:
    """The trainer's own loop; a step is timed from its start to its record."""
    from rmo_train.training.job import build_job
    from rmo_train.training.loop import train
    from rmo_train.training.plan import make_plan
    from rmo_train.training.record import Record

    class Turns(Record):
        def rewind(self, step: int) -> None:
            self.began = wait_for_start(report)

        def add(self, step: int, metrics: Any, *, due: bool = False) -> None:
            report(time.perf_counter() - self.began, metrics["loss"])
            self.began = time.perf_counter()

    settings = settings_of(case)
    plan = make_plan(data.tokens, settings)
    out = Path(tempfile.mkdtemp())
    train(build_job(data.tokens, plan, case["model"], out, settings, {}, record=Turns(out)))


def padded(case: dict[str, Any], data: Loaded, report: Report) -> None:
    """A well-written script: similar lengths together, padded, logits of every position."""
    from benchmarks.padded import batches_of_rows, padded_batch
    from rmo_train.training.job import load_for_training
    from rmo_train.training.optimizer import MasterAdamW
    from rmo_train.training.plan import make_plan

    settings = settings_of(case)
    model: Any = load_for_training(
        case["model"], case["dtype"], lora=case["lora"], gradient_checkpointing=False, seed=0
    )
    model.train()
    optimizer = MasterAdamW(model.parameters(), case["learning_rate"], 0.0)
    tokens = data.tokens
    assert tokens.ref_chosen is not None and tokens.ref_rejected is not None
    references = torch.from_numpy(tokens.ref_chosen - tokens.ref_rejected).float()
    batches = make_plan(tokens, settings).batches(settings.seed, 0)
    began = wait_for_start(report)
    for batch in batches[: case["steps"]]:
        pairs = [
            [
                (np.concatenate([tokens.prompt[i], side[i]]), len(tokens.prompt[i]))
                for side in (tokens.chosen, tokens.rejected)
            ]
            for i in batch
        ]
        longest = [max(pair, key=lambda s: len(s[0])) for pair in pairs]
        total = 0.0
        for micro in batches_of_rows(longest, case["padded_pairs"]):
            rows = [pairs[k][side] for side in (0, 1) for k in micro]
            ids, mask, wanted = padded_batch(rows)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            logps = (logits.float().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2) * wanted[:, 1:]).sum(1)
            margins = logps[: len(micro)] - logps[len(micro) :] - references[batch[micro]]
            loss = -torch.nn.functional.logsigmoid(case["beta"] * margins).sum() / len(batch)
            loss.backward()
            total += float(loss.detach())
        optimizer.clip(settings.max_grad_norm)
        optimizer.step(case["learning_rate"])
        report(time.perf_counter() - began, total)
        began = time.perf_counter()


def trl(case: dict[str, Any], data: Loaded, report: Report) -> None:
    """DPOTrainer with the references given, on the batches of our order."""
    from transformers import TrainerCallback

    from benchmarks.trl_trainer import Steps, dpo_trainer
    from rmo_train.model.models import load_tokenizer
    from rmo_train.model.policy import load_model
    from rmo_train.training.plan import make_plan

    class Turns(TrainerCallback):
        began = seconds = 0.0

        def on_step_begin(self, *arguments: Any, **more: Any) -> None:
            self.began = self.began or wait_for_start(report)

        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            self.seconds = time.perf_counter() - self.began

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if "loss" in logs:
                report(self.seconds, logs["loss"])
                self.began = time.perf_counter()

    tokens, settings = data.tokens, settings_of(case)
    order = np.concatenate(make_plan(tokens, settings).batches(settings.seed, 0)[: case["steps"]])
    references = {"ref_chosen_logps": tokens.ref_chosen, "ref_rejected_logps": tokens.ref_rejected}
    pairs = [data.messages[i] | {name: float(logps[i]) for name, logps in references.items()} for i in order]
    steps = Steps(
        number=case["steps"],
        pairs=case["pairs_per_step"],
        micro_batch=case["trl_pairs"],
        learning_rate=case["learning_rate"],
        beta=case["beta"],
        autocast=case["trl_autocast"],
        lora=case["lora"],
    )
    model = load_model(case["model"], "float32" if case["trl_autocast"] else case["dtype"])
    model.requires_grad_(case["lora"] is None)
    with tempfile.TemporaryDirectory() as out:
        dpo_trainer(model, load_tokenizer(case["model"]), pairs, steps, Turns(), out).train()


METHODS = {"ours": ours, "padded": padded, "trl": trl}


def wait_for_start(report: Report) -> float:
    """Tells the parent that all is loaded, waits for the first turn; the time of it."""
    report(0.0, 0.0)
    return time.perf_counter()


def worker(case: dict[str, Any]) -> None:
    """Load, say so, then train a step for each line of standard input."""
    answers = answers_to_parent()
    data = with_given_references(load(case["path"], case["pairs"], case["model"]), Path(case["references"]))
    METHODS[case["method"]](case, data, reporter(answers, questions()))


def reporter(answers: IO[str], turns: Iterator[dict[str, Any]]) -> Report:
    def report(seconds: float, loss: float) -> None:
        print(json.dumps({"seconds": seconds, "loss": loss, "peak_gib": peak_gib()}), file=answers)
        if next(turns, None) is None:
            sys.exit(0)  # the parent is done

    return report


# ---------------------------------------------------------------------------------------------------- references


def write_references(path: str, pairs: int, model: str, dtype: str, out: Path) -> None:
    from rmo_curate.score.engines.transformers import TransformersEngine

    data = load(path, pairs, model).tokens
    np.save(out, TransformersEngine(model, dtype, Workload.of(data)).score(data, np.arange(len(data))))


def with_given_references(data: Loaded, file: Path) -> Loaded:
    logps = np.load(file)
    tokens = replace(data.tokens, ref_chosen=logps[:, 0].copy(), ref_rejected=logps[:, 1].copy())
    return Loaded(tokens, data.messages)


# ---------------------------------------------------------------------------------------------------- the run


def run_case(name: str, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The methods of one case taking turns; the first step is not counted."""
    workers = {m: Worker("benchmarks.train", m, ["--worker", json.dumps(case)]) for m, case in cases.items()}
    for method in [m for m, w in workers.items() if w.ready is None]:
        print(f"{name}: {method} left out, it does not run here: {workers[method].log}", flush=True)
        del workers[method]
    found: dict[str, list[dict[str, Any]]] = {m: [] for m in workers}
    rates = []
    some = next(iter(cases.values()))
    for step in range(some["steps"]):
        rates.append(matmul_rate(torch.device("cpu"), getattr(torch, some["dtype"])) / 1e9)
        for method, process in workers.items():
            answer = process.ask({"step": step})
            found[method].append(answer)
            print(f"{name} step {step}: {method} {some['pairs_per_step'] / answer['seconds']:.2f} pairs/s", flush=True)
    for process in workers.values():
        process.close()
    return {"matmul_gflops": rates, "methods": summary(found, some["pairs_per_step"])}


def summary(found: dict[str, list[dict[str, Any]]], pairs: int) -> dict[str, Any]:
    """Each method's speed over the counted steps, beside TRL or the padded loop on the same steps where it ran."""
    methods = {}
    for method, answers in found.items():
        pace = [pairs / a["seconds"] for a in answers[1:]]
        methods[method] = {
            "pairs_per_second": statistics.median(pace),
            "by_step": pace,
            "peak_gib": answers[-1]["peak_gib"],
            "loss": [a["loss"] for a in answers],
        }
        for peer in {"trl", "padded"} & set(found):
            beside = [t["seconds"] / a["seconds"] for t, a in zip(found[peer], answers, strict=True)][1:]
            methods[method][f"over_{peer}"] = {
                "median": statistics.median(beside), "lowest": min(beside), "highest": max(beside)
            }  # fmt: skip
            methods[method][f"memory_over_{peer}"] = answers[-1]["peak_gib"] / found[peer][-1]["peak_gib"]
    return methods


def needed_flop(data: Loaded, model: str, lora: int | None, rows: np.ndarray) -> float:
    """Operations that training these pairs needs, prompts shared: see rmo_train.training.throughput."""
    from rmo_train.training.job import load_for_training
    from rmo_train.training.throughput import training_flop

    decoder, head = training_flop(load_for_training(model, "float32", lora=lora, gradient_checkpointing=False, seed=0))
    prompt, chosen, rejected = (
        part.lengths[rows] for part in (data.tokens.prompt, data.tokens.chosen, data.tokens.rejected)
    )
    return float(decoder * (prompt + chosen + rejected - 2).sum() + head * (chosen + rejected).sum())


def tune(plan: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """TRL's speed by precision and micro-batch: two steps each, the second counts."""
    found = []
    for autocast in plan["trl"]["autocast"]:
        for pairs in plan["trl"]["pairs"]:
            tried = case | {"method": "trl", "trl_autocast": autocast, "trl_pairs": pairs, "steps": 2}
            numbers = run_case(f"tune autocast={autocast} micro-batch={pairs}", {"trl": tried})["methods"]["trl"]
            found.append({"trl_autocast": autocast, "trl_pairs": pairs} | numbers)
    best = max(found, key=lambda f: f["pairs_per_second"])
    return {"tried": found, "best": {k: best[k] for k in ("trl_autocast", "trl_pairs")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], help="NAME=FILE; repeatable")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(json.loads(given.worker))
        return
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["train"]
    result: dict[str, Any] = {"environment": environment(), "plan": plan}
    if OUT.exists() and (before := read_json(OUT))["plan"] == plan:
        result = before

    def keep() -> None:
        write_json(OUT, result)

    with tempfile.TemporaryDirectory() as folder:
        for name, path in dict(item.split("=", 1) for item in given.data).items():
            common = {k: plan[k] for k in ("model", "pairs_per_step", "steps", "beta", "padded_pairs")}
            common |= {"path": path, "pairs": plan["pairs_per_step"] * plan["steps"], "trl_autocast": False}
            references = {dtype: f"{folder}/{name}-{dtype}.npy" for dtype in ("bfloat16", "float32")}
            for dtype, file in references.items():
                write_references(path, common["pairs"], plan["model"], dtype, Path(file))
            bf16 = common | {"dtype": "bfloat16", "references": references["bfloat16"], "attention": "auto"}
            if "trl" not in result:
                result["trl"] = tune(plan, bf16 | plan["modes"]["full"])
                keep()
            data = load(path, common["pairs"], plan["model"])
            for run, taken in plan["runs"].items():
                case = bf16 | plan["modes"][taken["mode"]] | result["trl"]["best"]
                if f"{name} {run}" in result:
                    continue
                so_far = run_case(f"{name} {run}", {m: case | plan["as"][m] for m in taken["methods"]})
                flop = needed_flop(data, plan["model"], case["lora"], np.arange(common["pairs"])) / common["pairs"]
                rate = statistics.median(so_far["matmul_gflops"]) * 1e9
                for method in so_far["methods"].values():
                    method["share_of_matmul_rate"] = method["pairs_per_second"] * flop / rate
                result[f"{name} {run}"] = so_far
                keep()
            if f"{name} float32" in result:
                continue
            exact = common | plan["modes"]["full"] | plan["parity"]
            exact |= {"dtype": "float32", "references": references["float32"], "attention": "auto"}
            so_far = run_case(f"{name} float32", {m: exact | plan["as"][m] for m in ("ours", "trl")})
            losses = [np.array(so_far["methods"][m]["loss"]) for m in ("ours", "trl")]
            so_far["largest_loss_difference"] = float(np.abs(losses[0] - losses[1]).max())
            result[f"{name} float32"] = so_far
            keep()


if __name__ == "__main__":
    main()
