"""Column names come from the recipe and, over it, from the command line."""

import pytest

from rmo_curate.read.column_map import column_map
from rmo_train.console.errors import UserError


def test_the_command_line_stands_over_the_recipe():
    recipe = {"data": {"map": {"prompt": "question", "chosen": "good"}}}
    assert column_map(["prompt=ask", "id=a=b"], recipe) == {"prompt": "ask", "chosen": "good", "id": "a=b"}
    assert column_map(None, {}) == {}


@pytest.mark.parametrize("text", ["prompt", "prompt=", "=question"])
def test_half_a_mapping_is_refused(text):
    with pytest.raises(UserError, match=f"--map {text}: expected OUR_COLUMN=NAME"):
        column_map([text], {})


def test_a_recipes_map_must_be_one():
    with pytest.raises(UserError, match=r"data\.map is \['a'\]; expected column names"):
        column_map(None, {"data": {"map": ["a"]}})
