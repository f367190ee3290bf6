"""The tables of docs/results/, as Markdown, made of the JSON files under results/."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import detect_table
from benchmarks.cells import cells
from rmo_train.store.files import read_json

RESULTS = Path(__file__).parent / "results"
METHODS = {
    "trees": "ours, trees (the default)",
    "shared": "ours, prompts shared within a pair",
    "plain": "ours, plain rows of similar length",
    "padded": "padded transformers, batches of 8 of similar length",
    "trl": "TRL 1.16, reference precompute",
    "vllm": "vLLM 0.32 (CPU), each distinct sequence once",
}
PATHS = {
    "padded sdpa": "padded, SDPA",
    "flex": "packed, FlexAttention",
    "rows": "plain rows",
    "dense": "packed, dense mask",
    "segments": "packed, by segments",
}
ARMS = {
    "base": "untrained",
    "plain": "plain DPO",
    "random": "as many pairs as the default drops, dropped at random",
    "drop": "dropped at the estimated rate (the filter's default)",
    "drop + both": "the same, diversified and amplified",
    "drop, soft": "the same, the others with soft labels",
    "quantiles": "`--low-q 0.1 --high-q 0.95`, diversified and amplified",
    "soft-label": "soft labels",
    "oracle": "true labels",
}


def result(name: str) -> Any:
    return read_json(RESULTS / f"{name}.json")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in rows)


def share(value: float) -> str:
    return f"{value:.0%}"


def interval(one: Mapping[str, float], digits: int = 3) -> str:
    return f"{one['value']:.{digits}f} [{one['low']:.{digits}f}, {one['high']:.{digits}f}]"


def points(one: Mapping[str, float]) -> str:
    """A difference of shares in percentage points, with its interval."""
    return f"{100 * one['value']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"


def ratio(one: Mapping[str, float], digits: int = 2) -> str:
    return f"{one['median']:.{digits}f} ({one['lowest']:.{digits}f} to {one['highest']:.{digits}f})"


# ---------------------------------------------------------------------------------------------------- chains


def scorecard() -> Iterator[str]:
    """What `make demo` prints at its end."""
    yield from table(["demo", "value"], ((label.strip(), value) for part in result("demo") for label, value in part))


def demo_rules() -> Iterator[str]:
    """AUROC of rules for the demo's swapped labels."""
    found = result("chain-demo")["detection"]
    of = {name: one for name, one in found.items() if isinstance(one, dict)}
    rows = ([name, f"{one['auroc']:.3f}", f"{one['auroc_clear']:.3f}"] for name, one in of.items())
    yield from table(["rule", "all pairs", "without near-ties"], rows)


def accuracies(name: str) -> Iterator[str]:
    """Held-out accuracies of the models of a chain."""
    found: dict[str, dict[str, Any]] = result(name)["held_out"]
    figures = ("reward_accuracy", "length_matched_reward_accuracy", "logp_accuracy")
    rows = [[model, *(interval(one[figure]) for figure in figures)] for model, one in found.items()]
    longer = next(iter(found.values()))["length_accuracy"]
    yield from table(["model", "reward", "reward, length-matched", "log-prob"], rows)
    yield f"| the longer wins | {interval(longer)} | | |"


# ---------------------------------------------------------------------------------------------------- scoring


def scoring(data: str) -> Iterator[str]:
    found = result("score")[data]["methods"]
    rows = []
    for name, one in found.items():
        over, rate = one["over_padded"], one.get("share_of_matmul_rate")
        several = len(one["by_block"]) > 1 and name != "padded"
        shown = ratio(over) if several else f"{over['median']:.2f}"
        peak = f"{one['peak_gib']:.1f}"
        rows.append([METHODS[name], f"{one['pairs_per_second']:.2f}", shown, peak, share(rate) if rate else ""])
    yield from table(["method", "pairs/s", "over padded", "peak GiB", "share of the matrix-product rate"], rows)


def time_shares() -> Iterator[str]:
    """Where the time of a forward pass and of a training step goes."""
    rows = []
    for name, one in result("forward").items():
        if name in ("environment", "plan"):
            continue
        of = one["share"]
        rates = f"{one['matrix_products_gflops']:.0f} of {one['matmul_gflops']:.0f}"
        parts = (of["matrix products"], of["attention"], of["elementwise and copies"])
        rows.append([name, *map(share, parts), rates])
    head = ["", "matrix products", "attention", "elementwise, copies", "rate of the products, GFLOP/s"]
    yield from table(head, rows)


# ---------------------------------------------------------------------------------------------------- training


