"""A vLLM process that lives and does not answer is ended and started again, like one that died."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rmo_curate.score.engines import vllm, vllm_process
from rmo_curate.score.engines.vllm import VllmEngine
from rmo_curate.score.engines.vllm_process import EngineDied, EngineProcess
from rmo_curate.score.engines.vllm_worker import EngineSettings, Sequence
from rmo_train.console.errors import ProcessingError
from tests.rmo_curate.score import stand_in_vllm as stand_in
from tests.rmo_curate.score.stand_in_vllm import saying
from tests.rmo_curate.score.test_scoring import pair_data

SETTINGS = EngineSettings("m", "float32", longest=9, tokens=128, kv_cache_bytes=1)


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """The stand-in on both import paths, and a second of patience with a request; the stand-in's folder."""
    package, more = stand_in.write_stand_in(tmp_path)
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), str(more)]))
    monkeypatch.setattr(vllm_process, "REQUEST_LIMIT", 1.0)
    monkeypatch.setattr(vllm_process, "FIRST_SECONDS_PER_TOKEN", 0.0)
    return package


def sequence(*tokens: int) -> Sequence:
    return Sequence(np.array(tokens, dtype=np.int32), 1)


def has_ended(process: EngineProcess) -> bool:
    return process.process.poll() is not None


def test_a_request_that_is_not_answered_ends_the_process_and_is_no_lack_of_memory(installed, tmp_path):
    engine = EngineProcess(SETTINGS, tmp_path / "v.log")
    assert engine.sums([sequence(1, 7)]).tolist() == pytest.approx([-0.007])
    with pytest.raises(EngineDied, match="no answer for 0 minutes") as death:
        engine.sums([sequence(1, stand_in.SLEEP)])
    assert not death.value.memory and has_ended(engine)


def test_a_start_that_hangs_is_ended(installed, tmp_path, monkeypatch):
    (installed / "vllm.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(vllm_process, "START_LIMIT", 1.0)
    with pytest.raises(EngineDied, match="no answer for") as death:
        EngineProcess(SETTINGS, tmp_path / "v.log")
    assert not death.value.memory


def test_patience_grows_with_the_tokens_asked_for_and_with_what_was_measured(installed, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_process, "FIRST_SECONDS_PER_TOKEN", 0.5)
    assert vllm_process.patience(5, None) == 1 + 0.5 * 5
    assert vllm_process.patience(100, 0.25) == 1 + 20 * 0.25 * 100
    engine = EngineProcess(SETTINGS, tmp_path / "v.log")
    assert engine.slowest is None
    engine.sums([sequence(1, 7), sequence(1, 7, 7)])
    slowest = engine.slowest
    engine.sums([sequence(*range(1, 101))])
    assert slowest and engine.slowest is not None and engine.slowest >= slowest


def test_a_process_that_keeps_hanging_is_given_up_and_keeps_its_step(
    installed, tiny_model_folder, tmp_path, monkeypatch, capsys
):
    theirs = np.array([[-0.007, -stand_in.SLEEP / 1000]])
    monkeypatch.setattr(vllm, "TransformersEngine", saying(lambda data, rows: theirs))
    engine = VllmEngine(str(tiny_model_folder), "float32", 9, 256, log=tmp_path / "v.log")
    with pytest.raises(ProcessingError, match=r"no answer for 0 minutes\) for the 4th time in this part"):
        engine.score(pair_data([([1], [7], [stand_in.SLEEP])]), np.array([0]))
    said = capsys.readouterr().err
    assert said.count("no answer for 0 minutes); starting it again with 256 tokens per step") == 3
