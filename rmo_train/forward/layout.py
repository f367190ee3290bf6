"""The layout of sequences for one model: packed rows with shared prompts under some attention, or plain rows.

It is chosen by a rule from the device and the lengths of the data, not by timing, so the same command gives the same
numbers. A policy uses the path by which its references were computed. A path that does not reproduce the log-probs of
plain rows on random tokens is not used, and the reason is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rmo_train.console.errors import UserError
from rmo_train.data.pairs import PairData
from rmo_train.forward.attention import use_attention
from rmo_train.forward.logps import pack_logps
from rmo_train.forward.packing import Pack, Tree, make_packs, make_row_packs, split_tree
from rmo_train.report import layout_line, obstacle_line
from rmo_train.store.manifests import Reference

# Tokens per row. On a CPU, long rows make matrix products efficient, but dense masks slow.
CPU_TOKENS_PER_BATCH = {"segments": 1024, "dense": 256, "rows": 1024, "flex": 512}
GPU_TOKENS_PER_BATCH = {"segments": 8192, "dense": 4096, "rows": 8192, "flex": 16384}
# Rows that a prompt with all its answers may fill on a CPU before it is repeated: segments cost nothing where they do
# not attend, and a repeated prompt is computed twice.
WHOLE = 4
# Minimum share of tokens that sharing prompts must save, relative to plain rows. On a CPU, a dense mask took at most
# 0.81 of the time of plain rows when 26% or more were saved, and 0.98 and 1.07 when 3% and 2% were; 10% lies between
# (benchmarks/results/paths.json). On an H200, FlexAttention scored 1.6 times as many pairs per second as plain rows
# when 18% were saved (benchmarks/results/gpu-day/score-smollm2.json); smaller savings were not measured.
LEAST_SAVED = {"dense": 0.1, "flex": 0.15}
# Tokens per pair: FlexAttention skips masked blocks of 128 by 128, so shorter trees gain nothing.
FLEX_BLOCK = 128
# Maximum difference from plain rows on random tokens in nats per token, by "is float32". bfloat16's rounding of logits
# is about 0.05; a model that ignores the mask differs by more than its entropy.
PROBE_TOLERANCE = {True: 1e-3, False: 0.25}


@dataclass(frozen=True)
class Obstacle:
    """Why a model cannot use a path: one of three reasons."""

    window: int | None = None  # its sliding window is shorter than the data, whose longest pair has `longest` tokens
    longest: int = 0
    error: str | None = None  # it does not accept packed rows
    gap: float = 0.0  # its difference from plain rows, nats per token


@dataclass(frozen=True)
class Choice:
    """Why a path was chosen."""

    lengths: Lengths
    asked: bool  # by the user
    followed: bool  # the references were computed by it; the rule would have chosen another
    gap: float  # difference from plain rows on random tokens, nats per token
    obstacle: Obstacle | None  # the first one met
    reference: tuple[str | None, str | None]  # path and device of the references


@dataclass(frozen=True)
class Layout:
    """The attention path (a key of `attention.IMPLEMENTATIONS`), the tokens per row, the kind of device, and why the
    path was chosen (None: it was given).
    """

    path: str
    budget: int
    device: str = "cpu"
    choice: Choice | None = None

    @property
    def reason(self) -> str:
        """The path and why, for people."""
        return layout_line(self)

    @property
    def gap(self) -> float:
        """The path's difference from plain rows on random tokens in nats per token, if it was tested."""
        return self.choice.gap if self.choice is not None else 0.0

    @property
    def recorded(self) -> str:
        """The path, why it was chosen, and its gap, for manifests."""
        return f"{self.reason}; {self.gap:.1g} nats per token from plain rows"

    @property
    def shared(self) -> bool:
        """Whether a prompt is computed once for all its responses."""
        return self.path != "rows"

    @property
    def whole(self) -> int:
        """Rows that a prompt with all its answers may fill before it is repeated."""
        return WHOLE if self.path == "segments" and self.device == "cpu" else 1

    @property
    def computed_by(self) -> dict[str, str]:
        """How log-probs were computed, for the manifest; `choose_layout` reads it from a reference."""
        return {"attention": self.path, "device": self.device}

    def packs(self, trees: Sequence[Tree], budget: int) -> list[Pack]:
        return make_packs(trees, budget, self.whole * budget) if self.shared else make_row_packs(trees, budget)

    def tokens(self, trees: Sequence[Tree]) -> int:
        """Tokens that a model computes for `trees`, including padding."""
        if self.shared:
            return sum(p.tokens for t in trees for p in split_tree(t, self.whole * self.budget))
        return sum(p.size for p in make_row_packs(trees, self.budget))


@dataclass(frozen=True)
class Lengths:
    """Lengths of the data that the rule uses: mean tokens per pair with a shared prompt, and the share of tokens saved
    relative to plain rows.
    """

    pair: float
    saved: float

    @classmethod
    def of(cls, data: PairData) -> Lengths:
        """For pairs as in training. Scoring also shares between pairs, which saves more, but changes no path."""
        prompts, responses = data.prompt.lengths, data.chosen.lengths + data.rejected.lengths - 2
        plain = int((2 * prompts + responses).sum())
        return cls(float((prompts + responses).mean()), int(prompts.sum()) / plain)


