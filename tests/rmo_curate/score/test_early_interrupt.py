"""Ctrl-C while a command is still loading: one line, exit code 130, no traceback.

The first moments belong to Python itself, before the first line of ours runs; what is interrupted there is not counted.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from rmo_train.console.loading import Loading
from tests.rmo_curate.scored import DEMO

ROOT = Path(__file__).parents[3]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
FIRST_LINES = {"__init__.py", "__main__.py", "loading.py"}  # of ours, until a Ctrl-C is answered


def interrupted(command: list[str], after: float) -> tuple[int, str]:
    """Exit code and stderr of a command that gets a Ctrl-C `after` seconds."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def is_before_our_first_line(said: str) -> bool:
    """Whether it is Python's own traceback, with no more of ours in it than the lines that come to answer."""
    ours = {Path(name).name for name in re.findall(rf'File "{ROOT}/(rmo_[^"]+)"', said)}
    return "KeyboardInterrupt" in said and ours <= FIRST_LINES


@pytest.mark.parametrize("name", ["rmo-curate", "rmo-train"])
def test_a_command_that_loads_stops_with_one_line(name, tiny_model_folder, tmp_path):
    module, function = SCRIPTS[name].split(":")
    script = f"import sys; from {module} import {function}; sys.exit({function}())"  # as installed
    arguments = ["score", str(DEMO)] if name == "rmo-curate" else ["run", str(tmp_path)]
    command = [
        sys.executable,
        "-c",
        script,
        *arguments,
        "--model",
        str(tiny_model_folder),
        "--out",
        str(tmp_path / "o"),
    ]
    subprocess.run([sys.executable, "-c", script, "--help"], cwd=ROOT, check=True, capture_output=True)  # it starts
    counted = 0
    for after in (0.05, 0.1, 0.2, 0.4, 0.7, 1.0) if name == "rmo-curate" else (0.1, 0.3):
        code, said = interrupted(command, after)
        if not is_before_our_first_line(said):
            assert code == 130 and "Traceback" not in said, said
            assert said.strip().splitlines()[-1].startswith("stopped"), said
            counted += 1
    assert counted >= 2


def test_an_ignored_ctrl_c_stays_ignored_and_another_s_answer_his():
    before = signal.getsignal(signal.SIGINT)
    try:
        for answer in (signal.SIG_IGN, lambda *given: None, signal.default_int_handler):
            signal.signal(signal.SIGINT, answer)
            with Loading():
                assert (signal.getsignal(signal.SIGINT) is answer) == (answer is not signal.default_int_handler)
            assert signal.getsignal(signal.SIGINT) is answer
    finally:
        signal.signal(signal.SIGINT, before)
