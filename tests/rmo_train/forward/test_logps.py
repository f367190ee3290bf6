"""The packed forward equals the plain padded one, values and gradients, whatever the lengths and the packing."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
)

from rmo_train.forward.attention import use_attention
from rmo_train.forward.layout import Layout
from rmo_train.forward.logps import pack_logps, response_logps
from rmo_train.forward.packing import Tree, make_packs, plain_trees

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "llama": LlamaConfig(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=None),
    "gemma": GemmaConfig(**GROUPED),
    "gemma2": Gemma2Config(**GROUPED, query_pre_attn_scalar=8, sliding_window=4096),
    "gpt-neox": GPTNeoXConfig(**SMALL),
}
# Gemma 2 caps its attention scores, which segment attention refuses.
PATHS = [(f, p) for f in FAMILIES for p in ("segments", "dense", "rows") if (f, p) != ("gemma2", "segments")]

SHAPES = st.lists(
    st.tuples(st.integers(1, 24), st.lists(st.integers(1, 30), min_size=1, max_size=4)), min_size=1, max_size=5
)


@cache
def model_of(family: str):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(FAMILIES[family]).eval()


def trees_of(shapes, seed: int = 0) -> tuple[list[Tree], int]:
    rng = np.random.default_rng(seed)
    trees, slot = [], 0
    for prompt, lengths in shapes:
        responses = tuple(rng.integers(0, 300, n).astype(np.int32) for n in lengths)
        trees.append(
            Tree(rng.integers(0, 300, prompt).astype(np.int32), responses, tuple(range(slot, slot + len(lengths))))
        )
        slot += len(lengths)
    return trees, slot


def some_trees(seed: int = 0) -> tuple[list[Tree], int]:
    return trees_of([(5, (7, 3)), (9, (1, 12, 4)), (2, (6,)), (12, (20, 2))], seed)


def padded_logps(model, trees: list[Tree], slots: int) -> torch.Tensor:
    """The textbook way: every prompt + response as a right-padded row, log-softmax over all positions."""
    use_attention(model, "rows")
    rows = [
        (np.concatenate([t.prompt, r]), len(t.prompt), o)
        for t in trees
        for r, o in zip(t.responses, t.owners, strict=True)
    ]
    width = max(len(ids) for ids, _, _ in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, (ids, _, _) in enumerate(rows):
        tokens[i, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
        mask[i, : len(ids)] = 1
    logps = model(input_ids=tokens, attention_mask=mask).logits.float().log_softmax(-1)
    result = [torch.zeros(())] * slots
    for i, (ids, start, owner) in enumerate(rows):
        result[owner] = sum(logps[i, at - 1, ids[at]] for at in range(start, len(ids)))  # type: ignore[assignment]
    return torch.stack(result)


@pytest.mark.parametrize(("family", "path"), PATHS)
@settings(deadline=None, max_examples=12)
@given(SHAPES, st.integers(8, 200))
def test_packed_rows_equal_the_padded_forward(family: str, path: str, shapes, budget: int):
    model = model_of(family)
    trees, slots = trees_of(shapes)
    with torch.inference_mode():
        expected = padded_logps(model, trees, slots).numpy()
    use_attention(model, path)
    np.testing.assert_allclose(response_logps(model, trees, slots, Layout(path, budget)), expected, atol=1e-4)


@pytest.mark.parametrize(("family", "path"), PATHS)
@settings(deadline=None, max_examples=4)
@given(SHAPES, st.integers(8, 200))
def test_gradients_of_packed_rows_equal_those_of_the_padded_forward(family: str, path: str, shapes, budget: int):
    model = model_of(family)
    trees, slots = trees_of(shapes, 1)
    upstream = torch.linspace(-1, 1.5, slots)

    def gradient() -> torch.Tensor:
        found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        return found

    (padded_logps(model, trees, slots) * upstream).sum().backward()
    expected = gradient()
    use_attention(model, path)
    for pack in Layout(path, budget).packs(trees, budget):
        (pack_logps(model, pack, slots) * upstream).sum().backward()
    assert (gradient() - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_flex_attention_equals_the_padded_forward(family: str):
    model = model_of(family)
    trees, slots = some_trees()
    with torch.inference_mode():
        expected = padded_logps(model, trees, slots).numpy()
    use_attention(model, "flex")
    with torch.compiler.set_stance("force_eager"):  # compiled for a CPU it takes minutes; the mask is the same
        found = response_logps(model, trees, slots, Layout("flex", 64))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_running_out_of_memory_halves_the_budget_and_loses_nothing(monkeypatch):
    model = model_of("llama")
    use_attention(model, "segments")
    trees, slots = some_trees()
    layout = Layout("segments", 1000)
    expected = response_logps(model, trees, slots, layout)
    sizes = []

    def tight(model, pack, slots):
        sizes.append(pack.size)
        if pack.size > 40:
            raise torch.OutOfMemoryError("too much")
        return pack_logps(model, pack, slots)

    monkeypatch.setattr("rmo_train.forward.logps.pack_logps", tight)
    np.testing.assert_allclose(response_logps(model, trees, slots, layout), expected, atol=1e-5)
    assert max(sizes) > 40 >= sizes[-1]


def test_packs_own_disjoint_slots():
    trees, slots = some_trees()
    owned = [set(p.owners) for p in make_packs(trees, 32)]
    assert sum(len(o) for o in owned) == slots == len(set().union(*owned))
    assert len(plain_trees(trees)) == slots