def training() -> Iterator[str]:
    found = result("train")
    rows = []
    for data in ("judged", "hh"):
        for mode, said in (("full", "all weights"), ("lora", "LoRA")):
            for name, method in (("ours", "ours"), ("trl", "TRL")):
                one = found[f"{data} {mode}"]["methods"][name]
                over = ratio(one["over_trl"], 1) if name == "ours" else "1"
                figures = (f"{one['pairs_per_second']:.2f}", over, f"{one['peak_gib']:.1f}")
                where = f"{data}, {said}" if name == "ours" else ""
                rows.append([where, method, *figures, share(one["share_of_matmul_rate"])])
    head = ["data, mode", "method", "pairs/s", "over TRL (least to most)", "peak GiB"]
    yield from table([*head, "share of the matrix-product rate"], rows)


def training_parts() -> Iterator[str]:
    """Gain of each part of training over a padded loop, all weights."""
    found = result("train")
    of = [found[f"{data} full paths"]["methods"] for data in ("judged", "hh")]
    rows = []
    for name, said in (
        ("padded", "padded loop"),
        ("plain", "plain rows, nothing padded, head on responses only, in chunks"),
        ("shared", "and prompts shared within a pair"),
    ):
        speeds = [
            f"{one[name]['pairs_per_second']:.2f} pairs/s"
            if name == "padded"
            else f"{one[name]['over_padded']['median']:.1f} times"
            for one in of
        ]
        rows.append([said, *speeds, ", ".join(f"{one[name]['peak_gib']:.1f}" for one in of)])
    yield from table(["", "judged", "HH", "peak GiB"], rows)


def trl_settings() -> Iterator[str]:
    """TRL at each setting."""
    rows = [
        [
            "float32 under autocast" if one["trl_autocast"] else "bfloat16 without masters",
            str(one["trl_pairs"]),
            f"{one['pairs_per_second']:.2f}",
            f"{one['peak_gib']:.1f}",
        ]
        for one in result("train")["trl"]["tried"]
    ]
    yield from table(["TRL's weights", "pairs a micro-batch", "pairs/s", "peak GiB"], rows)


def growth() -> Iterator[str]:
    by_size: dict[int, list[dict[str, float]]] = {}
    for run in result("growth")["runs"]:
        by_size.setdefault(run["pairs"], []).append(run)
    names = ("seconds_before_first_step", "pairs_per_second", "peak_gib")
    rows = [
        [f"{n:,}", *(", ".join(f"{run[name]:.1f}" for run in runs) for name in names)] for n, runs in by_size.items()
    ]
    yield from table(["pairs", "seconds before the first step", "pairs/s", "peak GiB"], rows)


def diversification() -> Iterator[str]:
    """Share of the upper bound that each way to make batches reaches, and its seconds."""
    found = {(r["n"], r["margins"], r["method"]): r for r in result("diversify")["rows"]}
    methods = list(dict.fromkeys(method for _, _, method in found))
    rows = []
    for n, margins in sorted(dict.fromkeys((n, margins) for n, margins, _ in found), key=lambda one: one[0]):
        row = [f"{n:,}", margins.replace("student_", "")]
        for method in methods:
            one = found.get((n, margins, method))
            if one is None:
                row.append("")
            elif method == "random":
                row.append(f"{one['bound_fraction']:.3%}")
            else:
                row.append(f"{one['bound_fraction']:.5%}, {one['seconds']:.2g} s")
        rows.append(row)
    yield from table(["pairs", "margins", *methods], rows)


# ---------------------------------------------------------------------------------------------------- curation


def filtering() -> Iterator[str]:
    said = {
        "memory": "decisions, in memory, the posterior given",
        "rules": "every rule, four checkpoints, in memory",
        "files": "decisions from a run folder's files, all evidence included (texts of two words)",
    }
    rows = []
    for one in result("filter")["rows"]:
        spread = f"{one['seconds']:.2g} ({one['seconds_min']:.2g} to {one['seconds_max']:.2g})"
        rows.append([said[one["what"]], f"{one['pairs']:,}", spread, f"{one['peak_gib']:.2g}"])
        if "report_seconds" in one:
            more = "noise rate, swapped copies and agreement of every rule, in addition"
            rows.append([more, f"{one['pairs']:,}", f"{one['report_seconds']:.2g}", f"{one['report_peak_gib']:.2g}"])
    yield from table(["what", "pairs", "seconds", "peak GiB"], rows)


