"""Hidden states of whole responses: the packed forward against transformers' own, one sequence at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rmo_train.forward.attention import use_attention
from rmo_train.forward.layout import Layout
from rmo_train.forward.logps import pair_logps
from rmo_train.forward.states import (
    decoder_layers,
    layers_read,
    pack_states,
    pair_logps_and_differences,
    pair_state_differences,
)
from tests.rmo_train.forward.test_layout import data_of
from tests.rmo_train.forward.test_logps import PATHS, model_of

ROWS = np.array([4, 0, 0, 1, 2])  # one pair twice


def plain_states(model, prompt: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Mean over the positions that predict the response, from a forward of this sequence alone."""
    use_attention(model, "rows")
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
    with torch.inference_mode():
        hidden = model.base_model(input_ids=ids, output_hidden_states=True).hidden_states
    at = slice(len(prompt) - 1, ids.shape[1] - 1)
    return np.concatenate([hidden[k][0, at].mean(0).numpy() for k in layers_read(len(hidden) - 1)])


@pytest.mark.parametrize(("family", "path"), PATHS)
@pytest.mark.parametrize("budget", [8, 40, 1000])
def test_states_of_packed_rows_equal_those_of_single_sequences(family, path, budget):
    model, data = model_of(family), data_of()
    expected = np.stack(
        [
            plain_states(model, data.prompt[i], data.chosen[i]) - plain_states(model, data.prompt[i], data.rejected[i])
            for i in ROWS
        ]
    )
    use_attention(model, path)
    found = pair_state_differences(model, data, ROWS, Layout(path, budget))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("family", "path"), PATHS)
@pytest.mark.parametrize("budget", [8, 40, 1000])
def test_one_pass_gives_the_numbers_of_two(family, path, budget):
    model, data, layout = model_of(family), data_of(), Layout(path, budget)
    use_attention(model, path)
    logps, differences = pair_logps_and_differences(model, data, ROWS, layout)
    np.testing.assert_array_equal(logps, pair_logps(model, data, ROWS, layout))
    np.testing.assert_array_equal(differences, pair_state_differences(model, data, ROWS, layout))


def test_a_swapped_pair_has_exactly_the_opposite_difference():
    model, data, layout = model_of("llama"), data_of(), Layout("rows", 1)
    use_attention(model, "rows")
    swapped = replace(data, chosen=data.rejected, rejected=data.chosen)
    found, other = (pair_state_differences(model, d, ROWS, layout) for d in (data, swapped))
    np.testing.assert_array_equal(found, -other)


@pytest.mark.parametrize("read", [pair_state_differences, pair_logps_and_differences])
def test_every_distinct_response_is_computed_once(read):
    model, data = model_of("llama"), data_of()
    use_attention(model, "segments")
    layout, seen = Layout("segments", 1000), []
    read(model, data, ROWS, layout, seen.append)
    once = data.prompt.lengths + data.chosen.lengths + data.rejected.lengths - 2  # last tokens are not fed
    assert sum(seen) == once[[4, 0, 1, 2]].sum()


def test_a_model_whose_layers_cannot_be_told_is_read_as_well(monkeypatch):
    model, data, layout = model_of("llama"), data_of(), Layout("segments", 40)
    use_attention(model, "segments")
    expected = pair_state_differences(model, data, ROWS, layout)
    monkeypatch.setattr("rmo_train.forward.states.decoder_layers", lambda model: None)
    np.testing.assert_array_equal(pair_state_differences(model, data, ROWS, layout), expected)


def test_nothing_watches_the_model_afterwards(monkeypatch):
    model, data, layout = model_of("llama"), data_of(), Layout("segments", 40)
    layers = decoder_layers(model)
    assert layers is not None
    use_attention(model, "segments")
    before = [dict(layer._forward_hooks) for layer in layers]
    pair_state_differences(model, data, ROWS, layout)
    with monkeypatch.context() as patch:
        patch.setattr("rmo_train.forward.states.predicting", None)  # it fails in the middle of a pass
        with pytest.raises(TypeError):
            pair_state_differences(model, data, ROWS, layout)
    assert [dict(layer._forward_hooks) for layer in layers] == before


def test_running_out_of_memory_loses_neither_log_probs_nor_states(monkeypatch):
    model, data, layout = model_of("llama"), data_of(), Layout("segments", 1000)
    use_attention(model, "segments")
    expected = pair_logps_and_differences(model, data, ROWS, layout)
    sizes = []

    def tight(model, pack):
        sizes.append(pack.size)
        if pack.size > 40:
            raise torch.OutOfMemoryError("too much")
        return pack_states(model, pack)

    monkeypatch.setattr("rmo_train.forward.states.pack_states", tight)
    for found, whole in zip(pair_logps_and_differences(model, data, ROWS, layout), expected, strict=True):
        np.testing.assert_allclose(found, whole, atol=1e-5)
    assert max(sizes) > 40 >= sizes[-1]


@pytest.mark.parametrize(
    ("layers", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 5, 6]), (30, [5, 10, 15, 20, 25, 30])]
)
def test_depths_are_evenly_spaced_and_end_with_the_last_layer(layers, expected):
    assert layers_read(layers) == expected
