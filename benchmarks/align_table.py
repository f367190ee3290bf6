"""Tables of the alignment experiment, from its cells: paired differences with bootstrap intervals over prompts.

A row is an arm with one loss, one kind of flips and one rate. Its seeds are pooled: a prompt's value is the mean over
its answers and the seeds. Intervals resample prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rmo_train.evaluation.metrics import Interval, accuracy, bootstrap, length_matched_accuracy, paired_difference

Row = dict[str, Any]
COLUMNS = ("data", "loss", "flips", "rate", "arm", "seeds")
BESIDE = ("plain", "random", "cdpo", "rdpo", "drop")  # arms that others are compared with


@dataclass(frozen=True)
class HeldOut:
    """What all cells of a data set are evaluated on; arrays [pairs] or [prompts]."""

    prompts: np.ndarray  # ids of the prompts that are answered
    groups: np.ndarray  # each pair's prompt
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray
    clear: np.ndarray | None = None  # bool: pairs that the judge found clear


def recovered(arm: np.ndarray, plain: np.ndarray, oracle: np.ndarray) -> float:
    """Share of the gain of true labels: (arm - plain) / (oracle - plain), of means; NaN if there is no gain."""
    gain = float(oracle.mean() - plain.mean())
    return float(arm.mean() - plain.mean()) / gain if gain else float("nan")


def win_rate(arm: np.ndarray, other: np.ndarray) -> float:
    """Win rate of `arm` over `other` on the same prompts, ties count one half; from shares satisfied [prompts].

    An answer that satisfies beats one that does not, so this is 1/2 + (difference of the shares) / 2.
    """
    return 0.5 + float((arm - other).mean()) / 2


def difference(arm: np.ndarray, other: np.ndarray, groups: np.ndarray) -> Interval:
    return paired_difference(lambda values, rows: float(values.mean()), other, arm, groups)


@dataclass(frozen=True)
class Pool:
    """The cells of one arm, a seed each."""

    cells: Mapping[int, Mapping[str, Any]]

    def of(self, seeds: Sequence[int]) -> Pool:
        return Pool({s: self.cells[s] for s in seeds})

    def satisfied(self, *, greedy: bool = False) -> np.ndarray:
        """Share of a prompt's drawn answers (or whether the greedy one) satisfies, mean over seeds: [prompts]."""
        picked = slice(-1, None) if greedy else slice(0, -1)
        found = [[np.mean([int(d) for d in s[picked]]) for s in cell["satisfied"]] for cell in self.cells.values()]
        return np.mean(found, axis=0)

    def mean_of(self, name: str) -> np.ndarray:
        return np.mean([cell[name] for cell in self.cells.values()], axis=0)

    def margins(self) -> np.ndarray:
        """[seeds, pairs]."""
        return np.array([cell["margins"] for cell in self.cells.values()])

    def right(self) -> np.ndarray:
        """Share of the seeds whose margin of a pair is above 0, ties one half: [pairs]."""
        margins = self.margins()
        return np.mean((margins > 0) + 0.5 * (margins == 0), axis=0)


def pools(cells: Sequence[Mapping[str, Any]]) -> dict[tuple[Any, ...], Pool]:
    """The cells that ran, by (data, loss, flips, rate, arm)."""
    found: dict[tuple[Any, ...], dict[int, Mapping[str, Any]]] = {}
    for cell in cells:
        if "refused" not in cell:
            c = cell["cell"]
            found.setdefault((c["data"], c["loss"], c["flips"], c["rate"], c["arm"]), {})[c["seed"]] = cell
    return {key: Pool(by_seed) for key, by_seed in found.items()}


def rows(cells: Sequence[Mapping[str, Any]], held_out: Mapping[str, HeldOut]) -> list[Row]:
    """One row per arm: its results, and paired differences from arms that ran with the same seeds."""
    of_arm = pools(cells)
    found = []
    for (data, loss, flips, rate, arm), pool in of_arm.items():
        row = dict(zip(COLUMNS, (data, loss, flips, rate, arm, sorted(pool.cells)), strict=True))
        row |= own_figures(pool, held_out[data])
        plain, oracle = of_arm.get((data, loss, flips, rate, "plain")), of_arm.get((data, loss, "none", 0.0, "oracle"))
        against = {name: of_arm.get((data, loss, flips, rate, name)) for name in BESIDE}
        if loss != "simpo":
            against["simpo"] = of_arm.get((data, "simpo", flips, rate, "plain"))
        for name, other in against.items():
            if other is not None and name != arm and arm not in ("base", "oracle"):
                row |= paired(pool, other, name, held_out[data])
        if plain is not None and oracle is not None and arm not in ("base", "oracle", "plain") and rate:
            row |= share_recovered(pool, plain, oracle, held_out[data])
        found.append(row)
    return found


