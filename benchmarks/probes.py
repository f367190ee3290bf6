"""Other heads on the probe's hidden states, beside the probe: a classifier of single answers, and gated tokens.

    python -m benchmarks.probes --data TRAIN --gold GOLD --work FOLDER [--draws 10]

On the judged pairs that choices are made on (`tuning` of benchmarks/plan.yaml: prompts 116 to 230), some labels flipped
at random. Each head is cross-fitted over the product's folds, and judged alone and in the posterior:

- differences: the product's probe, a logistic regression on differences of mean states
- answers: a logistic regression on mean states of single answers, chosen or not (Sun et al. 2024, arXiv 2411.04991)
- projected: `differences` on fewer numbers, those that `gated` reads of every token
- gated: an answer's reward is the mean of its tokens' rewards, each weighed by a sigmoid of the token's own states
  (ELHSR, Guo et al. 2025, arXiv 2505.12225), trained on pairs

FOLDER is that of benchmarks.detect: what is scored there is not scored again. Token states are read by a forward pass
of their own, and kept there (1.2 GB). Writes benchmarks/results/probes.json.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.cells import Cell, DataSet, flipped, folds_of, members, scored, signs, under_labels
from benchmarks.detection import auroc, calibration_error, length_strata_of, matched_auroc, precision_at
from benchmarks.environment import environment
from rmo_curate.score import logistic
from rmo_curate.score.probe import RIDGES, cross_fitted
from rmo_train.console.progress import progress
from rmo_train.data.pairs import PairData, open_pairs
from rmo_train.data.ragged import Ragged
from rmo_train.forward.layout import Workload
from rmo_train.forward.packing import Pack, distinct_trees
from rmo_train.store.files import write_json

HERE = Path(__file__).parent
RATES = (0.2, 0.4)
BETWEEN, WITHIN = 128, 64  # directions that tokens are projected on: what tells answers apart, and tokens of one answer
EVERY = 8  # of an answer's tokens, the ones that the second are found on
GATE_RIDGES = (3.0, 30.0, 300.0)
ITERATIONS = 40  # of L-BFGS
FIRST = 0.05  # of the pairs, the most suspect


def read_tokens(data: PairData, rows: np.ndarray, reference: dict[str, Any], cache: Path) -> tuple[Ragged, np.ndarray]:
    """States of every token of the distinct answers of the pairs `rows`, float16 [tokens, depths x width] cut into
    answers, and which answers a pair has, int64 [len(rows), 2] (chosen, rejected)."""
    from rmo_curate.score.engines.transformers import TransformersEngine
    from rmo_train.forward.logps import over_packs

    trees, slots = distinct_trees(data, rows)
    lengths = {slot: len(r) for tree in trees for slot, r in zip(tree.owners, tree.responses, strict=True)}
    if not cache.exists():
        engine, found = TransformersEngine(reference["name"], reference["dtype"], Workload.of(data)), {}
        with progress("read token states", engine.layout.tokens(trees), "token") as bar:
            for pack, states in over_packs(lambda p: pack_tokens(engine.model, p), trees, engine.layout, bar.advance):
                found.update({slot: states[pack.owners == slot] for slot in np.unique(pack.owners).tolist()})
        unfinished = cache.with_suffix(".unfinished.npy")
        np.save(unfinished, np.concatenate([found[slot] for slot in range(len(lengths))]))
        unfinished.rename(cache)
    values = np.load(cache, mmap_mode="r")
    assert len(values) == sum(lengths.values()), f"{cache} is of other pairs: delete it"
    return Ragged.from_lengths(values, np.array([lengths[slot] for slot in range(len(lengths))])), slots


def pack_tokens(model: Any, pack: Pack) -> np.ndarray:
    """The states that `forward.states.pack_states` averages, of every token: float16 [tokens, depths x width]."""
    from rmo_train.forward.logps import predicting, run_pack
    from rmo_train.forward.states import decoder_layers, layers_read, reducing_outputs

    layers = decoder_layers(model)
    assert layers is not None
    inner = [layers[k - 1] for k in layers_read(len(layers))[:-1]]
    with reducing_outputs(inner, lambda hidden: predicting(hidden, pack)) as found:
        last = run_pack(model, pack).last_hidden_state
    limit = torch.finfo(torch.float16).max
    return torch.cat([*found, predicting(last, pack)], dim=1).clamp(-limit, limit).half().cpu().numpy()


# ---------------------------------------------------------------------------------------------------- the heads


@dataclass(frozen=True)
class Answers:
    """The distinct answers of some pairs, in the unit that the probe brings differences to."""

    states: np.ndarray  # float32 [answers, numbers], means over tokens
    tokens: np.ndarray  # float32 [tokens, fewer numbers]
    lengths: np.ndarray  # int64 [answers]: how many of the tokens are whose, in their order
    slots: np.ndarray  # int64 [pairs, 2] (chosen, rejected)

    def differences(self, wrong: np.ndarray) -> np.ndarray:
        """Of mean states, chosen less rejected where the labels `wrong` are flipped: float32 [pairs, numbers]."""
        return (self.states[self.slots[:, 0]] - self.states[self.slots[:, 1]]) * signs(wrong)

    @classmethod
    def of(cls, tokens: Ragged, slots: np.ndarray) -> Answers:
        means = np.stack([np.float32(tokens[k]).mean(0) for k in range(len(tokens))])
        differences = means[slots[:, 0]] - means[slots[:, 1]]
        unit = (logistic.unit_columns(differences) * np.sqrt(means.shape[1])).astype(np.float32)
        means /= unit
        directions = principal(tokens, means, differences / unit, unit)
        fewer = [(np.float32(tokens[k]) / unit - means.mean(0)) @ directions for k in range(len(tokens))]
        return cls(means, np.concatenate(fewer), tokens.lengths, slots)


def principal(tokens: Ragged, means: np.ndarray, differences: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Orthonormal directions [numbers, fewer] that tokens are projected on, whatever the labels: the principal ones of
    the differences of mean states, and of what is left of tokens less their answer's mean."""
    from sklearn.utils.extmath import randomized_svd

    first = randomized_svd(differences, BETWEEN, random_state=0)[2].T
    some = np.concatenate([np.float32(tokens[k][::EVERY]) / unit - means[k] for k in range(len(tokens))])
    second = randomized_svd(some - some @ first @ first.T, WITHIN, random_state=0)[2].T
    return np.linalg.qr(np.hstack([first, second]))[0]


