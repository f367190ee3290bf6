"""Fixtures that every test package shares. No test uses the network."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread only waits

from rmo_train.console.errors import UserError
from rmo_train.model.embedded import gguf_file
from tests.tiny import make_tokenizer, write_tiny_model


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C, and so would every process that a test starts to interrupt it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: random Llama (hidden 32, 2 layers, 4 heads, float32) with a chat tokenizer. Read only."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The name of the embedded model; the test is skipped where its package is not installed."""
    try:
        gguf_file("smollm2-135m")
    except UserError as e:
        pytest.skip(str(e))
    return "smollm2-135m"


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2: str):
    from rmo_train.model.models import load_tokenizer

    return load_tokenizer(smollm2)


class Busy:
    """Inside `with`, processes beside this one use up the cores."""

    def __enter__(self) -> None:
        self.processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def busy() -> Busy:
    return Busy()
