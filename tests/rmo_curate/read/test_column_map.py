"""Column names come from the command line or else from the recipe."""

import pytest

from rmo_curate.score.settings import InspectCommand
from rmo_train.console.errors import UserError
from rmo_train.console.settings import build

RECIPE = {"data": {"train": "pairs.jsonl", "map": {"prompt": "question", "chosen": "good"}}}


def mapped(*given: str, recipe=RECIPE) -> dict[str, str]:
    return build(InspectCommand, None, recipe, {"map": list(given)}).map


def test_the_command_line_stands_in_place_of_the_recipe():
    assert mapped() == RECIPE["data"]["map"]
    assert mapped("prompt=ask", "id=a=b") == {"prompt": "ask", "id": "a=b"}
    assert mapped(recipe={"data": {"train": "pairs.jsonl"}}) == {}


@pytest.mark.parametrize("text", ["prompt", "prompt=", "=question"])
def test_half_a_mapping_is_refused(text):
    with pytest.raises(UserError, match=f"--map .*{text} is not OUR_COLUMN=NAME_IN_THE_DATA"):
        mapped(text)


def test_a_recipes_map_must_be_one():
    with pytest.raises(UserError, match=r"--map \(recipe: data\.map\).*got 5"):
        mapped(recipe={"data": {"train": "pairs.jsonl", "map": 5}})
