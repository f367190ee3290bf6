"""Run folders: `full_run` scored by the tiny model, `make_run` with the margins that a test wants."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rmo_curate.score.engines import spec
from tests.rmo_curate.made_run import write_run
from tests.rmo_curate.scored import PROXY, record, score_demo, write_jsonl


@pytest.fixture
def make_run(tmp_path: Path):
    """make_run({"base": D_0, "oof-16": D_T}) -> the path of a run folder, `name` in the test's own: see `write_run`."""

    def make(margins: Mapping[str, Sequence[float]] | None = None, *, name: str = "run", **more: Any) -> Path:
        return write_run(tmp_path / name, margins, **more)

    return make


@pytest.fixture(scope="session")
def full_run(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 16 demo pairs, scored by the base and two cross-fitted proxies. Read only."""
    return score_demo(tmp_path_factory.mktemp("full"), tiny_model_folder, 16, proxy=PROXY)


@pytest.fixture(scope="session")
def demo_data(full_run: Path) -> Path:
    """The data of `full_run`. Read only."""
    return full_run.parent / "pairs.jsonl"


@pytest.fixture
def run(full_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return shutil.copytree(full_run, tmp_path / "run")


@pytest.fixture
def nothing_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, loading a model to score or to train fails."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(spec, "TransformersEngine", refuse)
    monkeypatch.setattr("rmo_train.training.job.build_job", refuse)


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test of its own, without a recipe."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def model(tiny_model_folder: Path) -> Path:
    """What a command line gets as --model. Read only."""
    return tiny_model_folder


@pytest.fixture
def data(working_folder: Path) -> Path:
    """Eight pairs in the working folder."""
    return write_jsonl(working_folder / "pairs.jsonl", [record(i) for i in range(8)])


@pytest.fixture(scope="session")
def base_only(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 8 demo pairs, scored by the base alone. Read only."""
    return score_demo(tmp_path_factory.mktemp("base"), tiny_model_folder, 8)
