"""The fused LoRA product is peft's, for outputs and for gradients."""

from __future__ import annotations

from pathlib import Path

import torch
from peft.tuners.lora import Linear

from rmo_train.model.lora import LoraProduct, fuse
from rmo_train.model.policy import load_for_training


def test_output_and_gradients_are_pefts(tiny_model_folder: Path):
    model = load_for_training(str(tiny_model_folder), "float32", lora=4)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)  # 0 at the start, where A would get no gradient
    tokens = torch.randint(5, 300, (2, 12))
    results = []
    for fused in (True, False):
        layers = [m for m in model.modules() if type(m) is Linear]
        assert all(("forward" in vars(m)) == fused for m in layers)
        model.zero_grad()
        logits = model(tokens).logits
        logits.square().mean().backward()
        results.append((logits.detach(), [p.grad.clone() for p in model.parameters() if p.requires_grad]))
        for layer in layers:
            vars(layer).pop("forward", None)
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    assert len(results[0][1]) == 2 * 14  # A and B of 7 layers in 2 blocks
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    assert fuse(model) == 14


def test_the_product_passes_gradcheck():
    torch.manual_seed(0)
    x, a, b = (torch.randn(*s, dtype=torch.double, requires_grad=True) for s in ((2, 3, 5), (2, 5), (4, 2)))
    weight, bias = torch.randn(4, 5, dtype=torch.double), torch.randn(4, dtype=torch.double)
    assert torch.autograd.gradcheck(lambda x, a, b: LoraProduct.apply(x, weight, bias, a, b, 2.0), (x, a, b))
