"""The head's log-probs and gradients equal autograd's through log_softmax."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from rmo_train.forward import head
from rmo_train.forward.head import is_linear, token_logps

PLAIN = SimpleNamespace()
CAPPED = SimpleNamespace(final_logit_softcapping=3.0)


def example(frozen: bool) -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 50, bias=False).double()
    linear.weight.requires_grad_(not frozen)
    hidden = torch.randn(11, 16, dtype=torch.double, requires_grad=True)
    return hidden, linear, torch.randint(0, 50, (11,))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("config", [PLAIN, CAPPED])
@pytest.mark.parametrize("chunk", [4, 100])
def test_values_and_gradients_are_those_of_log_softmax(frozen, config, chunk, monkeypatch):
    monkeypatch.setitem(head.CHUNK, "cpu", chunk)
    upstream = torch.linspace(-1, 2, 11)
    gradients = []
    for compute in ("ours", "autograd"):
        hidden, linear, targets = example(frozen)
        if compute == "ours":
            logps = token_logps(hidden, targets, linear, config)
        else:
            logits = linear(hidden)
            if config is CAPPED:
                logits = torch.tanh(logits / 3) * 3
            logps = logits.log_softmax(-1).gather(1, targets[:, None]).squeeze(1)
        (logps * upstream).sum().backward()
        gradients.append((logps.detach().double(), hidden.grad, linear.weight.grad))
    for ours, oracle in zip(*gradients, strict=True):
        if oracle is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, oracle, atol=1e-5, rtol=1e-5)


def test_a_head_with_a_bias_or_a_soft_cap_is_not_taken_for_a_linear_one():
    assert is_linear(torch.nn.Linear(4, 8, bias=False), PLAIN)
    assert not is_linear(torch.nn.Linear(4, 8), PLAIN)
    assert not is_linear(torch.nn.Linear(4, 8, bias=False), CAPPED)


def test_no_gradient_is_kept_when_none_is_asked_for():
    hidden, linear, targets = example(frozen=True)
    with torch.inference_mode():
        assert not token_logps(hidden.detach(), targets, linear, PLAIN).requires_grad
