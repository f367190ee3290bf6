"""The packed forward equals the plain padded one, for values and for gradients, on several model families."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
)

from rmo_train.logps import Layout, choose_layout, pack_logps, response_logps
from rmo_train.packing import Tree, make_packs, plain_trees

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
FAMILIES = {
    "llama": LlamaConfig(**SMALL, num_key_value_heads=2),
    "qwen2": Qwen2Config(**SMALL, num_key_value_heads=2),
    "mistral": MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=None),
    "gemma2": Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, query_pre_attn_scalar=8, sliding_window=4096),
    "gpt-neox": GPTNeoXConfig(**SMALL),
}


def model_of(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def some_trees(seed: int = 0) -> tuple[list[Tree], int]:
    rng = np.random.default_rng(seed)
    trees, slot = [], 0
    for prompt, lengths in [(5, (7, 3)), (9, (1, 12, 4)), (2, (6,)), (12, (20, 2))]:
        responses = tuple(rng.integers(0, 300, n).astype(np.int32) for n in lengths)
        trees.append(
            Tree(rng.integers(0, 300, prompt).astype(np.int32), responses, tuple(range(slot, slot + len(lengths))))
        )
        slot += len(lengths)
    return trees, slot


def padded_logps(model, trees: list[Tree], slots: int) -> np.ndarray:
    """The textbook way: every prompt + response as a right-padded row, log-softmax over all positions."""
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
    with torch.inference_mode():
        logps = model(input_ids=tokens, attention_mask=mask).logits.float().log_softmax(-1)
    result = np.zeros(slots)
    for i, (ids, start, owner) in enumerate(rows):
        result[owner] = sum(float(logps[i, at - 1, ids[at]]) for at in range(start, len(ids)))
    return result


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("budget", [16, 64, 1000])
def test_packed_rows_equal_the_padded_forward(family: str, budget: int):
    model = model_of(FAMILIES[family])
    trees, slots = some_trees()
    layout = choose_layout(model, 64)
    assert layout.shared, layout.reason
    packed = response_logps(model, trees, slots, layout, budget)
    np.testing.assert_allclose(packed, padded_logps(model, trees, slots), atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_packed_rows_equal_those_of_plain_rows(family: str):
    model = model_of(FAMILIES[family])
    trees, slots = some_trees(1)
    upstream = torch.linspace(-1, 1, slots)
    gradients = []
    for layout in (Layout(True, ""), Layout(False, "")):
        model.zero_grad()
        for pack in layout.packs(trees, 64):
            (pack_logps(model, pack, slots) * upstream).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[1].norm()


def test_a_model_with_absolute_positions_or_no_mask_falls_back_and_says_so():
    model = model_of(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4))
    layout = choose_layout(model, 64)
    trees, slots = some_trees()
    np.testing.assert_allclose(
        response_logps(model, trees, slots, layout, 64), padded_logps(model, trees, slots), atol=1e-4
    )
    assert layout.reason


def test_a_sliding_window_shorter_than_the_data_means_plain_rows():
    model = model_of(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=8))
    layout = choose_layout(model, 64)
    assert not layout.shared
    assert "sliding window (8)" in layout.reason
    trees, slots = some_trees()
    np.testing.assert_allclose(
        response_logps(model, trees, slots, layout, 64), padded_logps(model, trees, slots), atol=1e-4
    )


def test_running_out_of_memory_halves_the_budget_and_loses_nothing(monkeypatch):
    model = model_of(FAMILIES["llama"])
    trees, slots = some_trees()
    expected = response_logps(model, trees, slots, Layout(True, ""), 1000)
    sizes = []

    def tight(model, pack, slots):
        sizes.append(len(pack.tokens))
        if len(pack.tokens) > 40:
            raise torch.OutOfMemoryError("too much")
        return pack_logps(model, pack, slots)

    monkeypatch.setattr("rmo_train.logps.pack_logps", tight)
    np.testing.assert_allclose(response_logps(model, trees, slots, Layout(True, ""), 1000), expected, atol=1e-5)
    assert max(sizes) > 40 >= sizes[-1]


def test_packs_own_disjoint_slots():
    trees, slots = some_trees()
    owned = [set(p.owners) for p in make_packs(trees, 32)]
    assert sum(len(o) for o in owned) == slots == len(set().union(*owned))
    assert len(plain_trees(trees)) == slots
