"""The estimate of memory: its formula by hand, and the length that follows from it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rmo_train.forward import memory
from rmo_train.forward.memory import RowMemory, device_memory, most_tokens, training_state


def config(**fields):
    text = SimpleNamespace(
        **{"hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3} | fields
    )
    text.get_text_config = lambda: text
    return text


def test_the_estimate_by_hand():
    row = RowMemory.of(config(intermediate_size=16), "float32")
    layer = 4 * (6 * 8 + 3 * 8 + 4 * 4 + 4 * 16) + 12 * 8  # q = 4 heads x 2, k = 2 heads x 2
    assert (row.layer, row.hidden) == (layer, 32) == (704, 32)
    assert row.scoring(100) == 1.5 * 704 * 100 + 16 * 100**2
    assert row.training(100, checkpointing=False, device="cuda") == 1.5 * 3 * 704 * 100 + 16 * 100**2
    masks = 16 + 3 * 2 * 4 / 2  # two query heads of a key head, float32, three layers
    assert row.training(100, checkpointing=False, device="cpu") == 1.5 * 3 * 704 * 100 + masks * 100**2
    checkpointed = (1.5 * 2 * 704 + 3 * 32) * 100 + 16 * 100**2
    assert row.training(100, checkpointing=True, device="cuda") == checkpointed
    assert RowMemory.of(config(intermediate_size=16), "bfloat16").layer == 2 * 152 + 96
    assert training_state(10, "float32", lora=False) == 10 * (4 + 4 + 12)
    assert training_state(10, "bfloat16", lora=True) == 20


@pytest.mark.parametrize(
    ("fields", "width"),
    [
        ({"intermediate_size": 16}, 16),
        ({"intermediate_size": None}, 32),  # GPT-2 says nothing of its four times
        ({"intermediate_size": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 10}, 40),
    ],
)
def test_experts_count_as_many_as_see_a_token(fields, width):
    assert RowMemory.of(config(**fields), "float32").layer == 4 * (6 * 8 + 3 * 8 + 4 * 4 + 4 * width) + 12 * 8


def test_the_longest_row_that_fits_is_a_multiple_of_64():
    assert most_tokens(lambda tokens: tokens, 1000) == 15 * 64
    assert most_tokens(lambda tokens: tokens, 15 * 64) == 15 * 64
    assert most_tokens(lambda tokens: tokens, 63) == 0
    assert most_tokens(lambda tokens: tokens**2, 10**12) == 10**6 // 64 * 64


def test_a_container_may_allow_less_than_the_machine_has(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    allowed = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(allowed), str(tmp_path / "absent")))
    allowed.write_text("max\n")
    device, machine = device_memory()
    assert device == "cpu" and machine > 2**30
    allowed.write_text("1000000\n")
    assert device_memory() == ("cpu", 1_000_000)