@dataclass(frozen=True)
class Workload:
    """The inputs of the choice: the lengths of the data, and how their references were computed."""

    lengths: Lengths
    longest: int  # tokens of the longest prompt + response
    reference: Reference

    @classmethod
    def of(cls, data: PairData) -> Workload:
        return cls(Lengths.of(data), data.longest(), data.reference)


def preferred(device: str, lengths: Lengths) -> tuple[str, ...]:
    """Attention paths for a `device` ("cpu", "cuda", ...) in the order to try them, plain rows last.

    On a CPU, time is proportional to the tokens computed. Segments compute the fewest, and plain rows were not faster
    at any length tried (2% to 52% of the tokens saved, answers of 5 to 400 tokens; benchmarks/results/paths.json). On a
    GPU, small kernels leave the device idle: a dense mask and segments were slower than plain rows, and FlexAttention
    was faster.
    """
    if device == "cpu":
        return ("segments", "dense", "rows") if lengths.saved >= LEAST_SAVED["dense"] else ("segments", "rows")
    if lengths.saved >= LEAST_SAVED["flex"] and lengths.pair >= FLEX_BLOCK:
        return ("flex", "rows")
    return ("rows",)


def choose_layout(
    model: Any, work: Workload, *, attention: str = "auto", tokens_per_batch: int | None = None
) -> Layout:
    """The layout of `work` for `model`, which is set to its attention: by model, device, lengths and references alone.

    `attention` forces a path (UserError if the model cannot use it). "auto" is the path of the data's references if
    they were computed on this kind of device, otherwise the first of `preferred` that reproduces plain rows.
    `tokens_per_batch`: the tokens of a row; default: by device and path.
    """
    device = next(model.parameters()).device.type
    budgets = CPU_TOKENS_PER_BATCH if device == "cpu" else GPU_TOKENS_PER_BATCH
    lengths, recorded = work.lengths, work.reference.attention
    here = recorded if work.reference.device == device else None
    by_rule = preferred(device, lengths)
    tried = dict.fromkeys([here or by_rule[0], *by_rule] if attention == "auto" else [attention])
    path, gap, obstacles = _first_that_works(model, list(tried), work.longest)
    if path is None:
        raise UserError(f"--attention {attention}: {obstacle_line(obstacles[0])}; use --attention auto or rows")
    use_attention(model, path)
    choice = Choice(
        lengths,
        asked=attention != "auto",
        followed=path == here != by_rule[0],
        gap=gap,
        obstacle=next(iter(obstacles), None),
        reference=(recorded, work.reference.device),
    )
    return Layout(path, tokens_per_batch or budgets[path], device, choice)


def _first_that_works(model: Any, paths: Sequence[str], longest: int) -> tuple[str | None, float, list[Obstacle]]:
    """The first path that reproduces the log-probs of plain rows, its difference from them in nats per token, and the
    obstacles of the paths before it.
    """
    window = _window_obstacle(model, longest)
    obstacles: list[Obstacle] = []
    was_training = model.training
    model.eval()
    try:
        for path in paths:
            gap, obstacle = (0.0, None) if path == "rows" else (np.inf, window) if window else _probe(model, path)
            if obstacle is None:
                return path, gap, obstacles
            obstacles.append(obstacle)
    finally:
        model.train(was_training)
    return None, np.inf, obstacles


def _window_obstacle(model: Any, longest: int) -> Obstacle | None:
    """A sliding window shorter than the data: the config rules out sharing."""
    window = getattr(model.config, "sliding_window", None)
    if window and window < longest and getattr(model.config, "use_sliding_window", True):
        return Obstacle(window=window, longest=longest)
    return None


def _probe(model: Any, path: str) -> tuple[float, Obstacle | None]:
    """This path's difference from plain rows on two small random trees in nats per token, and its obstacle if any.

    Finds recurrent layers, absolute positions, ignored masks and unsupported attention.
    """
    rng = np.random.default_rng(0)
    highest = min(model.config.vocab_size, 1000)

    def ids(n: int) -> np.ndarray:
        return rng.integers(0, highest, n).astype(np.int32)

    trees = [Tree(ids(7), (ids(5), ids(9)), (0, 1)), Tree(ids(4), (ids(6), ids(3)), (2, 3))]
    with torch.inference_mode():
        use_attention(model, "rows")
        plain = sum(pack_logps(model, p, 4) for p in make_row_packs(trees, 1))
        try:
            use_attention(model, path)
            shared = sum(pack_logps(model, p, 4) for p in make_packs(trees, 64))
        except (ValueError, TypeError, RuntimeError, IndexError, ImportError) as e:
            return float("inf"), Obstacle(error=f"{type(e).__name__}: {str(e).splitlines()[0]}")
    lengths = torch.tensor([len(r) for t in trees for r in t.responses], device=plain.device)  # type: ignore[union-attr]
    gap = float(((shared - plain) / lengths).square().mean().sqrt())
    if not gap <= PROBE_TOLERANCE[next(model.parameters()).dtype == torch.float32]:
        return gap, Obstacle(gap=gap)
    return gap, None
