"""The layout that is chosen gives the log-probs of plain rows on every architecture, and says why it was taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MambaConfig, MistralConfig

from rmo_train.console.errors import UserError
from rmo_train.data.pairs import PairData
from rmo_train.data.ragged import Ragged
from rmo_train.forward.layout import Lengths, Workload, choose_layout, preferred
from rmo_train.forward.logps import response_logps
from rmo_train.forward.packing import distinct_trees
from rmo_train.store.manifests import Reference, ShardsManifest
from tests.rmo_train.forward.test_logps import GROUPED, SMALL, model_of, padded_logps


def data_of(n: int = 12) -> PairData:
    rng = np.random.default_rng(3)

    def ragged(prompts: bool = False) -> Ragged:
        return Ragged.from_rows([rng.integers(0, 300, 6 + i % 5 + 4 * prompts).astype(np.int32) for i in range(n)])

    ids = np.array([f"p{i}" for i in range(n)], dtype=object)
    ones = np.ones(n)
    return PairData(Path("data"), None, ids, ids, ragged(True), ragged(), ragged(), ones, ones)


def check(model, layout) -> None:
    data = data_of()
    trees, slots = distinct_trees(data, np.arange(len(data)))
    n = int(slots.max()) + 1
    found = response_logps(model, trees, n, layout)
    with torch.inference_mode():
        np.testing.assert_allclose(found, padded_logps(model, trees, n).numpy(), atol=1e-4)


FAMILIES = ["llama", "qwen3", "mistral", "gemma", "gemma2", "gpt-neox"]
SHARES = st.floats(0, 0.5)
TOKENS = st.floats(1, 100_000)
DEVICES = st.sampled_from(["cpu", "cuda", "mps"])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_chosen_gives_the_log_probs_of_plain_rows(family: str):
    model = model_of(family)
    check(model, choose_layout(model, Workload.of(data_of())))


@given(DEVICES, TOKENS, SHARES)
def test_the_rule_ends_with_plain_rows_and_tries_nothing_twice(device, pair, saved):
    paths = preferred(device, Lengths(pair, saved))
    assert paths[-1] == "rows" and len(set(paths)) == len(paths)


@given(DEVICES, TOKENS, TOKENS, SHARES, SHARES)
def test_the_more_sharing_saves_the_more_paths_that_share_are_tried(device, pair, longer, saved, more):
    few = preferred(device, Lengths(min(pair, longer), min(saved, more)))
    many = preferred(device, Lengths(max(pair, longer), max(saved, more)))
    assert set(few) <= set(many)


def test_the_rule_by_hand():
    assert preferred("cpu", Lengths(200, 0.3)) == ("segments", "dense", "rows")
    assert preferred("cpu", Lengths(200, 0.05)) == ("segments", "rows")  # a dense mask multiplies what it hides
    assert preferred("cuda", Lengths(200, 0.3)) == ("flex", "rows")
    assert preferred("cuda", Lengths(100, 0.3)) == ("rows",)  # shorter than FlexAttention's blocks
    assert preferred("cuda", Lengths(200, 0.1)) == ("rows",)


def test_lengths_by_hand():
    rows = {"prompt": [[1, 1, 1, 1], [1, 1]], "chosen": [[2, 2, 2], [2]], "rejected": [[3], [3, 3]]}
    data = replace(data_of(n=2), **{k: Ragged.from_rows([np.array(r, np.int32) for r in v]) for k, v in rows.items()})
    # the last token of an answer is not computed. Shared: 4 + 2 + 0 and 2 + 0 + 1; plain rows: 4 + 6 and 2 + 3
    assert Lengths.of(data) == Lengths((6 + 3) / 2, 6 / 15)


def shards_manifest(reference: Reference) -> ShardsManifest:
    return ShardsManifest(key={}, counts={}, parts=(), reference=reference)


def scored_by(attention: str, device: str) -> PairData:
    return replace(data_of(), manifest=shards_manifest(Reference(attention=attention, device=device)))


def test_a_policy_takes_the_path_of_its_references():
    for path, said in (("dense", "dense attention"), ("rows", "plain rows")):
        layout = choose_layout(model_of("llama"), Workload.of(scored_by(path, "cpu")))
        assert layout.path == path
        assert layout.reason.startswith(f"{said}: as for the references")
    layout = choose_layout(model_of("llama"), Workload.of(scored_by("segments", "cpu")))
    assert layout.reason.startswith("segments attention: sharing prompts saves")  # what the rule says, too


def test_what_keeps_a_policy_from_the_path_of_its_references_is_said():
    said = "the references were computed with segments on cpu"
    for layout in (
        choose_layout(model_of("llama"), Workload.of(scored_by("segments", "cpu")), attention="rows"),
        choose_layout(model_of("gemma2"), Workload.of(scored_by("segments", "cpu"))),  # a soft cap: segments cannot
    ):
        assert layout.path != "segments" and layout.reason.endswith(said)
    elsewhere = choose_layout(model_of("llama"), Workload.of(scored_by("flex", "cuda")))
    assert elsewhere.path == "segments" and elsewhere.reason.endswith("computed with flex on cuda")


def test_a_path_that_is_asked_for_is_taken():
    model = model_of("llama")
    for path in ("segments", "dense", "rows"):
        layout = choose_layout(model, Workload.of(data_of()), attention=path, tokens_per_batch=40)
        assert (layout.path, layout.budget) == (path, 40)
        check(model, layout)


def test_a_path_that_the_model_cannot_take_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"--attention segments: .*softcap.*use --attention auto or rows"):
        choose_layout(model_of("gemma2"), Workload.of(data_of()), attention="segments")


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
    check(model, choose_layout(model, Workload.of(data_of())))


def test_a_recurrent_model_gets_plain_rows_and_says_so():
    torch.manual_seed(0)
    config = MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, state_size=4)
    layout = choose_layout(AutoModelForCausalLM.from_config(config).eval(), Workload.of(data_of()))
    assert not layout.shared and layout.reason.startswith("plain rows: ")


def test_a_sliding_window_shorter_than_the_data_means_plain_rows():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MistralConfig(**GROUPED, sliding_window=8)).eval()
    layout = choose_layout(model, Workload.of(data_of()))
    assert "sliding window (8)" in layout.reason
    check(model, layout)


def test_heads_need_not_be_grouped():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL)).eval()  # as many key as query heads
    check(model, choose_layout(model, Workload.of(data_of()), attention="segments"))
