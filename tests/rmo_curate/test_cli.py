"""The command lines as such: how they start, their help, dry runs, and what they write besides a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import curate, train
from tests.rmo_curate.scored import marks, score_line

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.mark.parametrize("module", ["rmo_curate.cli", "rmo_train.cli"])
def test_a_command_line_starts_without_the_heavy_libraries(module):
    heavy = ("torch", "transformers", "polars", "matplotlib", "datasets", "peft", "vllm")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", [curate, train])
def test_help_and_no_command(command):
    assert command("--help").code == 0 and "Usage" in command("--help").out
    assert command().code in (0, 2) and "Traceback" not in command().err


@pytest.mark.parametrize("name", ["score", "proxy", "filter", "audit", "status"])
def test_every_command_has_help_for_every_option(name):
    outcome = curate(name, "--help")
    assert outcome.code == 0 and "--help" in outcome.out


def test_a_dry_run_writes_nothing(data, model, full_run):
    outcome = score_line(data, model, "--dry-run")
    assert outcome.code == 0 and "8 records, 8 pairs" in outcome.out and not Path("run").exists()
    before = marks(full_run)
    assert curate("proxy", full_run, "--folds", 3, "--dry-run").code == 0
    outcome = curate("filter", full_run, "--out", "shards", "--dry-run")
    assert outcome.code == 0 and "dry run: shards is not written" in outcome.out
    assert marks(full_run) == before and not Path("shards").exists()


@pytest.mark.parametrize("command", [["filter", "nowhere", "--out", "shards"], ["proxy", "nowhere"]])
def test_a_path_on_the_command_line_must_exist_even_in_a_dry_run(command):
    assert curate(*command, "--dry-run").refused("nowhere")


def test_json_of_an_evaluation(full_run, model):
    outcome = train("eval", full_run, "--model", model, "--out", "eval.json")
    assert outcome.code == 0 and json.loads(Path("eval.json").read_text())["n"] == 16


def test_audit_of_a_run_without_a_proxy_shows_what_can_be_shown(base_only, working_folder):
    outcome = curate("audit", base_only, "--out", "report")
    assert outcome.code == 0, outcome.err
    assert "rmo-curate proxy" in (working_folder / "report" / "report.html").read_text(encoding="utf-8")
    assert json.loads((working_folder / "report" / "audit.json").read_text())["end"] is None
