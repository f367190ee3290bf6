"""How sequences are laid out for one model: prompts shared in packed rows by some attention, or plain rows.

Chosen by rule from the device and the lengths of the data, never by a clock: the same command gives the same numbers.
A policy takes the path that its references were computed by. Of the model it is only asked what it can: a path that
does not give the log-probs of plain rows on some random tokens is left out, and the reason is said.
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

# Tokens of a row. On a CPU long rows make the matrix products efficient; a dense mask makes them slow.
CPU_TOKENS_PER_BATCH = {"segments": 1024, "dense": 256, "rows": 1024, "flex": 512}
GPU_TOKENS_PER_BATCH = {"segments": 8192, "dense": 4096, "rows": 8192, "flex": 16384}
# Least share of the tokens of plain rows that sharing prompts must save. A dense mask on a CPU took 0.81 or less of the
# time of plain rows where 26% or more were saved, 0.98 and 1.07 of it where 3% and 2% were: a tenth lies between
# (benchmarks/results/paths.json). FlexAttention on an H200 did 1.6 times the pairs of plain rows a second where 18%
# were saved (benchmarks/results/gpu-day/score-smollm2.json); less was not measured.
LEAST_SAVED = {"dense": 0.1, "flex": 0.15}
# Tokens of a pair: FlexAttention skips what is hidden in blocks of 128 by 128, so shorter trees gain nothing by it.
FLEX_BLOCK = 128
# Nats per token by which a model that shares prompts may differ from plain rows on random tokens, by "is float32":
# bfloat16's rounding of logits is about 0.05 there, a model that ignores the mask is off by more than its entropy.
PROBE_TOLERANCE = {True: 1e-3, False: 0.25}


@dataclass(frozen=True)
class Obstacle:
    """What keeps a model from a path: one of three."""

    window: int | None = None  # its sliding window is shorter than the data, whose longest pair has `longest` tokens
    longest: int = 0
    error: str | None = None  # it takes no packed rows
    gap: float = 0.0  # it differs there by so many nats per token from plain rows


@dataclass(frozen=True)
class Choice:
    """What a path was chosen by."""

    lengths: Lengths
    asked: bool  # by the user
    followed: bool  # the references were computed by it, and the rule alone would have taken another
    gap: float  # nats per token from plain rows, on random tokens
    obstacle: Obstacle | None  # the first one met
    reference: tuple[str | None, str | None]  # the path and the device that the references were computed by


@dataclass(frozen=True)
class Layout:
    """The attention path (a key of `attention.IMPLEMENTATIONS`), the tokens of a row, the kind of device, and what the
    path was chosen by (None: it was not chosen, it is taken).
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
        """By how many nats per token the path differs from plain rows on random tokens, where it was probed."""
        return self.choice.gap if self.choice is not None else 0.0

    @property
    def recorded(self) -> str:
        """The path and why, with its gap, for manifests."""
        return f"{self.reason}; {self.gap:.1g} nats per token from plain rows"

    @property
    def shared(self) -> bool:
        """True where a prompt is computed once for its responses."""
        return self.path != "rows"

    @property
    def computed_by(self) -> dict[str, str]:
        """What a manifest says of how log-probs were computed; `choose_layout` reads it in a reference."""
        return {"attention": self.path, "device": self.device}

    def packs(self, trees: Sequence[Tree], budget: int) -> list[Pack]:
        return make_packs(trees, budget) if self.shared else make_row_packs(trees, budget)

    def tokens(self, trees: Sequence[Tree]) -> int:
        """Tokens that a model computes for `trees`, padding included."""
        if self.shared:
            return sum(p.tokens for t in trees for p in split_tree(t, self.budget))
        return sum(p.size for p in make_row_packs(trees, self.budget))


@dataclass(frozen=True)
class Lengths:
    """What the rule knows of the data: mean tokens of a pair whose prompt is shared, and the share of the tokens of
    plain rows that this saves.
    """

    pair: float
    saved: float

    @classmethod
    def of(cls, data: PairData) -> Lengths:
        """Of pairs as training has them. What scoring shares beyond a pair saves more, and changes no path."""
        prompts, responses = data.prompt.lengths, data.chosen.lengths + data.rejected.lengths - 2
        plain = int((2 * prompts + responses).sum())
        return cls(float((prompts + responses).mean()), int(prompts.sum()) / plain)


@dataclass(frozen=True)
class Workload:
    """What a layout is chosen by: the lengths of the data, and how their references were computed."""

    lengths: Lengths
    longest: int  # tokens of the longest prompt + response
    reference: Reference

    @classmethod
    def of(cls, data: PairData) -> Workload:
        return cls(Lengths.of(data), data.longest(), data.reference)


def preferred(device: str, lengths: Lengths) -> tuple[str, ...]:
    """Attention paths in the order in which they are to be tried on a `device` ("cpu", "cuda", ...), plain rows last.

    On a CPU time goes with the tokens computed. By segments nothing else is, and plain rows were faster at none of the
    lengths tried (2% to 52% of the tokens saved, answers of 5 to 400 tokens; benchmarks/results/paths.json). On a GPU
    small kernels leave the device idle: a dense mask and segments were slower there than plain rows, and FlexAttention
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

    `attention` forces a path (UserError where the model cannot take it). "auto" is the path that the data's references
    were computed by on this kind of device, else the first of `preferred` that gives the log-probs of plain rows.
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
    """The first path that gives the log-probs of plain rows, by how many nats per token it differs from them, and what
    speaks against those before it.
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
    """A sliding window shorter than the data: sharing is ruled out by the config."""
    window = getattr(model.config, "sliding_window", None)
    if window and window < longest and getattr(model.config, "use_sliding_window", True):
        return Obstacle(window=window, longest=longest)
    return None


def _probe(model: Any, path: str) -> tuple[float, Obstacle | None]:
    """Nats per token between this path and plain rows on two small random trees, and what speaks against it.

    Recurrent layers, absolute positions, masks that are ignored and attention that a path cannot do are found here.
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
