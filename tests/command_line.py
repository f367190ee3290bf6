"""The command lines in this process: what a user types, and what comes back."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import Any
from unittest import mock

import rmo.cli
import rmo_curate.cli
import rmo_train.cli


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    def refused(self, *said: str) -> bool:
        """Exit code 2 and one error, without a traceback, that says all of `said`; what differs is shown."""
        assert self.code == 2, self
        assert "Traceback" not in self.err and self.err.count("error: ") <= 1, self.err
        text = " ".join(self.err.replace("│", " ").split())  # as if no frame or line break were there
        missing = [words for words in said if words not in text]
        assert not missing, f"not said: {missing}\n{self.err}"
        return True


def curate(*arguments: Any) -> Outcome:
    return _run("rmo-curate", rmo_curate.cli.main, arguments)


def train(*arguments: Any) -> Outcome:
    return _run("rmo-train", rmo_train.cli.main, arguments)


def chain(*arguments: Any) -> Outcome:
    return _run("rmo", rmo.cli.main, arguments)


def _run(name: str, main: Any, arguments: tuple[Any, ...]) -> Outcome:
    """Any exception but SystemExit goes through: a user would see its traceback."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with (
        mock.patch("sys.argv", [name, *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as e:
            code = e.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())
