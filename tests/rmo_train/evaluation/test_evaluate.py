"""What an evaluation says of its progress, and where it is stopped."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

import rmo_train.evaluation.evaluate
from rmo_train.data.pairs import open_pairs
from rmo_train.evaluation.evaluate import evaluate
from rmo_train.forward.layout import Workload, choose_layout
from rmo_train.model.policy import load_model
from tests.command_line import train


@pytest.mark.parametrize("path", ["rows", "segments"])
def test_the_tokens_foreseen_are_those_computed(tiny_model_folder, shards, monkeypatch, path):
    data = open_pairs(shards)
    model = load_model(str(tiny_model_folder), "float32")
    layout = choose_layout(model, Workload.of(data), attention=path)
    foreseen, computed = [], []

    @contextmanager
    def followed(label, total, unit):
        foreseen.append(total)
        yield type("Bar", (), {"advance": staticmethod(computed.append)})

    monkeypatch.setattr(rmo_train.evaluation.evaluate, "progress", followed)
    evaluate(model, data, layout)
    assert sum(computed) == pytest.approx(foreseen[0], rel=0.03)  # rows are rounded up to multiples


def test_a_stopped_evaluation_leaves_nothing_and_does_not_claim_to_resume(
    tiny_model_folder, shards, tmp_path, monkeypatch
):
    def stopping(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("rmo_train.training.command.summarise", stopping)
    stopped = train("eval", shards, "--model", tiny_model_folder, "--out", tmp_path / "eval.json")
    assert stopped.code == 130 and not (tmp_path / "eval.json").exists()
    assert stopped.err.splitlines()[-1] == "stopped; nothing half-written is left. Run the same command again"
