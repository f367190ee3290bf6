"""How sequences are laid out for one model: prompts shared in packed rows by some attention, or plain rows.

Chosen by measurement when a model is loaded: what gives the log-probs of plain rows is timed on some of the data's own
trees, and the fastest is taken. A model that cannot share prompts gets plain rows, and the reason is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rmo_train.attention import use_attention
from rmo_train.errors import UserError
from rmo_train.logps import pack_logps, response_logps
from rmo_train.packing import Pack, Tree, distinct_trees, make_packs, make_row_packs, pair_trees, split_tree
from rmo_train.pairs import PairData
from rmo_train.progress import say

# Tokens of a row. On a CPU long rows make the matrix products efficient; a dense mask makes them slow.
CPU_TOKENS_PER_BATCH = {"segments": 1024, "dense": 256, "rows": 1024, "flex": 512}
GPU_TOKENS_PER_BATCH = {"segments": 8192, "dense": 4096, "rows": 8192, "flex": 16384}
CANDIDATES = {"cpu": ("segments", "dense"), "cuda": ("flex", "dense", "segments")}
# Nats per token by which a model that shares prompts may differ from plain rows on random tokens, by "is float32":
# bfloat16's rounding of logits is about 0.05 there, a model that ignores the mask is off by more than its entropy.
PROBE_TOLERANCE = {True: 1e-3, False: 0.25}
SAMPLE_TOKENS = 768
CLEARLY = 1.05  # how much faster another path must be than the first candidate: what two measurements differ by
REPEATS = 3
SAMPLE_PAIRS = 8  # at most, of one prompt

_measured: dict[tuple[Any, ...], dict[str, float]] = {}  # one measurement a process for models of one shape
Sample = Callable[[PairData], list[Tree]]


@dataclass(frozen=True)
class Layout:
    """The attention path (a key of `attention.IMPLEMENTATIONS`), the tokens of a row, and why."""

    path: str
    budget: int
    reason: str

    @property
    def shared(self) -> bool:
        """True where a prompt is computed once for its responses."""
        return self.path != "rows"

    def packs(self, trees: Sequence[Tree], budget: int) -> list[Pack]:
        return make_packs(trees, budget) if self.shared else make_row_packs(trees, budget)

    def tokens(self, trees: Sequence[Tree]) -> int:
        """Tokens that a model computes for `trees`, padding included."""
        if self.shared:
            return sum(p.tokens for t in trees for p in split_tree(t, self.budget))
        return sum(p.size for p in make_row_packs(trees, self.budget))


def choose_layout(
    model: Any,
    data: PairData,
    *,
    attention: str = "auto",
    tokens_per_batch: int | None = None,
    sample: Sample | None = None,
) -> Layout:
    """The fastest layout of `data` that gives the log-probs of plain rows; the model is set to its attention.

    `attention` forces a path (UserError where the model cannot take it), `tokens_per_batch` the tokens of a row.
    `sample`: the trees that paths are timed on; default: as scoring has them, every distinct sequence once.
    """
    device = next(model.parameters()).device
    budgets = CPU_TOKENS_PER_BATCH if device.type == "cpu" else GPU_TOKENS_PER_BATCH

    def layout(path: str, reason: str) -> Layout:
        use_attention(model, path)
        return Layout(path, tokens_per_batch or budgets[path], reason)

    if attention == "rows":
        return layout("rows", "plain rows, as asked")
    tried = CANDIDATES.get(device.type, CANDIDATES["cuda"]) if attention == "auto" else (attention,)
    was_training = model.training
    model.eval()
    try:
        obstacle = _window_obstacle(model, data.longest())
        gaps: dict[str, float] = {}
        for path in () if obstacle else tried:
            gap, problem = _probe(model, path)
            obstacle = obstacle or problem
            if problem is None:
                gaps[path] = gap
        if attention != "auto":
            if attention not in gaps:
                raise UserError(f"--attention {attention}: {obstacle}; use --attention auto or rows")
            return layout(attention, f"{attention} attention, as asked ({_differs(gaps[attention])})")
        if not gaps:
            return layout("rows", f"plain rows: {obstacle}")
        path = _fastest(model, (*gaps, "rows"), data, lambda p: layout(p, ""), sample or sample_trees)
        if path == "rows":
            return layout(path, "plain rows: faster than sharing prompts on this data")
        return layout(path, f"{path} attention, prompts shared ({_differs(gaps[path])})")
    finally:
        model.train(was_training)


def _differs(gap: float) -> str:
    return f"differs from plain rows by {gap:.1g} nats per token"


def _window_obstacle(model: Any, longest: int) -> str | None:
    """A sliding window shorter than the data: sharing is ruled out by the config."""
    window = getattr(model.config, "sliding_window", None)
    if window and window < longest and getattr(model.config, "use_sliding_window", True):
        return f"the model's sliding window ({window}) is shorter than the data ({longest})"
    return None


def _probe(model: Any, path: str) -> tuple[float, str | None]:
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
            return float("inf"), f"the model takes no packed rows ({type(e).__name__}: {str(e).splitlines()[0]})"
    lengths = torch.tensor([len(r) for t in trees for r in t.responses], device=plain.device)  # type: ignore[union-attr]
    gap = float(((shared - plain) / lengths).square().mean().sqrt())
    if not gap <= PROBE_TOLERANCE[next(model.parameters()).dtype == torch.float32]:
        return gap, f"packed rows differ by {gap:.2g} nats per token on this architecture"
    return gap, None


def _fastest(model: Any, paths: Sequence[str], data: PairData, layout_of: Any, sample: Sample) -> str:
    """The first path unless another one is clearly faster on a sample of the data; once a process for a shape."""
    parameter = next(model.parameters())
    size = sum(p.numel() for p in model.parameters())
    shape = (type(model), size, parameter.dtype, parameter.device, data.folder, sample.__name__)
    rates = _measured.setdefault(shape, {})
    trees = sample(data)
    slots = 1 + max(o for t in trees for o in t.owners)
    for path in [p for p in paths if p not in rates]:
        layout = layout_of(path)
        seconds = []
        for _ in range(REPEATS):  # the first one warms up
            start = time.perf_counter()
            response_logps(model, trees, slots, layout)
            seconds.append(time.perf_counter() - start)
        rates[path] = slots / min(seconds)
        say(f"attention: {path} measured at {rates[path]:,.1f} sequences/s")
    best = max(paths, key=lambda p: rates[p])
    return paths[0] if rates[best] < CLEARLY * rates[paths[0]] else best


def sample_pairs(data: PairData) -> list[Tree]:
    """Trees of some SAMPLE_TOKENS tokens as training has them, a pair each: pairs at random."""
    rows = np.random.default_rng(0).permutation(len(data))[:SAMPLE_TOKENS]
    tokens = np.cumsum([t.tokens for t in pair_trees(data, rows)])
    return pair_trees(data, rows[: 1 + int(np.searchsorted(tokens, SAMPLE_TOKENS))])


def sample_trees(data: PairData) -> list[Tree]:
    """Trees of some SAMPLE_TOKENS tokens from all over the data, slots numbered from 0: whole prompts at random."""
    order = np.random.default_rng(0).permutation(len(data))
    chosen: dict[int, None] = {}
    tokens = 0
    for at in order:
        if tokens >= SAMPLE_TOKENS:
            break
        if at in chosen:
            continue
        rows = np.flatnonzero(data.groups == data.groups[at])[:SAMPLE_PAIRS]
        chosen |= dict.fromkeys(rows.tolist())
        tokens += sum(t.tokens for t in distinct_trees(data, rows)[0])
    return distinct_trees(data, list(chosen))[0]