def evidence() -> Iterator[str]:
    rows = [
        [f"{one['pairs']:,}", f"{one['seconds']:.0f}", f"{one['read_seconds']:.0f}", f"{one['peak_gib']:.2f}"]
        for one in result("evidence")["rows"]
    ]
    yield from table(["pairs", "seconds", "of these, reading texts", "peak GiB"], rows)


# ---------------------------------------------------------------------------------------------------- GPU, alignment


def gpu_scoring() -> Iterator[str]:
    found = result("gpu-day/score-smollm2")["found"]
    rows = []
    for data, said in (("ultrafeedback", "UltraFeedback"), ("hh", "HH")):
        for path, words in PATHS.items():
            one = found.get(f"smollm2-135m {data} {path}")
            if one is None or "failed" in one:
                continue
            over = "1" if path.startswith("padded") else f"{one['times_padded_sdpa']:.2f}"
            figures = (f"{one['pairs_per_second']:.0f}", over, share(one["share_of_matmul_rate"]))
            rows.append([said, words, *figures, f"{one['peak_gib']:.1f}"])
    head = ["lengths", "path", "pairs/s", "over padded", "share of the matrix-product rate", "peak GiB"]
    yield from table(head, rows)


def alignment(folder: str, data: str, what: str, recovered: str) -> Iterator[str]:
    """The arms of an alignment run: `what` is reward_accuracy or satisfied, `recovered` the share of the gain."""
    found = [row for row in result(f"align/{folder}/summary")["rows"] if row["data"] == data]
    to_plain = f"{'accuracy' if what == 'reward_accuracy' else what}_to_plain"
    rows = []
    for one in sorted(found, key=lambda row: (row["rate"], list(ARMS).index(row["arm"]))):
        gain = one.get(recovered)
        shown = f"{100 * gain['value']:.0f}% [{100 * gain['low']:.0f}, {100 * gain['high']:.0f}]" if gain else ""
        tokens = [f"{one['tokens']:.0f}"] if what == "satisfied" else [str(len(one["seeds"]))]
        difference = points(one[to_plain]) if to_plain in one else ""
        flips = f"{one['rate']:.0%}" if one["rate"] else "none"
        rows.append([flips, ARMS[one["arm"]], f"{one[what]['value']:.1%}", difference, shown, *tokens])
    head = ["flips", "arm", "satisfied" if what == "satisfied" else "reward accuracy", "minus plain DPO, points"]
    yield from table([*head, "gain of true labels recovered", "tokens" if what == "satisfied" else "draws"], rows)


def alignment_tuning(folder: str) -> Iterator[str]:
    """The share satisfied on validation topics by every try of every tuned arm, in the mean of its draws."""
    shares: dict[str, dict[str, list[float]]] = {}
    for path in sorted((RESULTS / "align" / folder / "tune").glob("*.json")):
        one = read_json(path)
        tuning = one["tuning"]
        tried = (
            f"{tuning['learning_rate']:g}, {tuning['num_train_epochs']:g} epoch{'s' * (tuning['num_train_epochs'] > 1)}"
        )
        drawn = [int(digit) for answers in one["satisfied"] for digit in answers[:-1]]  # the last one is greedy
        arm = ARMS[one["cell"]["arm"]].replace("DPO", one["cell"]["loss"].upper().replace("SIMPO", "SimPO"))
        shares.setdefault(arm, {}).setdefault(tried, []).append(sum(drawn) / len(drawn))
    tries = sorted({tried for one in shares.values() for tried in one})
    rows = [[arm, *(f"{sum(one[t]) / len(one[t]):.1%}" for t in tries)] for arm, one in shares.items()]
    yield from table(["arm", *tries], rows)


# ---------------------------------------------------------------------------------------------------- audits


# The audited files, in the order of audit.json.
AUDITED = (
    "judged pairs, training",
    "judged pairs, held out",
    "HH-RLHF, harmless-base, test",
    "LLaMA-Factory's dpo_en_demo",
)


def audits() -> Iterator[str]:
    """What the audit says of real sets; in brackets on the chosen answer alone, the rejected alone, both."""
    found = result("audit")["files"]
    rows = [
        ["usable pairs of records", *(f"{s['counts']['pairs']:,} of {s['counts']['records']:,}" for s in found)],
        ["the longer answer is preferred", *(share(s["length_bias"]) for s in found)],
        ["pairs with a finding", *(f"{s['flagged']} ({share(s['flagged_share'])})" for s in found)],
    ]
    names = dict.fromkeys(name for s in found for name in s["findings"])
    for name in names:
        title = next(s["findings"][name]["title"] for s in found if name in s["findings"])
        rows.append([title, *(_count(s["findings"].get(name)) for s in found)])
    yield from table(["", *AUDITED], rows)


