"""The table of docs/results.md: every claim with a target, its measurement, and whether it is met.

All are computed from the JSON files in results/; those of detection by `detect_table`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.alignment_tables import BEFORE, GPU
from benchmarks.cells import cells
from benchmarks.detect_table import claims as detection_claims
from benchmarks.detect_table import grouped
from benchmarks.figures import RESULTS, points, result, share, table
from benchmarks.large import KINDS
from rmo_train.console.wording import counted

MET, MISSED, NOT_RUN = "met", "**missed**", "not run"
CLAIMED = {
    "auto": "soft labels as far as they pay",
    "soft-label": "soft labels in full",
    "drop": "the pairs that `--action drop` leaves",
}
PLAN = Path(__file__).parent / "plan.yaml"


@dataclass(frozen=True)
class Claim:
    """A row: what is claimed, on which page the details are, the target, what was measured, the verdict."""

    said: str
    page: str  # in docs/results/, with an anchor where the page has several subjects
    target: str
    measured: str
    verdict: str

    @property
    def row(self) -> list[str]:
        return [f"[{self.said}](results/{self.page})", self.target, self.measured, self.verdict]


def at_least(said: str, page: str, least: float, values: list[float], form: str = "{:.2f}", unit: str = "") -> Claim:
    """A claim that every one of `values` is `least` or more."""
    shown = ", ".join(form.format(value) for value in values) + unit
    return Claim(said, page, f"≥ {_limit(least, form)}{unit}", shown, MET if min(values) >= least else MISSED)


def at_most(said: str, page: str, most: float, values: list[float], form: str = "{:.2f}", unit: str = "") -> Claim:
    shown = ", ".join(form.format(value) for value in values) + unit
    return Claim(said, page, f"≤ {_limit(most, form)}{unit}", shown, MET if max(values) <= most else MISSED)


def _limit(value: float, form: str) -> str:
    return form.format(value) if "%" in form else f"{value:g}"


def claims() -> Iterator[Claim]:
    yield from of_alignment()
    yield from of_detection()
    yield from of_scoring()
    yield from of_training()
    yield from of_robustness()
    yield from of_curation()
    yield from of_the_gpu()


def of_alignment() -> Iterator[Claim]:
    timed = result("demo-time")
    for one, where in ((timed, "2 cores"), (timed["without_bfloat16"], "2 cores without bfloat16")):
        yield at_most(f"`make demo` on {where}", "demo.md", 10, [one["demo_wall_seconds"] / 60], "{:.1f}", " min")
    of_demo, of_constraints = "demo's 272 pairs", "3,537 pairs with constraints"
    for folder, data, rate, arms, of in (
        ("demo", "demo", 0.3, ("auto", "drop"), of_demo),
        *((GPU, "constraints", rate, ("soft-label", "drop"), of_constraints) for rate in (0.2, 0.3, 0.4)),
        (BEFORE, "judged", 0.4, ("soft-label", "drop"), "3,577 judged pairs, earlier evidence"),
    ):
        yield from (recovered_claim(_arm(folder, data, rate, arm), of) for arm in arms)
    others = {"plain": "plain DPO", "simpo": "plain SimPO", "random": "random removal of as many pairs"}
    satisfied = "constraints satisfied"
    for arm, rate in ((arm, rate) for rate in (0.2, 0.3, 0.4) for arm in ("soft-label", "drop")):
        found = _arm(GPU, "constraints", rate, arm)
        for other, against in others.items():
            if f"satisfied_to_{other}" in found:
                of = ("plain", "simpo") if other == "simpo" else (other,)
                theirs = _arm(GPU, "constraints", rate, *of)
                yield above_claim(found, theirs, f"satisfied_to_{other}", against, satisfied)
    for arm in ("soft-label", "drop"):
        found, plain = (_arm(GPU, "constraints", 0.3, name, "simpo") for name in (arm, "plain"))
        yield above_claim(found, plain, "satisfied_to_plain", "plain SimPO, both trained by SimPO", satisfied)
        found, plain = (_arm(BEFORE, "judged", 0.4, name) for name in (arm, "plain"))
        on = "clear held-out judged pairs, earlier evidence"
        yield above_claim(found, plain, "accuracy_clear_to_plain", "plain DPO", on)
        differences = [_arm(GPU, "constraints", rate, arm)["satisfied_to_plain"] for rate in (0.0, 0.2, 0.3, 0.4)]
        worst = min(differences, key=lambda d: d["value"])
        verdict = MET if all(d["high"] >= 0 for d in differences) else MISSED
        said = f"{CLAIMED[arm]} not worse than plain DPO: {satisfied}, no flips, 20%, 30% and 40%"
        yield Claim(said, "alignment.md", "no interval below 0", f"worst {points(worst)} points", verdict)
        clean = differences[0]
        said = f"{CLAIMED[arm]} without flips: {satisfied}, minus plain DPO"
        verdict = MET if clean["value"] >= -0.01 else MISSED
        yield Claim(said, "alignment.md", "≥ -1 point", f"{points(clean)} points", verdict)
    for arm in ("auto", "drop"):
        found, plain = (_arm("demo", "demo", 0.3, name) for name in (arm, "plain"))
        yield above_claim(found, plain, "accuracy_to_plain", "plain DPO", of_demo)


def recovered_claim(row: dict[str, Any], of: str) -> Claim:
    gain = row.get("recovered", row["accuracy_recovered"])
    shown = f"{100 * gain['value']:.0f}% [{100 * gain['low']:.0f}, {100 * gain['high']:.0f}]"
    said = f"share of the gain from true labels that {CLAIMED[row['arm']]} recover: {of}, {flips_and_draws(row, row)}"
    return Claim(said, "alignment.md", "≥ 60%", shown, MET if gain["value"] >= 0.6 else MISSED)


def above_claim(row: dict[str, Any], other: dict[str, Any], difference: str, against: str, on: str) -> Claim:
    gain = row[difference]
    said = f"{CLAIMED[row['arm']]} above {against}: {on}, {flips_and_draws(row, other)}"
    return Claim(said, "alignment.md", "> 0", f"{points(gain)} points", MET if gain["low"] > 0 else MISSED)


def flips_and_draws(row: dict[str, Any], other: dict[str, Any]) -> str:
    """How many labels are flipped, and of how many draws a comparison of two rows is."""
    return f"{row['rate']:.0%} flipped, {counted(len({*row['seeds']} & {*other['seeds']}), 'draw')}"


def _arm(folder: str, data: str, rate: float, arm: str, loss: str = "dpo") -> dict[str, Any]:
    """An arm under labels that are flipped at random."""
    rows = result(f"align/{folder}/summary")["rows"]
    wanted = (data, loss, rate, arm)
    return next(
        row
        for row in rows
        if (row["data"], row["loss"], row["rate"], row["arm"]) == wanted and row["flips"] in ("none", "uniform")
    )


def of_detection() -> Iterator[Claim]:
    groups = grouped(cells(yaml.safe_load(PLAN.read_text(encoding="utf-8"))["detect"]), RESULTS / "detect")
    for line in list(detection_claims(groups))[2:]:
        if line:
            said, target, measured, verdict = (cell.strip() for cell in line.strip("|").split("|"))
            yield Claim(said, "detection.md", target, measured, verdict)


def of_scoring() -> Iterator[Claim]:
    found = [result("score")[data]["methods"] for data in ("judged", "hh")]
    page = "scoring.md"
    both = "judged pairs, HH"

    def over(other: str) -> list[float]:
        return [one["trees"]["by_block"][0] / one[other]["by_block"][0] for one in found]

    yield at_least(f"scoring speed over TRL on a CPU ({both})", page, 4, over("trl"), "{:.1f}", " times")
    yield at_least(f"scoring speed over vLLM on a CPU ({both})", page, 2.5, over("vllm"), "{:.2f}", " times")
    padded = [one["trees"]["over_padded"]["median"] for one in found]
    yield at_least(f"median scoring speed over padded batches on a CPU ({both})", page, 1.8, padded, "{:.2f}", " times")
    rates = [one["trees"]["share_of_matmul_rate"] for one in found]
    yield at_least(f"share of the matrix-product rate when scoring ({both})", page, 0.75, rates, "{:.0%}")
    probe = [
        result(f"score-probe-{d}")[d]["methods"]["probe"]["seconds_over_trees"]["median"] for d in ("judged", "hh")
    ]
    yield at_most(f"scoring with the probe over scoring alone ({both})", page, 1.1, probe, "{:.2f}", " times")
    workers, page = result("workers"), "scoring.md#workers-on-a-cpu"
    quiet, busy = (workers[f"{when}, over one process"] for when in ("quiet", "beside a busy neighbour"))
    yield at_least("two workers over one process, 2 cores", page, 1.1, [quiet], "{:.2f}", " times")
    yield at_least("two workers over one process, next to a busy process", page, 3, [busy], "{:.2f}", " times")
    yield at_most("what Ray adds to a run", page, 15, [workers["seconds that Ray costs"]], "{:.0f}", " s")


def of_training() -> Iterator[Claim]:
    names = [f"{data} {mode}" for data in ("judged", "hh") for mode in ("full", "lora")]
    ours = [result("train")[name]["methods"]["ours"] for name in names]
    page, which = "training.md", "judged full, judged LoRA, HH full, HH LoRA"
    speeds = [one["over_trl"]["median"] for one in ours]
    yield at_least(f"training speed over TRL on a CPU ({which})", page, 3.5, speeds, "{:.1f}", " times")
    memory = [one["memory_over_trl"] for one in ours]
    yield at_most(f"training memory over TRL ({which})", page, 0.5, memory, "{:.2f}", " times")
    rates = [one["share_of_matmul_rate"] for one in ours]
    yield at_least(f"share of the matrix-product rate when training ({which})", page, 0.65, rates, "{:.0%}")


def of_robustness() -> Iterator[Claim]:
    kill = result("kill")
    same = kill["passed"] == kill["kills"] and kill["files_equal"][0] == kill["files_equal"][1]
    shown = f"{kill['passed']} of {kill['kills']}; {kill['files_equal'][0]:,} of {kill['files_equal'][1]:,} files"
    said = "a killed command, run again, gives the result of an uninterrupted one"
    yield Claim(said, "robustness.md#killed-and-resumed", "all, byte-identical", shown, MET if same else MISSED)
    faults, page = result("faults"), "robustness.md#faults"
    shown = f"{faults['kept']:,} of {faults['trials']:,}; {faults['kills']} kills"
    verdict = MET if faults["kept"] == faults["trials"] and faults["kills"] >= 100 else MISSED
    yield Claim("faults of disk, clock and process that break no promise", page, "all, ≥ 100 kills", shown, verdict)
    fuzz, page = result("fuzz"), "robustness.md#fuzz"
    enough = fuzz["records"] >= 10_000 and fuzz["files"] >= 2_000
    shown = f"{fuzz['failures']} in {fuzz['records']:,} records, {fuzz['files']:,} files"
    verdict = MET if enough and not fuzz["failures"] else MISSED
    said = "crashes and lost records on broken data"
    yield Claim(said, page, "0 in ≥ 10,000 records, ≥ 2,000 files", shown, verdict)
    yield at_most("slowest of these files", page, fuzz["limits"]["seconds"], [fuzz["slowest_seconds"]], "{:.0f}", " s")
    yield at_most(
        "memory of reading and auditing them", page, fuzz["limits"]["GiB"], [fuzz["peak_GiB"]], "{:.2f}", " GiB"
    )
    stream = result("stream")
    page = "robustness.md#reading-and-rendering"
    yield at_most("memory of reading 1,000,000 records", page, 2, [stream["peak_GiB"]], "{:.2f}", " GiB")
    large, page = result("large"), "robustness.md#large-answers"
    seconds = [one["seconds"] for name, one in large["long"].items() if name in KINDS]
    said = f"audit of data with an answer of 20 MB, the slowest of {len(seconds)} kinds of text"
    yield at_most(said, page, large["target_seconds"], [max(seconds)], "{:.1f}", " s")
    memory = [one["peak_GiB"] for name, one in large.get("many", {}).items() if name != "environment"]
    said = "memory of commands that read 1,000 answers of 1 MB, the largest"
    if memory:
        yield at_most(said, page, large["target_GiB"], [max(memory)], "{:.2f}", " GiB")
    else:
        yield Claim(said, page, f"≤ {large['target_GiB']:g} GiB", "", NOT_RUN)


def of_curation() -> Iterator[Claim]:
    ten = next(row for row in result("filter")["rows"] if row["pairs"] == 10_000_000)
    page = "filtering.md"
    yield at_most("decisions on 10,000,000 pairs in memory, median", page, 10, [ten["seconds"]], "{:.1f}", " s")
    yield at_most("memory of these decisions", page, 4, [ten["peak_gib"]], "{:.1f}", " GiB")
    million = next(row for row in result("evidence")["rows"] if row["pairs"] == 1_000_000)
    page = "filtering.md#all-evidence"
    yield at_most("all evidence on 1,000,000 pairs", page, 60, [million["seconds"]], "{:.0f}", " s")
    yield at_most("memory of this evidence", page, 6, [million["peak_gib"]], "{:.2f}", " GiB")
    audit, page = result("audit"), "audits.md"
    yield at_most("audit of 100,000 pairs", page, audit["target_seconds"], [audit["seconds"]], "{:.0f}", " s")
    yield at_most("memory of this audit", page, audit["target_GiB"], [audit["peak_GiB"]], "{:.2f}", " GiB")
    planted, found = audit["planted"], audit["found"]
    shown = f"{sum(min(found[k], n) for k, n in planted.items()):,} of {sum(planted.values()):,}"
    all_ = all(found[kind] >= n for kind, n in planted.items())
    yield Claim("planted defects found by this audit", page, "all", shown, MET if all_ else MISSED)
    yield from of_a_million(page)


def of_a_million(page: str) -> Iterator[Claim]:
    if not (RESULTS / "audit-million.json").is_file():
        yield Claim("audit of 1,000,000 pairs, and its memory", page, "≤ 10 min, ≤ 6 GiB", "", NOT_RUN)
        return
    audit = result("audit-million")
    minutes, most = audit["seconds"] / 60, audit["target_seconds"] / 60
    yield at_most("audit of 1,000,000 pairs", page, most, [minutes], "{:.1f}", " min")
    yield at_most("memory of all its processes", page, audit["target_GiB"], [audit["peak_GiB"]], "{:.2f}", " GiB")


def of_the_gpu() -> Iterator[Claim]:
    page = "gpu.md"
    found = result("gpu-day/correctness")["found"]
    for dtype in ("float32", "bfloat16"):
        of = [one for name, one in found.items() if name.startswith(dtype) and "logp_gap_rms" in one]
        gaps = [one["logp_gap_rms"] for name, one in found.items() if name.startswith(dtype) and "states_gap" in one]
        shown = f"at most {max(gaps):.2g} nats per token (rms)"
        said = f"packed rows give the log-probs of plain rows, {dtype}, on a GPU"
        yield Claim(said, page, "what rmo accepts", shown, MET if all(one["ok"] for one in of) else MISSED)
    trained = {name: one for name, one in found.items() if "resumed_gap" in one}
    near = all(one["resumed_gap"] <= one["repeated_gap"] for one in trained.values())
    shown = ", ".join(f"{one['resumed_gap']:.1g}" for one in trained.values())
    said = f"distance of a resumed run's weights from an uninterrupted one ({', '.join(trained)})"
    yield Claim(said, page, "≤ that of a repeated run", shown, MET if near else MISSED)
    for name, one in trained.items():
        limit = 1e-4 if name.startswith("float32") else 0.02
        gap = one["loss_at_step_0_less_ln_2"]
        verdict = MET if abs(gap) <= limit else MISSED
        yield Claim(f"first loss is ln 2, {name}, on a GPU", page, f"± {limit:g}", f"{gap:+.2g}", verdict)
    rates = result("gpu-day/score-smollm2")["found"]
    over = [rates[f"smollm2-135m {data} flex"]["times_padded_sdpa"] for data in ("ultrafeedback", "hh")]
    said = "scoring SmolLM2-135M over padded batches on a GPU (UltraFeedback, HH)"
    yield at_least(said, page, 2, over, "{:.2f}", " times")
    yield Claim("share of the matrix-product rate when scoring, 8B shapes", page, f"≥ {share(0.6)}", "", NOT_RUN)
    yield Claim("training, 8B shapes, and memory at two vocabulary sizes, against TRL", page, "", "", NOT_RUN)


def claims_table() -> Iterator[str]:
    yield from table(["claim", "target", "measured", "verdict"], (claim.row for claim in claims()))
