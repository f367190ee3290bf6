"""How well a suspicion finds wrong labels: pure functions of arrays, against a truth that no stage has read."""

from __future__ import annotations

from typing import Any

import numpy as np

from rmo_train.evaluation.metrics import Interval, bootstrap, length_strata

DRAWS = 200  # bootstrap samples


def auroc(wrong: np.ndarray, suspicion: np.ndarray) -> float:
    """P(a wrong pair is more suspect than a right one), ties a half; NaN where one kind is missing."""
    return _share(*_concordant(wrong, suspicion))


def length_strata_of(chosen_tokens: np.ndarray, rejected_tokens: np.ndarray) -> np.ndarray:
    """Stratum of each pair, int [n]: which answer is longer x terciles of |difference in tokens|; -1 where equal."""
    size, longer = length_strata(chosen_tokens, rejected_tokens)
    return np.where(size < 0, -1, 2 * size + longer)


def matched_auroc(wrong: np.ndarray, suspicion: np.ndarray, strata: np.ndarray) -> float:
    """AUROC among pairs of one stratum only, averaged over strata with weights n+ x n-: length cannot help it."""
    counted = [_concordant(wrong[strata == s], suspicion[strata == s]) for s in np.unique(strata)]
    return _share(sum(c[0] for c in counted), sum(c[1] for c in counted))


def _concordant(wrong: np.ndarray, suspicion: np.ndarray) -> tuple[float, float]:
    """Of all (wrong, right) couples: how many are ordered rightly, and how many there are."""
    known = np.isfinite(suspicion)
    high, low = suspicion[known & wrong], np.sort(suspicion[known & ~wrong])
    below = np.searchsorted(low, high, side="left")
    ties = np.searchsorted(low, high, side="right") - below
    return float((below + 0.5 * ties).sum()), float(len(high) * len(low))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def matched_difference(
    wrong: np.ndarray, one: np.ndarray, other: np.ndarray, strata: np.ndarray, groups: np.ndarray
) -> dict[str, float]:
    """Length-matched AUROC of `one` less that of `other`, both on the same draws of prompts."""
    found: Interval = bootstrap(
        lambda r: matched_auroc(wrong[r], one[r], strata[r]) - matched_auroc(wrong[r], other[r], strata[r]),
        groups,
        draws=DRAWS,
    )
    return vars(found)


def precision_at(wrong: np.ndarray, suspicion: np.ndarray, share: float) -> float:
    """Share of wrong pairs among the most suspect `share` of all."""
    n = round(share * len(wrong))
    return float(wrong[np.argsort(-suspicion, kind="stable")[:n]].mean()) if n else float("nan")


def average_precision(wrong: np.ndarray, suspicion: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    known = np.isfinite(suspicion)
    return float(average_precision_score(wrong[known], suspicion[known])) if wrong[known].any() else float("nan")


def calibration_error(wrong: np.ndarray, probability: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of a probability of being wrong: mean |share wrong - mean probability| over bins of
    equal numbers of pairs."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(p) * abs(wrong[p].mean() - probability[p].mean()) for p in parts) / len(order))


def calibration(wrong: np.ndarray, probability: np.ndarray, bins: int = 10) -> list[dict[str, float]]:
    """Of bins of equal numbers of pairs: the mean probability of being wrong, and the share that is."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [{"said": float(probability[p].mean()), "true": float(wrong[p].mean())} for p in parts]


def brier(wrong: np.ndarray, probability: np.ndarray) -> float:
    """Mean squared error of a probability of being wrong."""
    return float(np.mean((probability - wrong) ** 2))


def figures(
    wrong: np.ndarray,
    suspicion: np.ndarray,
    strata: np.ndarray,
    groups: np.ndarray,
    rate: float,
    *,
    intervals: bool = True,
) -> dict[str, Any]:
    """Every figure of one rule on one set of pairs; intervals by bootstrap over prompts."""

    def value(statistic: Any) -> dict[str, float]:
        if not intervals:
            return {"value": statistic(np.arange(len(wrong)))}
        found: Interval = bootstrap(statistic, groups, draws=DRAWS)
        return vars(found)

    return {
        "matched_auroc": value(lambda r: matched_auroc(wrong[r], suspicion[r], strata[r])),
        "auroc": value(lambda r: auroc(wrong[r], suspicion[r])),
        "average_precision": average_precision(wrong, suspicion),
        "precision_at_rate": precision_at(wrong, suspicion, rate),
        "pairs": len(wrong),
        "wrong": int(wrong.sum()),
    }