def own_figures(pool: Pool, held_out: HeldOut) -> Row:
    cells = list(pool.cells.values())
    margins, right = pool.margins(), pool.right()
    row: Row = {"reward_accuracy": bootstrap(lambda r: float(right[r].mean()), held_out.groups)}
    row["length_matched"] = float(np.mean([matched(m, held_out) for m in margins]))
    if held_out.clear is not None:
        row["reward_accuracy_clear"] = float(np.mean([accuracy(m[held_out.clear]) for m in margins]))
    if "satisfied" in cells[0]:
        share = pool.satisfied()
        row["satisfied"] = bootstrap(lambda r: float(share[r].mean()), held_out.prompts)
        row["greedy"] = float(pool.satisfied(greedy=True).mean())
        row["tokens"], row["kl"] = float(pool.mean_of("tokens").mean()), float(pool.mean_of("kl").mean())
    trained = [cell for cell in cells if cell["pairs"]]
    if trained:
        row["kept"] = float(np.mean([c["pairs"]["kept"] for c in trained]))
        row["flipped_kept"] = float(np.mean([c["pairs"]["flipped_kept"] for c in trained]))
        row["steps"] = float(np.mean([c["training"]["steps"] for c in trained]))
        row["learning_rate"] = trained[0]["settings"]["learning_rate"]
        row["epochs"] = trained[0]["settings"]["num_train_epochs"]
    row["minutes"] = float(np.mean([sum(c["seconds"].values()) for c in cells])) / 60
    return row


def matched(margins: np.ndarray, held_out: HeldOut) -> float:
    return length_matched_accuracy(margins, held_out.chosen_tokens, held_out.rejected_tokens)


def paired(pool: Pool, other: Pool, name: str, held_out: HeldOut) -> Row:
    """Differences to another arm over the seeds that both have."""
    seeds = sorted(pool.cells.keys() & other.cells.keys())
    if not seeds:
        return {}
    mine, theirs = pool.of(seeds), other.of(seeds)
    right, others_right = mine.right(), theirs.right()
    row: Row = {f"accuracy_to_{name}": difference(right, others_right, held_out.groups)}
    if name == "plain":
        row |= paired_further(mine, theirs, held_out)
    if "satisfied" in next(iter(mine.cells.values())):
        x, y = mine.satisfied(), theirs.satisfied()
        row[f"satisfied_to_{name}"] = difference(x, y, held_out.prompts)
        row[f"wins_against_{name}"] = win_rate(x, y)
    return row


def paired_further(mine: Pool, plain: Pool, held_out: HeldOut) -> Row:
    """What is compared with plain training alone: length-matched accuracy, clear pairs, greedy answers."""
    margins = list(zip(mine.margins(), plain.margins(), strict=True))
    row: Row = {
        "matched_to_plain": bootstrap(
            lambda r: float(np.mean([at(a, held_out, r) - at(b, held_out, r) for a, b in margins])), held_out.groups
        )
    }
    if (clear := held_out.clear) is not None:
        row["accuracy_clear_to_plain"] = difference(mine.right()[clear], plain.right()[clear], held_out.groups[clear])
    if all("satisfied" in cell for cell in mine.cells.values()):
        greedy = [pool.satisfied(greedy=True) for pool in (mine, plain)]
        row["greedy_to_plain"] = difference(*greedy, held_out.prompts)
    return row


def at(margins: np.ndarray, held_out: HeldOut, rows: np.ndarray) -> float:
    return length_matched_accuracy(margins[rows], held_out.chosen_tokens[rows], held_out.rejected_tokens[rows])


