"""The heads of benchmarks/probes.py: gates by hand, and open gates as the product's fit."""

import numpy as np
import pytest
import torch

from benchmarks.probes import Answers, by_answer, by_gates, gated_margins
from rmo_curate.score import logistic


def answers(pairs: int = 40, width: int = 5) -> Answers:
    """Two answers a pair, of 1 to 6 tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 7, 2 * pairs)
    tokens = rng.standard_normal((lengths.sum(), width)).astype(np.float32)
    means = np.add.reduceat(tokens, np.cumsum(lengths) - lengths) / lengths[:, None]
    return Answers(means.astype(np.float32), tokens, lengths, np.arange(2 * pairs).reshape(-1, 2))


def test_gated_rewards_by_hand():
    tokens = np.array([[1, 0], [5, np.log(3)], [2, 7]], dtype=np.float32)  # reward, gate
    two = Answers(np.zeros((2, 2), dtype=np.float32), tokens, np.array([2, 1]), np.array([[0, 1], [1, 0]]))
    heads = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]]), torch.zeros(1, 1)
    first = (1 / 2 * 1 + 3 / 4 * 5) / (1 / 2 + 3 / 4)  # sigmoid(0), sigmoid(log 3)
    assert gated_margins(two, *heads)[:, 0].tolist() == pytest.approx([first - 2, 2 - first])


@pytest.mark.parametrize("bias", [0.0, 2.0])
def test_gates_that_are_all_alike_give_the_probe(bias: float):
    some = answers()
    reward = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    found = gated_margins(some, reward, torch.zeros(5, 3), torch.full((1, 3), bias))
    np.testing.assert_allclose(found, some.differences(np.zeros(40, dtype=bool)) @ reward.numpy(), atol=1e-5)


def test_no_head_sees_the_labels_of_its_fold():
    some, folds = answers(), np.arange(40) % 4
    wrong = np.random.default_rng(1).random(40) < 0.3
    other = wrong ^ (folds == 2)  # the labels of one fold exchanged: their held-out log-odds change sign, no more

    def fits(wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        start = logistic.cross_fit(some.differences(wrong), folds, [3.0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("benchmarks.probes.RIDGES", (3.0,))
            patch.setattr("benchmarks.probes.GATE_RIDGES", (3.0,))
            return by_answer(some, wrong, folds), by_gates(some, wrong, folds, start)[0]

    for one, two in zip(fits(wrong), fits(other), strict=True):
        np.testing.assert_allclose(one[folds == 2], -two[folds == 2], rtol=5e-3, atol=1e-3)  # fitted together
        assert not np.allclose(one[folds != 2], two[folds != 2])
