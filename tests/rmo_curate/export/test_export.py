"""Exports against what each trainer documents that it reads; TRL itself reads one in tests/real."""

from __future__ import annotations

import errno
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from rmo_curate.export import command as export
from rmo_curate.export.formats import FORMATS, Trainer
from rmo_curate.filter import shards
from rmo_curate.filter.command import FilterSettings, run_filter
from rmo_curate.read.sources import open_source
from rmo_train.data.pairs import open_pairs
from rmo_train.data.tool_calls import Turn
from rmo_train.store import files, tables
from tests.command_line import curate
from tests.manifests import manifest_of

TOOLS = '[{"function":{"name":"weather"},"type":"function"}]'
ALL = list(Trainer)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str, role: str = "system") -> dict[str, str]:
    return {"role": role, "content": text}


@pytest.fixture
def make_shards(make_run, tmp_path):
    """make_shards(rows) -> a shard folder that keeps them all; a row is the columns to set of a pair."""

    def make(rows: list[dict[str, Any]], **more: Any) -> Path:
        run = make_run({"base": [1.0] * len(rows), "oof-16": [2.0 + i for i in range(len(rows))]}, rows=rows, **more)
        run_filter(run, tmp_path / "shards", FilterSettings(low_q=0, high_q=1))
        return tmp_path / "shards"

    return make


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def omitted(out: Path) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in lines(out / "omitted.jsonl")}


HERE = {"id": "p0", "source_file": "my.jsonl", "source_line": 17}
ORIGIN = tuple(HERE)
PLAIN = {**HERE, "prompt": "Hi é\u2028", "chosen": "Yes", "rejected": "No"}
WITH_SYSTEM = {"prompt": [system("Be kind."), user("Hi"), assistant("Hello"), user("Rain?")]}
SEVERAL = {"chosen": [assistant("Which?"), user("That."), assistant("Yes")]}
WITH_TOOLS = {"prompt": "Rain?", "tools": TOOLS}
WITH_KWARGS = {"chat_template_kwargs": '{"enable_thinking":false}'}
DEVELOPER = {"prompt": [system("Be kind.", "developer"), user("Hi")]}
CALL = {"name": "weather", "arguments": {"city": "Bern"}}
CALLED = {"role": "tool_call", "content": Turn("", [CALL]).content()}
CALLED_AND_SAID = {"role": "tool_call", "content": Turn("I'll look.", [CALL]).content()}
AFTER_A_CALL = {"prompt": [user("Rain?"), CALLED, {"role": "tool", "content": "wet"}], "chosen": [CALLED]}
TOOL_TURN = {"prompt": [user("Rain?"), assistant("<tool_call>"), {"role": "tool", "content": "wet"}]}


# ---------------------------------------------------------------------------------------------------- each format