def _count(one: Mapping[str, Any] | None) -> str:
    if one is None:
        return "0"
    sides = [one[side] for side in ("chosen_only", "rejected_only", "both")]
    return f"{one['count']}" if None in sides else f"{one['count']} ({' / '.join(map(str, sides))})"


def simulated_workers() -> Iterator[str]:
    """What the command that hands parts out reaches with workers that only wait."""
    rows = [
        [
            f"{one['name']}, {one['workers']} workers",
            f"{one['seconds_of_a_part']:.2g} s" if one["seconds_of_a_part"] >= 0.01 else "none",
            f"{one['pairs_per_second']:,.0f}",
            f"{one['parts_per_second']:.1f}",
            share(one["workers_busy"]) if one["seconds_of_a_part"] >= 0.01 else "",
            f"{1000 * one['driver_cpu_seconds_per_part']:.1f} ms",
        ]
        for one in result("simulate-workers")["rows"]
    ]
    head = ["run", "a part takes", "pairs/s", "parts/s", "workers at work", "command's processor time a part"]
    yield from table(head, rows)


def detection() -> Iterator[str]:
    plan = yaml.safe_load((RESULTS.parent / "plan.yaml").read_text(encoding="utf-8"))["detect"]
    yield from detect_table.tables(cells(plan), RESULTS / "detect")


# ---------------------------------------------------------------------------------------------------- robustness

# What is promised of each fault, beside what is promised of all of them (docs/results/robustness.md).
PROMISED = {
    "SIGKILL": "the same command goes on and ends as undisturbed",
    "SIGTERM": "the same; a training saves a checkpoint first",
    "disk full": "code 3, with what it needs and what is free",
    "EIO when writing": "code 2 or 3 with the file, or the command does without",
    "EIO when reading": "code 2 or 3 with the file, or the command does without",
    "ESTALE when reading": "code 2 or 3 with the file, or the command does without",
    "read-only folder": "code 2 or 3 with the folder, before the work",
    "two at once": "one does its work, the other is refused with the first one's process, or has its turn after it",
    "clock jumps": "nothing is different",
    "NFS: open files keep a name": "nothing is different",
    "no locks, no links": "nothing is different",
}


def faults() -> Iterator[str]:
    found = result("faults")["by_fault"]
    rows = ([name, said, f"{found[name]['kept']} of {found[name]['trials']}"]
            for name, said in PROMISED.items() if name in found)  # fmt: skip
    yield from table(["fault", "promised", "kept"], rows)


def faults_by_command() -> Iterator[str]:
    found = result("faults")["by_command"]
    yield from table(["command", "trials with all promises kept"],
                     ([name, f"{kept} of {n}"] for name, (kept, n) in found.items()))  # fmt: skip


def fuzz() -> Iterator[str]:
    """What the fuzz went through, by area."""
    found = result("fuzz")["areas"]
    keys = ("files", "records", "refused")
    rows = ([name, *(f"{one[key]:,}" for key in keys), f"{sum(one['failures'].values())}"]
            for name, one in found.items())  # fmt: skip
    yield from table(["area", "files", "records", "refused with a reason", "failures"], rows)


TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "scorecard": scorecard,
    "demo-rules": demo_rules,
    "chain-demo": lambda: accuracies("chain-demo"),
    "chain-judged-400": lambda: accuracies("chain-judged-400"),
    "chain-hh-200": lambda: accuracies("chain-hh-200"),
    "score-judged": lambda: scoring("judged"),
    "score-hh": lambda: scoring("hh"),
    "time-shares": time_shares,
    "training": training,
    "training-parts": training_parts,
    "trl-settings": trl_settings,
    "growth": growth,
    "diversification": diversification,
    "filtering": filtering,
    "evidence": evidence,
    "gpu-scoring": gpu_scoring,
    "align-demo": lambda: alignment("demo", "demo", "reward_accuracy", "accuracy_recovered"),
    "align-demo-before": lambda: alignment("demo-before", "demo", "reward_accuracy", "accuracy_recovered"),
    "align-constraints": lambda: alignment("gpu", "constraints", "satisfied", "recovered"),
    "align-constraints-tuning": lambda: alignment_tuning("gpu"),
    "align-constraints-first": lambda: alignment("first", "constraints", "satisfied", "recovered"),
    "align-constraints-first-tuning": lambda: alignment_tuning("first"),
    "audits": audits,
    "simulated-workers": simulated_workers,
    "detection": detection,
    "faults": faults,
    "faults-by-command": faults_by_command,
    "fuzz": fuzz,
}
