"""File systems of their own, for tests of full and read-only disks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs at `folder` with mount's `options`; the test is skipped where mounting is not allowed."""
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    except OSError as e:
        pytest.skip(f"no mount command: {e}")
    if made.returncode:
        pytest.skip(f"mounting a file system is not allowed here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
