"""Paths on the command line that are missing, that hold something else, or that hold other settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command_line import curate
from tests.manifests import manifest_of
from tests.rmo_curate.scored import marks, perturbed, score_line

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["score", "pairs.jsonl", "--out", "run"], "--model is missing: give it on the command line, or `score.model`"),
        (["score", "pairs.jsonl", "--model", "tiny"], "--out is missing"),
        (["score", "--model", "tiny", "--out", "run"], "DATA is missing: give it on the command line, or `data.train`"),
        (["filter", "--out", "shards"], "RUN is missing"),
        (["filter", "run"], "--out is missing"),
        (["status"], "RUN is missing"),
        (["score", "pairs.jsonl", "--out", "run", "--model"], "requires an argument"),
    ],
)
def test_what_is_missing_is_named(data, model, arguments, said):
    outcome = curate(*[str(model) if a == "tiny" else a for a in arguments])
    assert outcome.refused(said)
    assert not Path("run").exists() and not Path("shards").exists()


@pytest.mark.parametrize("command", ["status", "proxy", "filter", "audit"])
@pytest.mark.parametrize("kind", ["absent", "a folder of something else", "a file"])
def test_a_run_that_is_none(data, command, kind, working_folder):
    if command == "audit" and kind != "absent":
        pytest.skip("audit takes data, too")
    run = {"absent": "nowhere", "a folder of something else": working_folder, "a file": data}[kind]
    more = ["--out", "made"] if command in ("filter", "audit") else []
    outcome = curate(command, run, *more)
    assert outcome.refused(str(run), "rmo-curate score")
    assert not Path("made").exists()


@pytest.mark.parametrize("out", ["pairs.jsonl", "pairs.jsonl/run"])
def test_an_output_that_cannot_be_a_folder(data, model, out):
    outcome = curate("score", data, "--model", model, "--out", out, "--proxy", "none")
    assert outcome.refused(f"--out {out}")
    assert data.read_text().count("\n") == 8


def test_an_output_folder_of_other_settings(data, model):
    assert score_line(data, model).code == 0
    before = marks(Path("run"))
    outcome = score_line(data, model, "--max-length", 512)
    assert outcome.refused("run", "max_length: the folder has 2048, you asked for 512", "--overwrite")
    assert marks(Path("run")) == before
    assert score_line(data, model, "--max-length", 512, "--overwrite").code == 0
    assert manifest_of(Path("run"))["max_length"] == 512


def test_another_model_on_a_finished_run(data, model, working_folder):
    assert score_line(data, model).code == 0
    before = marks(Path("run"))
    assert score_line(data, perturbed(model, working_folder / "other")).refused("weights_sha256: the folder has")
    assert marks(Path("run")) == before


def test_an_output_folder_of_something_else(data, model, full_run):
    assert curate("filter", full_run, "--out", "shards", "--rule", "none").code == 0
    before = marks(Path("shards"))
    outcome = curate("score", data, "--model", model, "--out", "shards", "--overwrite")
    assert outcome.refused("--out shards: the folder holds files that do not belong to a run", "choose another folder")
    assert marks(Path("shards")) == before
