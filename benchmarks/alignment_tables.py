"""The tables of docs/results/alignment.md."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.figures import RESULTS, points, result, table
from rmo_train.store.files import read_json

GPU = "gpu"
BEFORE = "gpu-before"  # of the evidence before kinds of prompt, and of the first tuning
ARMS = {
    "base": "untrained",
    "plain": "plain",
    "cdpo": "cDPO at the true rate",
    "rdpo": "robust DPO at the true rate",
    "random": "as many pairs as `--action drop` drops, dropped at random",
    "drop": "`--action drop`",
    "drop + both": "the same, diversified and amplified",
    "drop, soft": "the same, kept pairs with soft labels",
    "quantiles": "`--low-q 0.1 --high-q 0.95`, diversified and amplified",
    "auto": "soft labels as far as they pay (the default)",
    "soft-label": "soft labels in full",
    "oracle": "true labels",
}


def alignment(folder: str, data: str, loss: str = "dpo") -> Iterator[str]:
    """The arms of an alignment run on a data set, by the share satisfied where answers are checked, else by reward
    accuracy."""
    found = [row for row in result(f"align/{folder}/summary")["rows"] if (row["data"], row["loss"]) == (data, loss)]
    what, to_plain, recovered = "reward_accuracy", "accuracy_to_plain", "accuracy_recovered"
    if any("satisfied" in row for row in found):
        what, to_plain, recovered = "satisfied", "satisfied_to_plain", "recovered"
    elif any("reward_accuracy_clear" in row for row in found):
        to_plain = "accuracy_clear_to_plain"
    rows = []
    order = {arm: n for n, arm in enumerate(ARMS)}
    for one in sorted(found, key=lambda row: (row["rate"], row["flips"], order.get(row["arm"], len(order)))):
        gain = one.get(recovered)
        shown = f"{100 * gain['value']:.0f}% [{100 * gain['low']:.0f}, {100 * gain['high']:.0f}]" if gain else ""
        draws = str(len(one["seeds"]))
        last = f"{one['greedy']:.1%}, {one['tokens']:.0f}, {draws}" if what == "satisfied" else draws
        difference = points(one[to_plain]) if to_plain in one else ""
        flips = f"{one['rate']:.0%}" if one["rate"] else "none"
        rows.append([flips, ARMS.get(one["arm"], one["arm"]), f"{one[what]['value']:.1%}", difference, shown, last])
    of_clear = ", clear pairs" * (to_plain == "accuracy_clear_to_plain")
    head = ["flips", "arm", what.replace("_", " "), f"minus plain, points{of_clear}", "share of true labels' gain"]
    yield from table([*head, "greedy, tokens, draws" if what == "satisfied" else "draws"], rows)


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
        arm = ARMS[one["cell"]["arm"]] + ", SimPO" * (one["cell"]["loss"] == "simpo")
        shares.setdefault(arm, {}).setdefault(tried, []).append(sum(drawn) / len(drawn))
    tries = sorted({tried for one in shares.values() for tried in one})
    rows = [[arm, *(f"{sum(one[t]) / len(one[t]):.1%}" for t in tries)] for arm, one in shares.items()]
    yield from table(["arm", *tries], rows)