def by_answer(answers: Answers, wrong: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Held-out log-odds of the labels [pairs] by a classifier of single answers; its ridge is chosen as the probe's."""
    pairs = answers.states[np.where(wrong[:, None], answers.slots[:, ::-1], answers.slots)]
    best, least = np.zeros(len(wrong)), np.inf
    for ridge in sorted(RIDGES, reverse=True):
        margin = np.empty(len(wrong))
        for fold in np.unique(folds):
            asked = folds == fold
            taught = pairs[~asked] - pairs[~asked].mean((0, 1))
            margin[asked] = (pairs[asked, 0] - pairs[asked, 1]) @ logistic.fit(
                np.concatenate([taught[:, 0], -taught[:, 1]]), ridge
            )
        if logistic.least_loss(margin) >= least:
            break
        best, least = margin, logistic.least_loss(margin)
    return best


def by_gates(
    answers: Answers, wrong: np.ndarray, folds: np.ndarray, start: logistic.CrossFit
) -> tuple[np.ndarray, dict[str, float]]:
    """Held-out log-odds of the labels [pairs] by gated tokens, and the loss of held-out labels by the gates' ridge:
    the margins are of the least.

    Fits begin at the heads of `start`, whose ridge rewards keep, with gates half open: at rewards of 0 nothing would
    pull at a gate. Those of all folds and ridges go on at once, each over its own pairs.
    """
    folds_of, ridges = torch.from_numpy(folds.astype(np.int64)), torch.tensor(GATE_RIDGES)
    count = int(folds.max()) + 1
    reward = torch.from_numpy(start.weights.T.astype(np.float32))[:, :, None].repeat(1, 1, len(ridges))
    gate, bias = torch.zeros_like(reward), torch.zeros(count, len(ridges))
    learned = [x.requires_grad_() for x in (reward, gate, bias)]
    sign, taught = torch.from_numpy(signs(wrong)), folds_of[:, None] != torch.arange(count)

    def margins() -> torch.Tensor:
        """Of every pair by every head [pairs, folds, ridges]."""
        flat = (x.reshape(-1, count * len(ridges)) for x in learned)
        return gated_margins(answers, *flat).reshape(-1, count, len(ridges)) * sign[:, :, None]

    def objective() -> torch.Tensor:
        loss = (torch.nn.functional.softplus(-margins()) * taught[:, :, None]).sum()
        loss = loss + start.ridge / 2 * reward.square().sum() + (ridges / 2 * gate.square()).sum()
        optimizer.zero_grad()
        loss.backward()
        return loss

    optimizer = torch.optim.LBFGS(learned, max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")
    optimizer.step(objective)
    with torch.inference_mode():
        held_out = margins()[torch.arange(len(wrong)), folds_of].double().numpy()
    lost = [logistic.least_loss(held_out[:, k]) for k in range(len(ridges))]
    return held_out[:, int(np.argmin(lost))], {f"{ridge:g}": x for ridge, x in zip(GATE_RIDGES, lost, strict=True)}


def gated_margins(answers: Answers, reward: torch.Tensor, gate: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Rewards of the first answers less those of the second [pairs, heads]; reward, gate: [numbers, heads], bias: [1,
    heads]. An answer's reward is sum(g r) / sum(g) over its tokens, g the sigmoid of the gate."""
    tokens, lengths = torch.from_numpy(answers.tokens), torch.from_numpy(answers.lengths)
    opened = torch.sigmoid(tokens @ gate + bias)
    over, under = (torch.segment_reduce(x, "sum", lengths=lengths) for x in (opened * (tokens @ reward), opened))
    first, second = torch.from_numpy(answers.slots).T
    return (over / under)[first] - (over / under)[second]


# ---------------------------------------------------------------------------------------------------- the figures


def fitted(answers: Answers, wrong: np.ndarray, folds: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Held-out log-odds of the labels [pairs] by every head, and what `by_gates` says of its ridges."""
    slots = answers.slots
    means = np.add.reduceat(answers.tokens, np.cumsum(answers.lengths) - answers.lengths) / answers.lengths[:, None]
    ungated = logistic.cross_fit((means[slots[:, 0]] - means[slots[:, 1]]) * signs(wrong), folds, RIDGES)
    gated, losses = by_gates(answers, wrong, folds, ungated)
    margins = {
        "differences": cross_fitted(answers.differences(wrong), folds).margin,
        "answers": by_answer(answers, wrong, folds),
        "projected": ungated.margin,
        "gated": gated,
    }
    return margins, losses


def draw(data: DataSet, rows: np.ndarray, answers: Answers, cell: Cell) -> dict[str, Any]:
    """The figures of every head under one draw of flips."""
    wrong = flipped(cell, data, rows)
    clear = np.array([data.gold[data.rows[i]["id"]]["clarity"] == "clear" for i in rows])
    margins, losses = fitted(answers, wrong, folds_of(data, rows, cell.seed))
    heads = {}
    for head, margin in margins.items():
        scores = under_labels(data, rows, wrong, cell.seed, margin=margin)
        strata = length_strata_of(scores.chosen_tokens, scores.rejected_tokens)
        assert scores.posterior is not None
        heads[head] = {
            "alone": figures(wrong, clear, strata, -margin) | {"held_out_loss": logistic.least_loss(margin)},
            "posterior": figures(wrong, clear, strata, -scores.posterior.log_odds)
            | {"calibration_error": calibration_error(wrong, 1 - scores.posterior.right)},
        }
    return {"rate": cell.rate, "seed": cell.seed, "held_out_loss_by_gate_ridge": losses, "heads": heads}


def figures(wrong: np.ndarray, clear: np.ndarray, strata: np.ndarray, suspicion: np.ndarray) -> dict[str, float]:
    return {
        "matched_auroc": matched_auroc(wrong[clear], suspicion[clear], strata[clear]),
        "auroc": auroc(wrong, suspicion),
        "first": precision_at(wrong, suspicion, FIRST),
    }


def changes(draws: list[dict[str, Any]], head: str, other: str) -> dict[str, dict[str, dict[str, float]]]:
    """Of each figure of `head`: its mean, by how much it is above that of `other` on the same draws, and the standard
    error of that."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for way, names in draws[0]["heads"][head].items():
        found[way] = {}
        for name in names:
            one, two = (np.array([d["heads"][h][way][name] for d in draws]) for h in (head, other))
            error = float(np.std(one - two, ddof=1) / np.sqrt(len(one)))
            found[way][name] = {"mean": float(one.mean()), "change": float((one - two).mean()), "error": error}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the judged training file")
    parser.add_argument("--gold", type=Path, required=True, help="its judge's log-odds")
    parser.add_argument("--work", type=Path, default=Path("detect-work"))
    parser.add_argument("--draws", type=int, default=10)
    given = parser.parse_args()
    plan = yaml.safe_load((HERE / "plan.yaml").read_text(encoding="utf-8"))["detect"]
    part = plan["data"]["tuning"]
    about = environment()
    data = scored(part["file"], given.data, given.gold, plan["model"], given.work)
    rows = members(Cell("tuning", "none", 0.0, 0), data, part)
    folder = given.work / f"{part['file']}-as-given"
    tokens, slots = read_tokens(open_pairs(folder / "run"), rows, data.reference, folder / "tuning-tokens.npy")
    answers = Answers.of(tokens, slots)
    result: dict[str, Any] = {"environment": about, "reference": data.reference, "part": part, "pairs": len(rows)}
    result |= {"answers": len(tokens), "tokens": len(tokens.values), "numbers": answers.tokens.shape[1]}
    result |= {"against_differences": {}, "against_projected": {}, "draws": []}
    for rate in RATES:
        for seed in range(given.draws):
            result["draws"].append(draw(data, rows, answers, Cell("tuning", "uniform", rate, seed)))
            print(f"{rate:.0%}, seed {seed}: done", flush=True)
        draws = [d for d in result["draws"] if d["rate"] == rate]
        result["against_differences"][str(rate)] = {h: changes(draws, h, "differences") for h in draws[0]["heads"]}
        result["against_projected"][str(rate)] = {"gated": changes(draws, "gated", "projected")}
        write_json(HERE / "results" / "probes.json", result)


if __name__ == "__main__":
    main()
