"""AdamW with master weights: equal to torch's in float32, and exact under bfloat16 accumulation."""

from __future__ import annotations

import pytest
import torch

from rmo_train.training.optimizer import MasterAdamW, learning_rate_at


def two_layers(dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).to(dtype)


def test_in_float32_it_is_torchs_adamw():
    ours, theirs = two_layers(), two_layers()
    optimizer = MasterAdamW(ours.parameters(), lr=0.01, weight_decay=0.1)
    oracle = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1)
    x = torch.randn(16, 4)
    for step in range(5):
        lr = 0.01 / (step + 1)
        ours(x).square().mean().backward()
        optimizer.step(lr)
        oracle.param_groups[0]["lr"] = lr
        oracle.zero_grad()
        theirs(x).square().mean().backward()
        oracle.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_steps_too_small_for_bfloat16_add_up_in_the_masters():
    weight = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = MasterAdamW([weight], lr=1e-4, weight_decay=0.0)
    for _ in range(100):  # each step of 1e-4 is below bfloat16's spacing of 0.0078 at 1
        (weight.float().sum()).backward()
        optimizer.step(1e-4)
    assert torch.allclose(optimizer.masters[0], torch.full((8,), 0.99), atol=1e-4)
    assert weight[0].item() == pytest.approx(0.99, abs=0.004)


def test_gradients_accumulate_in_float32():
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([weight], lr=1e-4, weight_decay=0.0)
    (weight * 256).sum().backward()
    for _ in range(16):
        (weight * 0.5).sum().backward()  # lost in bfloat16 beside 256
    assert weight.grad is None
    assert optimizer.masters[0].grad.item() == 264.0


def test_clipping_scales_to_the_limit_and_returns_the_norm_before():
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = MasterAdamW([weight], lr=1.0, weight_decay=0.0)
    (weight * torch.tensor([3.0, 4.0])).sum().backward()
    assert optimizer.clip(1.0) == pytest.approx(5.0)
    assert weight.grad.norm().item() == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "step", "expected"),
    [("cosine", 0, 0.5), ("cosine", 1, 1.0), ("cosine", 6, 0.5), ("linear", 6, 0.5), ("constant", 9, 1.0)],
)
def test_learning_rate_by_hand(shape: str, step: int, expected: float):
    assert learning_rate_at(step, total=10, peak=1.0, shape=shape, warmup=2) == pytest.approx(expected)


def test_state_restores_the_run_to_the_bit():
    x = torch.randn(16, 4)

    def run(steps: int, model: torch.nn.Module, optimizer: MasterAdamW) -> None:
        for _ in range(steps):
            model(x.to(next(model.parameters()).dtype)).square().mean().backward()
            optimizer.step(1e-3)

    whole = two_layers(torch.bfloat16)
    run(6, whole, MasterAdamW(whole.parameters(), 1e-3, 0.0))
    first = two_layers(torch.bfloat16)
    optimizer = MasterAdamW(first.parameters(), 1e-3, 0.0)
    run(3, first, optimizer)
    state = optimizer.state_dict()
    second = two_layers(torch.bfloat16)
    resumed = MasterAdamW(second.parameters(), 1e-3, 0.0)
    resumed.load_state_dict(state)
    run(3, second, resumed)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
