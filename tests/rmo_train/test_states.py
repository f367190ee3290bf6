"""Hidden states of whole responses: the packed forward against transformers' own, one sequence at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rmo_train.attention import use_attention
from rmo_train.layout import Layout
from rmo_train.states import layers_read, pair_state_differences
from tests.rmo_train.test_layout import data_of
from tests.rmo_train.test_logps import PATHS, model_of

ROWS = np.array([4, 0, 0, 1, 2])  # one pair twice


def plain_states(model, prompt: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Mean over the positions that predict the response, from a forward of this sequence alone."""
    use_attention(model, "rows")
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
    with torch.inference_mode():
        hidden = model.get_decoder()(input_ids=ids, output_hidden_states=True).hidden_states
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
    found = pair_state_differences(model, data, ROWS, Layout(path, budget, ""))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_distinct_response_is_computed_once():
    model, data = model_of("llama"), data_of()
    use_attention(model, "segments")
    layout, seen = Layout("segments", 1000, ""), []
    pair_state_differences(model, data, ROWS, layout, seen.append)
    once = data.prompt.lengths + data.chosen.lengths + data.rejected.lengths - 2  # last tokens are not fed
    assert sum(seen) == once[[4, 0, 1, 2]].sum()


@pytest.mark.parametrize(
    ("layers", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 5, 6]), (30, [5, 10, 15, 20, 25, 30])]
)
def test_depths_are_evenly_spaced_and_end_with_the_last_layer(layers, expected):
    assert layers_read(layers) == expected
