"""Work in one process a core, whoever asks for it."""

from __future__ import annotations

import subprocess
import sys

from rmo_curate.read.processes import in_processes

SCRIPT = """
from rmo_curate.read.processes import in_processes
print("begun", list(in_processes(len, ([0] * n for n in range(9)), 2, "counts")))
"""


def test_answers_come_in_the_order_of_the_batches():
    asked = [[0] * n for n in (3, 1, 2)]
    assert list(in_processes(len, asked, 1, "counts")) == [3, 1, 2]


def test_a_script_that_guards_nothing_is_not_run_again_by_the_processes(tmp_path):
    """As a notebook's cell or a user's file is, with no `if __name__ == "__main__"`."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    assert done.stdout == f"begun {list(range(9))}\n", done.stderr
