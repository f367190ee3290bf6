import numpy as np
import pytest

from rmo_curate.runs.run import open_run
from rmo_train.console.errors import UserError
from rmo_train.store import files
from rmo_train.store.tables import flagged


def test_scores_are_joined_by_id_whatever_their_order(make_run):
    base, end = [1.0, -2.0, 3.0, 4.5, -5.0], [2.0, -1.0, 0.5, 0.0, 7.0]
    run = open_run(make_run({"base": base, "oof-16": end}, part_size=2))
    scores = run.scores(run.trajectory())
    assert scores.names == ("base", "oof-16")
    np.testing.assert_array_equal(scores.chosen_logp - scores.rejected_logp, np.array([base, end]).T)
    assert scores.held_out.tolist() == [True] * 5


def test_a_too_long_pair_has_no_scores(make_run):
    run = open_run(make_run({"base": [1.0, 2.0, 3.0]}, too_long=[1]))
    assert flagged(run.pairs(["flags"]), "too_long").tolist() == [False, True, False]
    scores = run.scores(run.trajectory())
    assert np.isnan(scores.chosen_logp[:, 0]).tolist() == [False, True, False]
    assert scores.held_out.tolist() == [None] * 3


@pytest.mark.parametrize(
    ("names", "proxy", "expected"),
    [
        (["base"], None, ["base"]),
        (["base", "mine-aa"], None, ["base", "mine-aa"]),
        (["base", "mine-aa", "yours-bb"], "mine-aa", ["base", "mine-aa"]),
        (["base", "oof-8", "oof-16"], None, ["base", "oof-8", "oof-16"]),
        (["base", "oof-8", "oof-16"], "oof-8", ["base", "oof-8"]),
        (["base", "mine-aa", "insample-16", "oof-16"], None, ["base", "mine-aa", "oof-16"]),  # cross-fitted first
        (["base", "insample-16", "oof-16"], "insample-16", ["base", "insample-16"]),
        (["base", "oof-16", "oof-seed2-16"], None, ["base", "oof-16"]),  # never two families
        (["base", "oof-16", "oof-seed2-8", "oof-seed2-16"], "oof-seed2-16", ["base", "oof-seed2-8", "oof-seed2-16"]),
    ],
)
def test_trajectory_ends_where_the_contract_says(make_run, names, proxy, expected):
    trajectory = open_run(make_run({name: [1.0, 2.0] for name in names})).trajectory(proxy)
    assert list(trajectory.names) == expected
    assert (trajectory.end.name if trajectory.end else "base") == expected[-1]


def test_an_unknown_proxy_is_refused_with_the_nearest_names(make_run):
    run = open_run(make_run({"base": [1.0], "oof-16": [1.0]}))
    with pytest.raises(UserError, match=r"--end oof-61.*did you mean 'oof-16'"):
        run.trajectory("oof-61")
    with pytest.raises(UserError, match="--end base"):
        run.trajectory("base")


def test_rejects_are_read_with_their_reasons(make_run):
    run = open_run(make_run({"base": [1.0]}, rejects=[{"reason": "identical_responses", "raw": "{}"}]))
    assert run.rejects()["reason"].to_pylist() == ["identical_responses"]


def test_a_folder_that_is_no_finished_run_names_the_command(make_run, tmp_path):
    with pytest.raises(UserError, match=r"no such folder.*rmo-curate score"):
        open_run(tmp_path / "nowhere")
    folder = make_run({"base": [1.0]})
    with pytest.raises(UserError, match="expected 'run'"):
        open_run(folder / "pairs")
    manifest = files.read_json(folder / "manifest.json")
    files.write_json(folder / "manifest.json", manifest | {"checkpoints": []})
    with pytest.raises(UserError, match=r"the scores of the reference model are not complete.*rmo-curate score"):
        open_run(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"not a finished run folder.*rmo-curate score"):
        open_run(folder)


def test_a_damaged_score_part_is_refused(make_run):
    folder = make_run({"base": [1.0, 2.0]})
    part = next((folder / "scores" / "base").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    run = open_run(folder)
    with pytest.raises(UserError, match="damaged or edited"):
        run.scores(run.trajectory())


def test_scores_of_other_pairs_are_refused(make_run):
    folder = make_run({"base": [1.0, 2.0, 3.0]})
    other = make_run({"base": [1.0, 2.0]}, name="other")
    (folder / "scores").rename(folder / "unused")
    (other / "scores").rename(folder / "scores")
    run = open_run(folder)
    with pytest.raises(UserError, match=r"no scores for 1 of the run's 3 scorable pairs, the first 'p2'"):
        run.scores(run.trajectory())


def test_scores_with_rows_of_unknown_pairs_are_refused(make_run):
    folder = make_run({"base": [1.0, 2.0]})
    other = make_run({"base": [1.0, 2.0, 3.0]}, name="other")
    (folder / "scores").rename(folder / "unused")
    (other / "scores").rename(folder / "scores")
    run = open_run(folder)
    with pytest.raises(UserError, match="3 rows for 2 scorable pairs"):
        run.scores(run.trajectory())


def test_a_log_prob_that_is_not_finite_names_the_pair(make_run):
    run = open_run(make_run(logps={"base": [(-1.0, -2.0), (float("nan"), -2.0)]}))
    with pytest.raises(UserError, match=r"a log-prob is missing or not finite in 1 pair, the first 'p1'"):
        run.scores(run.trajectory())
