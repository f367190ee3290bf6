"""Cells of the detection grid: a probe under flipped labels is the one that the commands give on the flipped file."""

from __future__ import annotations

import numpy as np

from benchmarks.cells import Cell, flipped_file, flipped_ids, read_scores, with_probe
from rmo_curate.rules import RULES
from tests.command_line import curate
from tests.rmo_curate.scored import demo_records


def test_flips_of_scored_data_equal_scores_of_flipped_data(tiny_model_folder, tmp_path):
    names = ("prompt", "chosen", "rejected")
    rows = [{"id": row["id"], **{name: row[name][-1]["content"] for name in names}} for row in demo_records(40)]
    cell = Cell("demo", "longer", 0.3, folds=4, seed=3, probe=True)
    flipped = flipped_ids(rows, cell)
    assert len(flipped) == 12

    def scored(name: str, flips: str, *commands: tuple[object, ...]):
        data = flipped_file(Cell("demo", flips, 0.3, 4, 3, probe=True), rows, tmp_path / name / "pairs.jsonl")
        run = tmp_path / name / "run"
        score = ("--model", tiny_model_folder, "--out", run, "--dtype", "float32", "--proxy-folds", 0)
        assert curate("score", data, *score).code == 0
        assert all(curate("probe", run, *command).code == 0 for command in commands)
        return run

    by_command = read_scores(scored("flipped", "longer", ("--folds", 4, "--seed", 3)))
    from_given = with_probe(scored("given", "none", ()), flipped, cell)
    assert by_command.ids.to_pylist() == from_given.ids.to_pylist() and from_given.names == by_command.names
    for name in ("chosen_logp", "rejected_logp"):
        np.testing.assert_allclose(getattr(from_given, name), getattr(by_command, name), atol=2e-2, err_msg=name)
    for name in ("chosen_tokens", "rejected_tokens", "fold", "held_out"):
        np.testing.assert_array_equal(getattr(from_given, name), getattr(by_command, name), err_msg=name)
    for rule in ("irm", "length"):
        order = [np.argsort(RULES[rule].suspicion(s), kind="stable")[:10] for s in (by_command, from_given)]
        np.testing.assert_array_equal(*order)
