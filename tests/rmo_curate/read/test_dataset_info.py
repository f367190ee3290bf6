"""A LLaMA-Factory folder is read as its `dataset_info.json` says."""

import json

import pytest

from rmo_curate.read.sources import open_source
from rmo_train.console.errors import UserError

SHAREGPT = {
    "formatting": "sharegpt",
    "ranking": True,
    "columns": {"messages": "talk", "chosen": "good", "rejected": "bad"},
    "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt"},
}


def folder(path, info, **files):
    (path / "dataset_info.json").write_text(json.dumps(info))
    for name, rows in files.items():
        (path / f"{name}.json").write_text(json.dumps(rows))
    return str(path)


def talk(n):
    return {
        "talk": [{"from": "human", "value": f"question {n}"}],
        "good": {"from": "gpt", "value": f"good {n}"},
        "bad": {"from": "gpt", "value": f"bad {n}"},
    }


def test_the_ranking_entries_are_read_with_their_names_of_columns(tmp_path):
    info = {
        "b": {"file_name": "b.json", **SHAREGPT},
        "sft": {"file_name": "sft.json"},
        "a": {"file_name": "a.json", **SHAREGPT},
        "hub": {"hf_hub_url": "some/where", "ranking": True},
    }
    source = open_source([folder(tmp_path, info, a=[talk(0)], b=[talk(1)], sft=[{"instruction": "x", "output": "y"}])])
    assert source.form.name == "llama-factory-sharegpt"
    assert [(p.prompt[0]["content"], p.chosen[0]["content"], p.extra) for p in source.records()] == [
        ("question 1", "good 1", {}),
        ("question 0", "good 0", {}),
    ]
    assert any("skipped" in note and "sft.json" in note for note in source.notes)


def test_alpaca_entries_name_prompt_and_query(tmp_path):
    columns = {"prompt": "ask", "query": "about", "chosen": "good", "rejected": "bad"}
    info = {"a": {"file_name": "a.json", "ranking": True, "columns": columns}}
    (pair,) = open_source(
        [folder(tmp_path, info, a=[{"ask": "Sum up.", "about": "A text.", "good": "yes", "bad": "no"}])]
    ).records()
    assert pair.prompt == [{"role": "user", "content": "Sum up.\nA text."}]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"a": {"file_name": "a.json"}}, 'no entry with "ranking": true whose file exists'),
        ({"a": {"file_name": "gone.json", "ranking": True}}, "whose file exists"),
        ({"a": {**SHAREGPT, "file_name": "a.json"}, "b": {"file_name": "b.json", "ranking": True}},
         "'a' and 'b' have different formats"),
        ({"a": {**SHAREGPT, "file_name": "a.json", "formatting": "openai"}}, "'a' has the formatting 'openai'"),
        ({"a": {**SHAREGPT, "file_name": "a.json", "tags": {"role_tag": "who"}}}, "role_tag 'who'; expected from or"),
        ({"a": {**SHAREGPT, "file_name": "a.json", "columns": {"images": "pictures"}}}, "cannot read: pictures"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_followed_is_the_users_error(tmp_path, entries, said):
    with pytest.raises(UserError, match=said):
        open_source([folder(tmp_path, entries, a=[talk(0)], b=[talk(1)])])


def test_the_description_that_datasets_writes_is_passed_over(tmp_path):
    row = {"prompt": "q", "chosen": "x", "rejected": "y"}
    source = open_source([folder(tmp_path, {"citation": "", "features": {}}, a=[row])])
    assert source.form.name == "trl-standard"