def test_trl_gets_message_lists_that_load_as_a_data_set(make_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS_PER_FILE", 2)
    rows = [PLAIN, WITH_SYSTEM, SEVERAL, WITH_TOOLS, DEVELOPER]
    assert curate("export", make_shards(rows), "--to", "trl", "--out", tmp_path / "out").code == 0
    from datasets import load_dataset

    data = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    own = [*ORIGIN, "prompt", "chosen", "rejected", "tools"]
    assert data.column_names[: len(own)] == own
    assert {name: data[0][name] for name in own} == {
        **HERE,
        "prompt": [user("Hi é\u2028")],
        "chosen": [assistant("Yes")],
        "rejected": [assistant("No")],
        "tools": None,
    }
    assert data["prompt"][1] == WITH_SYSTEM["prompt"]
    assert data["chosen"][2] == SEVERAL["chosen"]
    assert data["tools"][:] == [None, None, None, TOOLS, None]
    assert len(list((tmp_path / "out" / "data").iterdir())) == 3


def test_an_export_made_again_in_its_folder_is_not_answered_with_the_old_one(make_shards, tmp_path):
    from datasets import load_dataset

    def loaded() -> list[str]:
        data = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
        return [row[0]["content"] for row in data["chosen"]]

    for answer in ("Yes", "Certainly"):
        folder = make_shards([{**PLAIN, "chosen": answer}])
        export.run_export(folder, Trainer.TRL, tmp_path / "out")
        assert loaded() == [answer]
        shutil.rmtree(folder), shutil.rmtree(tmp_path / "out")


def test_trl_gets_template_settings_where_every_pair_has_the_same_names(make_shards, tmp_path):
    other = {"chat_template_kwargs": '{"enable_thinking":true}'}
    export.run_export(make_shards([WITH_KWARGS, other]), Trainer.TRL, tmp_path / "out")
    found = tables.pq.read_table(tmp_path / "out" / "data")
    assert found["chat_template_kwargs"].to_pylist() == [{"enable_thinking": False}, {"enable_thinking": True}]


def test_trl_gets_no_template_settings_of_some_pairs_only(make_shards, tmp_path):
    export.run_export(make_shards([PLAIN, WITH_KWARGS]), Trainer.TRL, tmp_path / "out")
    assert "chat_template_kwargs" not in tables.pq.read_table(tmp_path / "out" / "data").column_names
    assert omitted(tmp_path / "out") == {"p1": "its own chat_template_kwargs"}


def test_trl_gets_what_our_trainer_reads_of_the_same_shards(make_shards, tmp_path):
    folder = make_shards([PLAIN, {}, {}])
    export.run_export(folder, Trainer.TRL, tmp_path / "out")
    found, pairs = tables.pq.read_table(tmp_path / "out" / "data").to_pydict(), open_pairs(folder)
    for name in ("prompt", "chosen", "rejected"):
        assert found[f"{name}_ids"] == [getattr(pairs, name)[i].tolist() for i in range(3)]
    for name in ("weight", "ref_chosen", "ref_rejected", "end_chosen", "end_rejected"):
        assert found[name] == getattr(pairs, name).tolist()
    assert not {"ref_chosen_logps", "ref_rejected_logps"} & found.keys()  # TRL's precompute adds those itself


@pytest.mark.parametrize(("action", "softens"), [("drop", False), ("soft-label", True)])
def test_trl_gets_confidences_below_1_only_where_the_filter_softens_labels(make_run, tmp_path, action, softens):
    run = make_run({"base": [1.0] * 8, "oof-16": [-4.0, 2, 3, 4, 5, 6, 7, 8]})
    run_filter(run, tmp_path / "shards", FilterSettings(low_q=0, action=action))
    export.run_export(tmp_path / "shards", Trainer.TRL, tmp_path / "out")
    confidences = tables.pq.read_table(tmp_path / "out" / "data")["label_confidence"].to_pylist()
    assert any(c < 1 for c in confidences) == softens
    assert confidences == open_pairs(tmp_path / "shards").labelled(None).label_confidence.tolist()


@pytest.mark.parametrize("action", ["drop", "weight", "soft-label"])
def test_a_trainer_that_takes_every_label_as_it_is_is_warned_of(make_run, tmp_path, action):
    run = make_run({"base": [1.0] * 8, "oof-16": [-4.0, 2, 3, 4, 5, 6, 7, 8]})
    run_filter(run, tmp_path / "shards", FilterSettings(low_q=0, action=action))
    said = "\n".join(export.run_export(tmp_path / "shards", Trainer.LLAMA_FACTORY, tmp_path / "lf"))
    assert ("warning: this trainer takes every label as it is" in said) == (action != "drop")
    said = "\n".join(export.run_export(tmp_path / "shards", Trainer.TRL, tmp_path / "trl"))
    assert ("labels are soft" in said) == (action == "soft-label")


def test_trl_gets_no_columns_of_log_probs_that_there_are_not(make_run, tmp_path):
    run_filter(make_run({"base": [1.0, 2.0]}), tmp_path / "shards", FilterSettings(rule="none", low_q=0))
    export.run_export(tmp_path / "shards", Trainer.TRL, tmp_path / "out")
    names = tables.pq.read_table(tmp_path / "out" / "data").column_names
    assert "ref_chosen" in names and "end_chosen" not in names


def test_llama_factory_gets_a_sharegpt_ranking_and_its_entry(make_shards, tmp_path):
    export.run_export(make_shards([PLAIN, WITH_SYSTEM, WITH_TOOLS, TOOL_TURN]), Trainer.LLAMA_FACTORY, tmp_path / "out")
    entry = json.loads((tmp_path / "out" / "dataset_info.json").read_text())["rmo"]
    rows = lines(tmp_path / "out" / entry["file_name"])
    assert entry["formatting"] == "sharegpt" and entry["ranking"] is True
    assert set(rows[0]) == {*ORIGIN, *entry["columns"].values()}
    tags = entry["tags"]
    role, content = tags["role_tag"], tags["content_tag"]
    assert rows[0] == {
        **HERE,
        "conversations": [{role: tags["user_tag"], content: "Hi é\u2028"}],
        "chosen": {role: tags["assistant_tag"], content: "Yes"},
        "rejected": {role: tags["assistant_tag"], content: "No"},
        "tools": "",
    }
    assert [m[role] for m in rows[1]["conversations"]] == [
        tags[t] for t in ("system_tag", "user_tag", "assistant_tag", "user_tag")
    ]
    assert rows[2]["tools"] == TOOLS
    assert rows[3]["conversations"][2] == {role: tags["observation_tag"], content: "wet"}
    for row in rows:  # what its reader asks of a ranking: an odd number of turns after the system's
        turns = [m[role] for m in row["conversations"] if m[role] != tags["system_tag"]]
        assert len(turns) % 2 == 1
        assert set(turns[1::2]) <= {tags["assistant_tag"]}


def test_llama_factory_gets_calls_as_its_own_turns_of_them_and_they_are_read_back(make_shards, tmp_path):
    folder = make_shards([{**AFTER_A_CALL, "tools": TOOLS}])
    export.run_export(folder, Trainer.LLAMA_FACTORY, tmp_path / "out")
    (row,) = lines(tmp_path / "out" / "train.jsonl")
    tags = json.loads((tmp_path / "out" / "dataset_info.json").read_text())["rmo"]["tags"]
    calls = {tags["role_tag"]: tags["function_tag"], tags["content_tag"]: json.dumps([CALL])}
    assert row["conversations"][1] == row["chosen"] == calls
    (pair,) = open_source([str(tmp_path / "out" / "train.jsonl")]).records()
    assert (pair.prompt, pair.chosen, pair.tools) == (AFTER_A_CALL["prompt"], [CALLED], TOOLS)


def test_axolotl_gets_messages_and_a_config_that_names_its_columns(make_shards, tmp_path):
    export.run_export(make_shards([PLAIN, TOOL_TURN]), Trainer.AXOLOTL, tmp_path / "out")
    config = yaml.safe_load((tmp_path / "out" / "datasets.yaml").read_text())
    (dataset,) = config["datasets"]
    assert config["rl"] == "dpo"
    assert (dataset["type"], dataset["ds_type"], dataset["split"]) == ("chat_template.default", "json", "train")
    rows = lines(Path(dataset["path"]))
    assert rows[0] == {
        **HERE,
        dataset["field_messages"]: [user("Hi é\u2028")],
        dataset["field_chosen"]: assistant("Yes"),
        dataset["field_rejected"]: assistant("No"),
    }
    roles = {m["role"] for row in rows for m in row["messages"]}
    assert roles == {"user", "assistant", "tool"} <= {name for names in dataset["roles"].values() for name in names}


def test_openrlhf_gets_lists_that_concatenate_and_the_flags_for_them(make_shards, tmp_path):
    export.run_export(make_shards([HERE | WITH_SYSTEM, SEVERAL, DEVELOPER]), Trainer.OPENRLHF, tmp_path / "out")
    readme = (tmp_path / "out" / "README.md").read_text()
    keys = {k: re.search(rf"--data\.{k}_key (\w+)", readme)[1] for k in ("prompt", "chosen", "rejected")}
    rows = lines(Path(re.search(r"--data\.dataset (\S+)", readme)[1]))
    assert "--data.apply_chat_template" in readme
    assert rows[0][keys["prompt"]] + rows[0][keys["chosen"]] == [*WITH_SYSTEM["prompt"], assistant("good answer 0")]
    assert rows[1][keys["chosen"]] == SEVERAL["chosen"]
    assert len(rows) == 3 and "margin" not in rows[0] and {n: rows[0][n] for n in ORIGIN} == {**HERE}


def test_openrlhf_gets_the_sources_margin_with_its_default_where_there_is_none(make_shards, tmp_path):
    export.run_export(make_shards([{}] * 3, extra={"margin": [1, None, 3]}), Trainer.OPENRLHF, tmp_path / "out")
    assert [row["margin"] for row in lines(tmp_path / "out" / "train.jsonl")] == [1.0, 0.0, 3.0]


# ---------------------------------------------------------------------------------------------------- what is lost

REWRITTEN_PROMPT = {"flags": ["template_rewrites_history"]}
REWRITTEN_ANSWER = {"flags": ["template_rewrites_response"]}
UNEVEN = {"prompt": [user("Hi"), user("Rain?")]}
SYSTEM_ALONE = {"prompt": [system("Greet the user.")]}
LATE_SYSTEM = {"prompt": [user("Hi"), assistant("Yes?"), system("Be brief.")]}
CALLS_LOST = {"p10": "function calls", "p11": "function calls"}
CASES = [
    PLAIN,
    SEVERAL,
    WITH_TOOLS,
    WITH_KWARGS,
    DEVELOPER,
    UNEVEN,
    LATE_SYSTEM,
    REWRITTEN_PROMPT,
    REWRITTEN_ANSWER,
    SYSTEM_ALONE,
    AFTER_A_CALL,
    {"chosen": [CALLED_AND_SAID]},
]


@pytest.mark.parametrize(
    ("to", "lost"),
    [
        ("trl", {"p3": "chat_template_kwargs", **CALLS_LOST}),
        (
            "llama-factory",
            {
                "p1": "several messages",
                "p3": "kwargs",
                "p4": "developer",
                "p5": "alternate",
                "p6": "alternate",
                "p9": "alternate",
                "p11": "both a text and function calls",
            },
        ),
        (
            "axolotl",
            {
                "p1": "several messages",
                "p2": "tools",
                "p3": "kwargs",
                "p4": "developer",
                "p8": "rewrites",
                **CALLS_LOST,
            },
        ),
        ("openrlhf", {"p2": "tools", "p3": "chat_template_kwargs", "p7": "rewrites", **CALLS_LOST}),
    ],
)
def test_a_pair_that_a_format_cannot_express_is_listed_and_counted(make_shards, tmp_path, to, lost):
    said = curate("export", make_shards(CASES), "--to", to, "--out", tmp_path / "out")
    assert said.code == 0
    found = omitted(tmp_path / "out")
    assert found.keys() == lost.keys()
    assert all(reason in found[pair] for pair, reason in lost.items())
    assert f"{len(CASES) - len(lost)} of {len(CASES)} kept pairs" in said.out
    assert all(
        reason in said.out and reason in (tmp_path / "out" / "README.md").read_text() for reason in found.values()
    )
    manifest = files.read_json(tmp_path / "out" / "manifest.json")
    assert manifest["counts"] == {"kept": len(CASES), "written": len(CASES) - len(lost), "omitted": len(lost)}
    assert sum(part["rows"] for part in manifest["parts"]) == len(CASES) - len(lost)


def test_pairs_that_do_not_count_alike_are_said(make_shards, tmp_path):
    folder = make_shards([PLAIN, {}])
    manifest = manifest_of(folder)
    (part,) = manifest["parts"]
    table = tables.pq.read_table(folder / part["file"])
    at = table.column_names.index("weight")
    table = table.set_column(at, "weight", tables.pa.array([1.0, 0.5]))
    manifest["parts"] = [vars(tables.write_table(folder / part["file"], table, table.schema, folder))]
    files.write_json(folder / "manifest.json", manifest)
    lost = "weight and label_confidence, which differ from 1 in 1 pair"
    assert lost in curate("export", folder, "--to", "openrlhf", "--out", tmp_path / "out").out
    assert lost not in curate("export", folder, "--to", "trl", "--out", tmp_path / "trl").out


def test_shards_that_do_not_say_where_pairs_are_from_are_exported_and_it_is_said(make_shards, tmp_path):
    folder = make_shards([{}])
    manifest = manifest_of(folder)
    (part,) = manifest["parts"]
    table = tables.pq.read_table(folder / part["file"]).drop_columns(["source_file", "source_line"])
    manifest["parts"] = [vars(tables.write_table(folder / part["file"], table, table.schema, folder))]
    files.write_json(folder / "manifest.json", manifest)
    export.run_export(folder, Trainer.OPENRLHF, tmp_path / "out")
    (row,) = lines(tmp_path / "out" / "train.jsonl")
    assert row["id"] == "p0" and "source_line" not in row
    assert (
        "the source file and line of each pair, which the shards do not have"
        in (tmp_path / "out" / "README.md").read_text()
    )


def test_nothing_that_can_be_expressed_is_an_error(make_shards, tmp_path):
    folder = make_shards([SEVERAL])
    assert curate("export", folder, "--to", "axolotl", "--out", tmp_path / "out").refused(
        "cannot express any kept pair; 1 of 1 have"
    )
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))


