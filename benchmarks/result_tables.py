"""The tables of docs/results/, as Markdown, made of the JSON files under results/."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import reduce
from statistics import geometric_mean
from typing import Any

import yaml

from benchmarks import detect_table
from benchmarks.alignment_tables import BEFORE, GPU, alignment, alignment_tuning
from benchmarks.cells import cells
from benchmarks.figures import RESULTS, interval, ratio, result, share, table
from benchmarks.robustness_tables import faults, faults_by_command, fuzz

METHODS = {
    "trees": "ours, trees (the default)",
    "shared": "ours, prompts shared within a pair",
    "plain": "ours, plain rows of similar length",
    "padded": "padded transformers, batches of 8 of similar length",
    "trl": "TRL 1.16, reference precompute",
    "vllm": "vLLM 0.32 (CPU), each distinct sequence once",
}
WORTH = ("as given", "drop", "soft-label")
CUT_WAYS = ("auto", "cut", "soft-label")
CUT_DATA = {"constraints": "constraint pairs", "judged": "judged pairs", "hh": "HH-RLHF"}
PATHS = {
    "padded sdpa": "padded, SDPA",
    "flex": "packed, FlexAttention",
    "rows": "plain rows",
    "dense": "packed, dense mask",
    "segments": "packed, by segments",
}


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
    head = ["data, mode", "method", "pairs/s", "over TRL (min to max)", "peak GiB"]
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
    yield from table(["TRL's weights", "pairs per micro-batch", "pairs/s", "peak GiB"], rows)


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
        "command": "`rmo-curate filter`, shards written (texts as long as those of the judged pairs)",
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


# ---------------------------------------------------------------------------------------------------- GPU


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


def workers() -> Iterator[str]:
    """Scoring by one process and by workers, whole commands."""
    found = result("workers")
    rows = [
        [name, f"{seconds[0]:.0f} s", f"{found['pairs_per_second'][name]:.2f}"]
        for name, seconds in found["seconds"].items()
    ]
    yield from table(["2 cores", "whole command", "pairs/s"], rows)


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
    head = ["run", "a part takes", "pairs/s", "parts/s", "workers at work", "command's processor time per part"]
    yield from table(head, rows)


def categories() -> Iterator[str]:
    """Detection with kinds of prompt known by words, to style, and to style and the probe; means of the draws."""
    cells = result("categories")["cells"]

    def mean(rate: float, way: str, *names: str) -> str:
        values = [
            reduce(lambda one, name: one[name], names, cell["ways"][way]) for cell in cells if cell["rate"] == rate
        ]
        return f"{sum(values) / len(values):.2f}" if None not in values else ""

    rows = [
        [share(rate), way, *(mean(rate, way, *names) for names in (("auroc",), *(("worth", a) for a in WORTH)))]
        for rate in sorted({cell["rate"] for cell in cells})
        for way in cells[0]["ways"]
    ]
    yield from table(["flipped", "kinds known to", "AUROC", *(f"worth {action}" for action in WORTH)], rows)


def cut() -> Iterator[str]:
    """What labels are worth as a multiple of the labels as given, geometric means of the draws: as the default softens
    them, after the best cut, and with soft labels in full."""
    found = result("cut")["cells"]

    def times(cells: list[dict[str, Any]]) -> str:
        return " / ".join(f"{geometric_mean(cell['times'][way] for cell in cells):.2f}" for way in CUT_WAYS)

    rates = sorted({cell["rate"] for cell in found})
    rows = []
    for data, kinds in dict.fromkeys((cell["data"], cell["kinds"]) for cell in found):
        of_data = [cell for cell in found if (cell["data"], cell["kinds"]) == (data, kinds)]
        for size in dict.fromkeys(cell["size"] for cell in of_data):
            cells = [cell for cell in of_data if cell["size"] == size]
            name = CUT_DATA[data] + (", kinds known" if kinds else "")
            of_rates = [times([cell for cell in cells if cell["rate"] == rate]) for rate in rates]
            rows.append([f"{name}, {cells[0]['pairs']:,} pairs", *of_rates])
    yield from table(["data", *(f"{share(rate)} flipped" for rate in rates)], rows)


def style_of_categories() -> Iterator[str]:
    """AUROC of style alone by what it knows; means of the draws."""
    found = [cell for cell in result("categories")["cells"] if cell["style"]]
    rates = sorted({cell["rate"] for cell in found})

    def mean(way: str, rate: float) -> str:
        values = [cell["style"][way] for cell in found if cell["rate"] == rate]
        return f"{sum(values) / len(values):.2f}"

    rows = [[way, *(mean(way, rate) for rate in rates)] for way in found[0]["style"]]
    yield from table(["style knows", *(f"{share(rate)} flipped" for rate in rates)], rows)


def detection() -> Iterator[str]:
    plan = yaml.safe_load((RESULTS.parent / "plan.yaml").read_text(encoding="utf-8"))["detect"]
    yield from detect_table.tables(cells(plan), RESULTS / "detect")


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
    "align-demo": lambda: alignment("demo", "demo"),
    "align-demo-earlier": lambda: alignment("demo-earlier", "demo"),
    "align-demo-before": lambda: alignment("demo-before", "demo"),
    "align-constraints": lambda: alignment(GPU, "constraints"),
    "align-constraints-before": lambda: alignment(BEFORE, "constraints"),
    "align-constraints-simpo": lambda: alignment(GPU, "constraints", "simpo"),
    "align-judged": lambda: alignment(BEFORE, "judged"),
    "align-constraints-tuning": lambda: alignment_tuning(GPU),
    "align-constraints-before-simpo": lambda: alignment(BEFORE, "constraints", "simpo"),
    "align-constraints-first": lambda: alignment("first", "constraints"),
    "align-constraints-first-tuning": lambda: alignment_tuning("first"),
    "audits": audits,
    "workers": workers,
    "simulated-workers": simulated_workers,
    "categories": categories,
    "categories-style": style_of_categories,
    "cut": cut,
    "detection": detection,
    "faults": faults,
    "faults-by-command": faults_by_command,
    "fuzz": fuzz,
}
