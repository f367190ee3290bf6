"""The layout that is chosen gives the log-probs of plain rows on every architecture, and says why it was taken."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MambaConfig, MistralConfig

from rmo_train import layout as layouts
from rmo_train.errors import UserError
from rmo_train.layout import choose_layout, sample_trees
from rmo_train.logps import response_logps
from rmo_train.packing import distinct_trees
from rmo_train.pairs import PairData
from rmo_train.ragged import Ragged
from tests.rmo_train.test_logps import GROUPED, SMALL, model_of, padded_logps


def data_of(folder: str = "data", n: int = 12) -> PairData:
    rng = np.random.default_rng(3)

    def ragged(prompts: bool = False) -> Ragged:
        return Ragged.from_rows([rng.integers(0, 300, 6 + i % 5 + 4 * prompts).astype(np.int32) for i in range(n)])

    ids = np.array([f"p{i}" for i in range(n)], dtype=object)
    ones = np.ones(n)
    return PairData(Path(folder), {}, ids, ids, ragged(True), ragged(), ragged(), ones, ones)


def check(model, layout) -> None:
    data = data_of()
    trees, slots = distinct_trees(data, np.arange(len(data)))
    n = int(slots.max()) + 1
    found = response_logps(model, trees, n, layout)
    with torch.inference_mode():
        np.testing.assert_allclose(found, padded_logps(model, trees, n).numpy(), atol=1e-4)


@pytest.fixture(autouse=True)
def fresh_measurements(monkeypatch):
    monkeypatch.setattr(layouts, "_measured", {})


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma", "gemma2", "gpt-neox"])
def test_whatever_is_fastest_gives_the_log_probs_of_plain_rows(family: str, capsys):
    model = model_of(family)
    layout = choose_layout(model, data_of(family))
    assert "attention: rows measured at" in capsys.readouterr().err
    check(model, layout)


def test_the_fastest_as_measured_is_taken(monkeypatch):
    model = model_of("llama")
    seconds = {"segments": 0.0, "dense": 0.0, "rows": 0.0}
    clock = [0.0]

    def slow(model, trees, slots, layout):
        clock[0] += seconds[layout.path]

    monkeypatch.setattr(layouts, "response_logps", slow)
    monkeypatch.setattr(layouts.time, "perf_counter", lambda: clock[0])
    for fastest in ("segments", "dense", "rows"):
        seconds.update({"segments": 3.0, "dense": 3.0, "rows": 3.0, fastest: 2.0})
        layouts._measured.clear()
        assert choose_layout(model, data_of()).path == fastest
    seconds.update({"segments": 3.0, "dense": 2.95, "rows": 2.9})  # within noise: the first candidate
    layouts._measured.clear()
    assert choose_layout(model, data_of()).path == "segments"


def test_models_of_one_shape_are_measured_once_a_process(monkeypatch):
    measured: list[str] = []

    def counted(model, trees, slots, layout):
        measured.append(layout.path)
        return response_logps(model, trees, slots, layout)

    monkeypatch.setattr(layouts, "response_logps", counted)
    first = choose_layout(model_of("llama"), data_of())
    assert Counter(measured) == {"segments": 3, "dense": 3, "rows": 3}  # a warm-up and two measurements
    assert choose_layout(model_of("llama"), data_of()).path == first.path
    assert len(measured) == 9
    choose_layout(model_of("llama"), data_of("other data"))
    assert len(measured) == 18


def test_training_is_timed_on_pairs_and_scoring_on_what_they_share():
    data = data_of()
    scored, trained = layouts.sample_trees(data), layouts.sample_pairs(data)
    assert all(len(t.responses) == 2 for t in trained)
    assert sorted(o for t in trained for o in t.owners) == list(range(2 * len(trained)))
    assert sum(t.tokens for t in trained) >= min(layouts.SAMPLE_TOKENS, sum(t.tokens for t in scored))


def test_a_path_that_is_asked_for_is_taken():
    model = model_of("llama")
    for path in ("segments", "dense", "rows"):
        layout = choose_layout(model, data_of(), attention=path, tokens_per_batch=40)
        assert (layout.path, layout.budget) == (path, 40)
        check(model, layout)


def test_a_path_that_the_model_cannot_take_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"--attention segments: .*softcap.*use --attention auto or rows"):
        choose_layout(model_of("gemma2"), data_of(), attention="segments")


@pytest.mark.parametrize(
    "config",
    [
        MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4),
        GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4),
    ],
    ids=["recurrent", "absolute positions"],
)
def test_other_architectures_get_what_is_right_for_them(config):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    check(model, choose_layout(model, data_of()))


def test_a_recurrent_model_gets_plain_rows_and_says_so():
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4)
    layout = choose_layout(AutoModelForCausalLM.from_config(config).eval(), data_of())
    assert not layout.shared and layout.reason.startswith("plain rows: ")


def test_a_sliding_window_shorter_than_the_data_means_plain_rows():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MistralConfig(**GROUPED, sliding_window=8)).eval()
    layout = choose_layout(model, data_of())
    assert "sliding window (8)" in layout.reason
    check(model, layout)


def test_heads_need_not_be_grouped():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL)).eval()  # as many key as query heads
    check(model, choose_layout(model, data_of(), attention="segments"))


def test_the_sample_is_spread_over_the_data_and_small():
    data = data_of(n=200)
    trees = sample_trees(data)
    assert sum(t.tokens for t in trees) <= layouts.SAMPLE_TOKENS + max(t.tokens for t in trees)
    assert len({t.prompt.tobytes() for t in trees}) == len(trees) > 20