# ---------------------------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("to", ALL)
def test_an_export_again_replaces_the_first_with_the_same_bytes(make_shards, tmp_path, to):
    folder = make_shards([PLAIN, {}])
    for _ in range(2):
        export.run_export(folder, to, tmp_path / "out")
        found = {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
        assert found == locals().get("first", found)
        first = found
    assert not list(tmp_path.glob(".*"))
    assert "omitted.jsonl" not in first and "README.md" in first


def test_a_folder_that_it_did_not_make_is_refused(make_shards, tmp_path):
    folder = make_shards([PLAIN])
    (tmp_path / "out").mkdir()
    export.run_export(folder, Trainer.TRL, tmp_path / "out")  # an empty one is fine
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert curate("export", folder, "--to", "trl", "--out", tmp_path / "mine").refused("mine", "was not made by")
    assert curate("export", folder, "--to", "trl", "--out", folder).refused("was not made by")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_a_disk_that_fills_up_leaves_the_older_export(make_shards, tmp_path, monkeypatch):
    folder = make_shards([PLAIN, {}])
    export.run_export(folder, Trainer.AXOLOTL, tmp_path / "out")
    before = (tmp_path / "out" / "train.jsonl").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export, "sync", full)
    said = curate("export", folder, "--to", "axolotl", "--out", tmp_path / "out")
    assert said.code == 3 and "disk is full" in said.err
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_mistakes_say_what_was_expected(make_shards, make_run, tmp_path):
    folder = make_shards([PLAIN])
    assert curate("export", folder, "--out", tmp_path / "x").refused("--to is missing", "llama-factory")
    assert curate("export", folder, "--to", "trl").refused("--out is missing")
    assert curate("export", tmp_path / "no", "--to", "trl", "--out", tmp_path / "x").refused("no such folder")
    run = make_run({"base": [1.0]}, name="other")
    assert curate("export", run, "--to", "trl", "--out", tmp_path / "x").refused("expected 'shards'")
    assert curate("export", folder, "--to", "unsloth", "--out", tmp_path / "x").code == 2


def test_every_trainer_has_a_format():
    assert set(FORMATS) == set(Trainer)
