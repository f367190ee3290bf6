"""Cells of the detection grid: evidence under flipped labels is what the commands give on the flipped file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import flips
from benchmarks.cells import Cell, DataSet, cells, flipped, members, read_scores, scored, under_labels, without_model
from rmo_curate.evidence.gather import without_model as judged_by_texts
from rmo_curate.evidence.rules import RULES
from rmo_curate.evidence.texts import read_texts
from rmo_curate.runs.run import open_run
from tests.command_line import curate
from tests.rmo_curate.scored import demo_records


def records() -> list[dict]:
    """40 demo pairs; the last 12 share the prompt and the chosen answer with others, as ranked answers do."""
    rows = [{name: row[name][-1]["content"] for name in ("prompt", "chosen", "rejected")} for row in demo_records(40)]
    for i in range(28, 40):
        rows[i] |= {name: rows[i - 12][name] for name in ("prompt", "chosen")}
    return rows


@pytest.fixture(scope="module")
def data(tiny_model_folder, tmp_path_factory) -> DataSet:
    folder = tmp_path_factory.mktemp("cells")
    models = [{"chosen_model": f"m{i % 3}", "rejected_model": f"m{(i + 1) % 3}"} for i in range(40)]
    for name, rows in (("pairs", records()), ("gold", [{"id": f"pairs-{i}"} | row for i, row in enumerate(models)])):
        with gzip.open(folder / name, "wt") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)

    def in_float32(timing: Path, arguments: tuple) -> dict[str, float]:
        assert curate(*arguments, "--dtype", "float32").code == 0
        return {}

    with pytest.MonkeyPatch.context() as patch:  # in bfloat16, another order of pairs gives other log-probs
        patch.setattr("benchmarks.cells.timed", in_float32)
        return scored("demo", folder / "pairs", folder / "gold", str(tiny_model_folder), folder / "work")


def by_command(data: DataSet, wrong: np.ndarray, model: Path, folder: Path) -> Path:
    """The run that the commands give on the file with these labels, with the answers' models beside them."""
    names = [data.gold[row["id"]] for row in data.rows]
    swap = {"chosen_model": "rejected_model", "rejected_model": "chosen_model"}
    rows = [
        row | {name: found[swap[name] if w else name] for name in swap}
        for row, found, w in zip(data.rows, names, wrong, strict=True)
    ]
    file = flips.write_flipped(rows, wrong, folder / "pairs.jsonl")
    run = folder / "run"
    score = ("--model", model, "--out", run, "--dtype", "float32", "--proxy", "none")
    assert curate("score", file, *score).code == 0 and curate("proxy", run, "--seed", 3).code == 0
    return run


def test_evidence_under_flipped_labels_is_that_of_the_commands_on_the_flipped_file(data, tiny_model_folder, tmp_path):
    rows = np.arange(len(data.rows))
    wrong = flipped(Cell("demo", "longer", 0.3, 3), data, rows)
    assert wrong.sum() == 12
    run = by_command(data, wrong, tiny_model_folder, tmp_path)
    expected, found = read_scores(run), under_labels(data, rows, wrong, 3, generators=True)
    assert expected.ids.to_pylist() == found.ids.to_pylist() and found.names == expected.names
    for name in ("chosen_logp", "rejected_logp"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-2, err_msg=name)
    for name in ("chosen_tokens", "rejected_tokens", "fold", "held_out", "groups"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert found.posterior.sources == expected.posterior.sources
    assert set(found.posterior.sources) == {"reference", "states", "style", "generators", "answers"}
    for name in ("won", "compared"):
        np.testing.assert_array_equal(getattr(found.posterior, name), getattr(expected.posterior, name))
    np.testing.assert_allclose(found.posterior.right, expected.posterior.right, atol=1e-2)
    for rule in ("posterior", "irm", "length"):
        order = [np.argsort(RULES[rule].suspicion(s), kind="stable")[:10] for s in (expected, found)]
        np.testing.assert_array_equal(*order, err_msg=rule)

    alone = judged_by_texts(read_texts(open_run(run).pair_parts(("prompt", "chosen", "rejected"))))
    np.testing.assert_allclose(without_model(data, rows, wrong).right, alone.right, atol=1e-9)


def test_labels_as_given_are_those_of_no_flips(data):
    rows = np.arange(len(data.rows))
    assert not flipped(Cell("demo", "none", 0.0, 0), data, rows).any()
    found = under_labels(data, rows, np.zeros(len(rows), dtype=bool), 0)
    np.testing.assert_array_equal(found.chosen_logp[:, 0], data.scores.chosen_logp[:, 0])
    assert "generators" not in found.posterior.sources


def test_members_are_whole_prompts_by_their_place_or_by_the_seed(data):
    number = data.prompts
    assert number[0] == 0 and len(set(number.tolist())) == len(set(data.groups.tolist())) == 28
    first = members(Cell("demo", "none", 0.0, 0), data, {"prompts": 10})
    assert set(number[first].tolist()) == set(range(10))
    later = members(Cell("demo", "none", 0.0, 0), data, {"after": 10, "prompts": 5})
    assert set(number[later].tolist()) == set(range(10, 15))
    drawn = members(Cell("demo", "none", 0.0, 1, pairs=12), data, {})
    assert len(drawn) == 12 and (np.diff(drawn) > 0).all()
    more = members(Cell("demo", "none", 0.0, 1, pairs=24), data, {})
    assert set(drawn.tolist()) < set(more.tolist())  # a learning curve adds pairs
    assert set(members(Cell("demo", "none", 0.0, 2, pairs=12), data, {}).tolist()) != set(drawn.tolist())


def test_the_grid_has_the_first_seed_of_every_cell_first():
    plan = {
        "cells": [
            {"data": "a", "flips": "uniform", "rate": 0.2, "seeds": [0, 1]},
            {"data": "b", "flips": "none", "rate": 0.0, "seeds": [0], "pairs": 500, "generators": True},
        ]
    }
    names = [cell.name for cell in cells(plan)]
    assert names == ["a-uniform20-s0", "b-none0-n500-generators-s0", "a-uniform20-s1"]
