"""What the trainer says: nouns as numbers ask for them, no negative time left, versions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import rmo.cli
import rmo_curate.cli
import rmo_train.cli
from rmo_train import __version__
from rmo_train.console import progress
from rmo_train.console.wording import counted, place

ROOT = Path(__file__).parents[2]


def test_a_noun_follows_its_number():
    assert [counted(n, "pair") for n in (0, 1, 2048)] == ["0 pairs", "1 pair", "2,048 pairs"]
    assert [counted(n, "minute") for n in (1.0, 0.5, 10.0)] == ["1 minute", "0.5 minutes", "10 minutes"]
    assert counted(2, "reply", "replies") == "2 replies"


def test_a_place_is_a_line_only_where_records_are_lines():
    assert place("a/b.jsonl", 3) == "a/b.jsonl:3" and place("b.NDJSON.zst", 3) == "b.NDJSON.zst:3"
    assert place("b.json", 3) == "b.json, record 3" and place("jsonl.parquet", 3) == "jsonl.parquet, record 3"


def test_no_time_left_is_negative_and_one_step_is_one(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    with progress.progress("train", 2, "step") as bar:
        for _ in range(4):  # more than was foreseen
            bar.advance()
    with progress.progress("train", 5, "step", 4) as bar:
        bar.advance()
    said = capsys.readouterr().err.splitlines()
    assert [re.sub(r"[\d.]+ s\b", "T", line) for line in said] == [
        "train: 1/2 steps, T left", "train: 2/2 steps, T left", "train: 3/3 steps, T left", "train: 4/4 steps, T left",
        "train: 4 steps in T", "train: 5/5 steps, T left", "train: 1 step in T",
    ]  # fmt: skip
    assert " -" not in "".join(said)


@pytest.mark.parametrize("cli", [rmo.cli, rmo_curate.cli, rmo_train.cli], ids=["rmo", "rmo-curate", "rmo-train"])
def test_every_command_line_says_its_version(cli):
    result = CliRunner().invoke(cli.app, ["--version"])
    name = cli.__name__.removesuffix(".cli").replace("_", "-")
    assert (result.exit_code, result.output) == (0, f"{name} {__version__}\n")


def test_the_trainer_names_no_command_of_curation():
    naming = [p for p in (ROOT / "rmo_train").rglob("*.py") if "rmo-curate" in p.read_text(encoding="utf-8")]
    assert not naming
