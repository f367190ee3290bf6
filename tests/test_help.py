"""`--help` at 80 columns: every flag name stands whole, and so does every sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.test_docs import APPS, LINES

COMMANDS = [(program, name) for program, app in APPS.items() for name in app.commands]
COLUMN = re.compile(r" {2,}| *\n *")
AT_A_HYPHEN = re.compile(r"(?<=\w-)\n +(?=\w)")
CUT_FLAG = re.compile(r"--[a-z][a-z-]*-$", re.M)


def help_of(program: str, *names: str) -> str:
    result = CliRunner().invoke(LINES[program], [*names, "--help"], env={"COLUMNS": "80"}, terminal_width=80)
    assert result.exit_code == 0
    return result.output


def one_line(text: str) -> str:
    return COLUMN.sub(" ", AT_A_HYPHEN.sub("", text))


def names_of(parameter: Any) -> list[str]:
    return [name for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")]


@pytest.mark.parametrize(("program", "name"), COMMANDS)
def test_every_flag_and_its_help_stand_whole_at_80_columns(program: str, name: str):
    text = help_of(program, name)
    assert max(map(len, text.splitlines())) <= 80
    assert not CUT_FLAG.findall(text), "a flag's name is broken at a hyphen"
    for parameter in APPS[program].commands[name].params:
        for flag in names_of(parameter):
            assert re.search(rf"^  (--\S+ / )?{flag}(?= |$)", text, re.M), f"{flag} is cut"
        assert not parameter.help or parameter.help in one_line(text), f"the help of {parameter.name} is cut"


@pytest.mark.parametrize("program", APPS)
def test_every_command_has_its_whole_summary(program: str):
    text = help_of(program)
    for name, command in APPS[program].commands.items():
        summary = command.help.split("\n\n")[0].split(". ")[0].rstrip(".")
        assert f" {name} {summary}" in one_line(text)