def share_recovered(pool: Pool, plain: Pool, oracle: Pool, held_out: HeldOut) -> Row:
    """The headline: of the share satisfied and of reward accuracy, over the seeds that all three have."""
    seeds = sorted(pool.cells.keys() & plain.cells.keys() & oracle.cells.keys())
    if not seeds:
        return {}
    three = [p.of(seeds) for p in (pool, plain, oracle)]
    row: Row = {"accuracy_recovered": _recovered([p.right() for p in three], held_out.groups)}
    if all("satisfied" in c for p in three for c in p.cells.values()):
        row["recovered"] = _recovered([p.satisfied() for p in three], held_out.prompts)
    return row


def _recovered(values: Sequence[np.ndarray], groups: np.ndarray) -> Interval:
    return bootstrap(lambda r: recovered(*(v[r] for v in values)), groups)


def as_json(row: Row) -> Row:
    return {name: asdict(value) if isinstance(value, Interval) else value for name, value in row.items()}


# ---------------------------------------------------------------------------------------------------- markdown


def signed(value: Any) -> str:
    if value is None:
        return ""
    return f"{100 * value.value:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def percent(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Interval):
        return f"{100 * value.value:.1f} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
    return f"{100 * value:.1f}"


def plain_number(digits: int) -> Callable[[Any], str]:
    return lambda value: "" if value is None else f"{value:,.{digits}f}"


Shown = tuple[str, str, Callable[[Any], str]]
SHARED: tuple[Shown, ...] = (
    ("kept", "kept", plain_number(0)),
    ("flips left", "flipped_kept", plain_number(0)),
    ("lr", "learning_rate", lambda v: "" if v is None else f"{v:g}"),
    ("epochs", "epochs", lambda v: "" if v is None else f"{v:g}"),
    ("minutes", "minutes", plain_number(2)),
)
ANSWERS: tuple[Shown, ...] = (
    ("satisfied, %", "satisfied", percent),
    ("minus plain", "satisfied_to_plain", signed),
    ("minus random", "satisfied_to_random", signed),
    ("minus plain SimPO", "satisfied_to_simpo", signed),
    ("gain recovered, %", "recovered", percent),
    ("greedy, %", "greedy", percent),
    ("wins against plain, %", "wins_against_plain", percent),
    ("reward accuracy, %", "reward_accuracy", percent),
    ("minus plain", "accuracy_to_plain", signed),
    ("length-matched, %", "length_matched", percent),
    ("tokens", "tokens", plain_number(1)),
    ("KL", "kl", plain_number(2)),
    *SHARED,
)
PAIRS: tuple[Shown, ...] = (
    ("reward accuracy, %", "reward_accuracy", percent),
    ("minus plain", "accuracy_to_plain", signed),
    ("clear pairs, %", "reward_accuracy_clear", percent),
    ("minus plain", "accuracy_clear_to_plain", signed),
    ("length-matched, %", "length_matched", percent),
    ("minus plain", "matched_to_plain", signed),
    ("gain recovered, %", "accuracy_recovered", percent),
    *SHARED,
)


def tables(found: Sequence[Row], order: Sequence[str]) -> list[str]:
    """Markdown: a table a data set, loss and labels, each with base and oracle, in the order of the plan's arms."""
    lines: list[str] = []
    for data, loss, flips, rate in dict.fromkeys((r["data"], r["loss"], r["flips"], r["rate"]) for r in found):
        own = [
            r
            for r in found
            if r["data"] == data
            and (
                (r["loss"], r["flips"], r["rate"]) == (loss, flips, rate)
                or (r["arm"] == "oracle" and r["loss"] == loss)
                or r["arm"] == "base"
            )
        ]
        if {r["arm"] for r in own} <= {"base", "oracle"}:
            continue  # both stand in every other table
        shown = ANSWERS if all("satisfied" in r for r in own) else PAIRS
        title = "labels as given" if not rate else f"{rate:.0%} flipped ({flips})"
        lines += ["", f"### {data}, {loss}, {title}", ""]
        heads = ("arm", "seeds", *(head for head, _, _ in shown))
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        for row in sorted(own, key=lambda r: order.index(r["arm"])):
            cells = [row["arm"], str(len(row["seeds"])), *(show(row.get(name)) for _, name, show in shown)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines
