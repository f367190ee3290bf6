"""Win rates with their intervals, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from rmo_train.evaluation.intervals import share_interval, verdict
from rmo_train.evaluation.metrics import Interval, bootstrap
from rmo_train.evaluation.winrate.answers import Pairing
from rmo_train.evaluation.winrate.checkers import Met
from rmo_train.evaluation.winrate.judge import Judged
from rmo_train.evaluation.winrate.length_control import length_controlled

EVEN = 0.5


@dataclass(frozen=True)
class CheckedRates:
    """Shares of answers that meet all constraints of their prompt, for A and B, and A's win rate.

    With several answers per prompt, each of A's is compared with each of B's. As a tie counts one half, the win rate of
    a prompt is (1 + share of A - share of B) / 2. Intervals: 95%, over prompts.
    """

    a: str
    b: str
    prompts: int
    strict_a: Interval
    strict_b: Interval
    loose_a: Interval
    loose_b: Interval
    win_rate: Interval  # by strict shares
    loose_win_rate: Interval
    by_prompt: tuple[Mapping[str, Any], ...]
    method: Literal["checkers"] = "checkers"

    @property
    def verdict(self) -> str:
        """What the win rate says of A."""
        return verdict(self.win_rate, self.prompts, EVEN)


@dataclass(frozen=True)
class JudgedRates:
    """A's win rate by a judge: the mean over pairs of answers of A's share of the two verdicts, ties one half.

    Pairs without two verdicts are left out and counted. Intervals: 95%, over prompts. None: not defined.
    """

    a: str
    b: str
    prompts: int
    pairs: int
    judged: int  # pairs with both verdicts
    judge_url: str
    judge_model: str
    win_rate: Interval | None
    length_controlled: Interval | None
    wins: int  # of A in both orders
    losses: int
    split: int  # at least one tie, or one verdict for each side
    first_shown: float | None  # among verdicts for a side, the share for the answer shown first
    length_a: float  # mean characters
    length_b: float
    unparsable: int  # verdicts
    failed: int
    by_prompt: tuple[Mapping[str, Any], ...]
    method: Literal["judge"] = "judge"

    @property
    def judged_prompts(self) -> int:
        """Prompts with at least one pair that has both verdicts."""
        return len({one["prompt"] for one in self.by_prompt if one["win"] is not None})

    @property
    def sided(self) -> int:
        """Number of verdicts for a side: the denominator of `first_shown`."""
        return sum(verdict in ("A", "B") for one in self.by_prompt for verdict in one["verdicts"])

    @property
    def verdict(self) -> str | None:
        """What the win rate says of A."""
        return None if self.win_rate is None else verdict(self.win_rate, self.judged_prompts, EVEN)


Rates = CheckedRates | JudgedRates


def as_json(rates: Rates) -> dict[str, Any]:
    return asdict(rates)


def from_json(value: Mapping[str, Any]) -> Rates:
    """The inverse of `as_json`."""
    kinds: dict[str, type[CheckedRates] | type[JudgedRates]] = {"checkers": CheckedRates, "judge": JudgedRates}
    fields: dict[str, Any] = {k: Interval(**v) if isinstance(v, dict) else v for k, v in value.items()}
    return kinds[value["method"]](**{**fields, "by_prompt": tuple(value["by_prompt"])})


# ---------------------------------------------------------------------------------------------------- from verdicts


def of_checks(
    a: str, b: str, pairings: Sequence[Pairing], met_a: Sequence[Sequence[Met]], met_b: Sequence[Sequence[Met]]
) -> CheckedRates:
    """Rates from the constraints that A's and B's answers meet."""
    shares = {
        (side, how): np.array([np.mean([all(getattr(m, how)) for m in of]) for of in met])
        for side, met in (("a", met_a), ("b", met_b))
        for how in ("strict", "loose")
    }
    groups = np.arange(len(pairings))

    def rate(values: np.ndarray) -> Interval:
        return share_interval(values, groups)

    strict_wins = (1 + shares["a", "strict"] - shares["b", "strict"]) / 2
    loose_wins = (1 + shares["a", "loose"] - shares["b", "loose"]) / 2
    return CheckedRates(
        a=a,
        b=b,
        prompts=len(pairings),
        strict_a=rate(shares["a", "strict"]),
        strict_b=rate(shares["b", "strict"]),
        loose_a=rate(shares["a", "loose"]),
        loose_b=rate(shares["b", "loose"]),
        win_rate=rate(strict_wins),
        loose_win_rate=rate(loose_wins),
        by_prompt=tuple(
            {"prompt": p.key, "a": [asdict(m) for m in of_a], "b": [asdict(m) for m in of_b], "win": float(win)}
            for p, of_a, of_b, win in zip(pairings, met_a, met_b, strict_wins, strict=True)
        ),
    )


def of_verdicts(a: str, b: str, url: str, model: str, judged: Sequence[Judged]) -> JudgedRates:
    """Rates from a judge's verdicts."""
    whole = [(j, j.win) for j in judged if j.win is not None]
    wins = np.array([win for _, win in whole])
    difference = np.array([j.length_a - j.length_b for j, _ in whole], dtype=float)
    groups = np.array([str(j.key) for j, _ in whole])
    sided = [(v, first) for j in judged for v, first in zip(j.verdicts, ("A", "B"), strict=True) if v in ("A", "B")]
    return JudgedRates(
        a=a,
        b=b,
        prompts=len({str(j.key) for j in judged}),
        pairs=len(judged),
        judged=len(whole),
        judge_url=url,
        judge_model=model,
        win_rate=share_interval(wins, groups) if whole else None,
        length_controlled=_controlled(wins, difference, groups) if whole else None,
        wins=int((wins == 1).sum()),
        losses=int((wins == 0).sum()),
        split=int(((wins > 0) & (wins < 1)).sum()),
        first_shown=float(np.mean([v == first for v, first in sided])) if sided else None,
        length_a=float(np.mean([j.length_a for j in judged])),
        length_b=float(np.mean([j.length_b for j in judged])),
        unparsable=sum(v == "unparsable" for j in judged for v in j.verdicts),
        failed=sum(v == "failed" for j in judged for v in j.verdicts),
        by_prompt=tuple({"prompt": j.key, **_entry(j)} for j in judged),
    )


def _controlled(wins: np.ndarray, difference: np.ndarray, groups: np.ndarray) -> Interval | None:
    rate = bootstrap(lambda rows: length_controlled(wins[rows], difference[rows]), groups)
    return rate if np.isfinite(rate.value) else None


def _entry(judged: Judged) -> dict[str, Any]:
    return {
        "sample": judged.sample,
        "verdicts": list(judged.verdicts),
        "win": judged.win,
        "length_a": judged.length_a,
        "length_b": judged.length_b,
    }
