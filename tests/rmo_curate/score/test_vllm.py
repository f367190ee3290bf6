"""The vLLM engine without vLLM: sequences, memory, agreement, and the process with a stand-in behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmo_curate.score.engines import vllm
from rmo_curate.score.engines.spec import EngineSpec
from rmo_curate.score.engines.vllm import Agreement, VllmEngine, distinct_sequences, request_sizes
from rmo_curate.score.engines.vllm_memory import plan_memory, step_tokens
from rmo_curate.score.engines.vllm_process import EngineDied, EngineProcess
from rmo_curate.score.engines.vllm_worker import EngineSettings, Sequence
from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.forward.layout import Workload
from tests.rmo_curate.score import stand_in_vllm as stand_in
from tests.rmo_curate.score.stand_in_vllm import saying
from tests.rmo_curate.score.test_scoring import pair_data

GIB = 2**30
ROOT = Path(__file__).parents[3]
# Prompt [1, 2]; the response [7] is chosen twice and rejected once.
PAIRS = pair_data([([1, 2], [7], [10, 20]), ([1, 2], [7], [30]), ([3], [40, 50], [7])])
LOGPS = [[-0.007, -0.030], [-0.007, -0.030], [-0.090, -0.007]]


@pytest.fixture
def installed(tmp_path, monkeypatch) -> Path:
    """The stand-in on both import paths; its folder."""
    package, more = stand_in.write_stand_in(tmp_path)
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package), str(more)]))
    return package


def lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().splitlines()]


def settings(**more) -> EngineSettings:
    return EngineSettings(
        **({"model": "m", "dtype": "float32", "longest": 9, "tokens": 128, "kv_cache_bytes": 1} | more)
    )


def sequence(*tokens: int, start: int = 1) -> Sequence:
    return Sequence(np.array(tokens, dtype=np.int32), start)


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def wait_until(condition, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


# ---------------------------------------------------------------------------------------------------- sequences


def test_each_distinct_sequence_is_asked_for_once():
    sequences, slots = distinct_sequences(PAIRS, np.arange(3))
    assert [(s.tokens.tolist(), s.start) for s in sequences] == [
        ([1, 2, 7], 2), ([1, 2, 10, 20], 2), ([1, 2, 30], 2), ([3, 40, 50], 1), ([3, 7], 1),
    ]  # fmt: skip
    assert slots.tolist() == [[0, 1], [0, 2], [3, 4]]


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 100))
def test_requests_hold_all_sequences_and_at_most_the_tokens_allowed(lengths, tokens):
    sequences = [sequence(*range(n)) for n in lengths]
    sizes = list(request_sizes(sequences, tokens))
    assert sum(sizes) == len(lengths) and all(sizes)
    at = 0
    for size in sizes:
        assert size == 1 or sum(lengths[at : at + size]) <= tokens
        at += size


# ---------------------------------------------------------------------------------------------------- memory


def test_the_tokens_of_a_step_follow_from_vocabulary_and_memory():
    assert step_tokens(152_064, 80 * GIB, 8192) == 8192  # 6.97 GiB of at most 10
    assert step_tokens(152_064, 24 * GIB, 8192) == 3520  # 3 GiB / (152064 x 6 B) = 3530.5, down to a multiple of 64
    assert step_tokens(152_064, GIB, 8192) == 128  # 147.1
    assert step_tokens(10**9, GIB, 8192) == 64


LLAMA = SimpleNamespace(
    vocab_size=1000, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, hidden_size=32
)
LLAMA.get_text_config = lambda: LLAMA


def test_the_memory_sum_by_hand():
    plan = plan_memory(LLAMA, 5000, "float32", longest=50, tokens=100, device_bytes=GIB)
    assert plan.logprobs == 100 * 1000 * 6
    assert plan.kv_cache == 4 * (100 + 50) * (2 * 2 * 2 * 8 * 4)  # K and V, layers, heads, size, bytes
    assert plan.total == 5000 + plan.logprobs + plan.kv_cache
    assert "log-probs 100 tokens x 1,000 entries x 6 B = 0.00; 0.00 of 1.00 GiB" in plan.line


def test_gpus_share_weights_and_heads_and_each_holds_all_log_probs():
    plan = plan_memory(LLAMA, 5001, "float32", longest=50, tokens=100, device_bytes=GIB, gpus=4)
    assert (plan.weights, plan.logprobs) == (1251, 100 * 1000 * 6)
    assert plan.kv_cache == 4 * (100 + 50) * (2 * 2 * 1 * 8 * 4)  # two heads over four GPUs: one on each
    assert plan.line.endswith("of 1.00 GiB on each of 4 GPUs")


def test_a_model_that_cannot_fit_is_refused_with_the_sum():
    with pytest.raises(UserError, match=r"weights 2.00 .* of 1.00 GiB: this does not fit; use a smaller"):
        plan_memory(LLAMA, 2 * GIB, "float32", 50, 100, GIB)


# ---------------------------------------------------------------------------------------------------- agreement


def test_agreement_by_hand():
    theirs = np.array([[-10.0, -20.0], [-30.0, -40.0]])
    ours = theirs + np.array([[0.3, 0.1], [-0.1, 0.3]])
    found = Agreement(ours, theirs, np.array([[10, 20], [10, 30]]))
    assert found.per_token == pytest.approx(np.sqrt((0.03**2 + 0.005**2 + 0.01**2 + 0.01**2) / 4))
    assert found.margin_sd == pytest.approx(0.3)  # 0.2 and -0.4
    found.check("m", "bfloat16")
    with pytest.raises(
        UserError, match=r"m: vLLM's log-probs differ .* by 0.017 nats per token on 2 pairs; rounding in fl"
    ):
        found.check("m", "float32")
    with pytest.raises(UserError, match="differ"):
        Agreement(ours * np.nan, theirs, found.tokens).check("m", "bfloat16")


# ---------------------------------------------------------------------------------------------------- the process


def test_sums_are_of_the_response_and_chatter_goes_to_the_log(installed, tmp_path, capfd):
    engine = EngineProcess(settings(), tmp_path / "logs" / "v.log")
    sums = engine.sums([sequence(100, 5, 7), sequence(100, 5, 7, start=2)])
    assert sums.tolist() == pytest.approx([-0.012, -0.007])
    (given_settings,) = lines(installed / "started.jsonl")
    assert given_settings["enable_prefix_caching"] is False and given_settings["max_model_len"] == 10
    assert given_settings["max_num_batched_tokens"] == 128 and given_settings["kv_cache_memory_bytes"] == 1
    engine.close()
    assert "vLLM says a lot" in (tmp_path / "logs" / "v.log").read_text() and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("token", "said", "memory"),
    [
        (stand_in.KILL, "killed by SIGKILL", True),
        (stand_in.FAIL, "RuntimeError: a kernel failed", False),
        (stand_in.MEMORY, "OutOfMemoryError: tried to allocate 7 GiB", True),
    ],
)
def test_a_death_is_noticed_with_its_reason(installed, tmp_path, token, said, memory):
    engine = EngineProcess(settings(), tmp_path / "v.log")
    with pytest.raises(EngineDied, match=said) as death:
        engine.sums([sequence(1, token)])
    assert death.value.memory is memory and not is_alive(engine.process.pid)


def test_an_engine_that_is_forgotten_ends(installed, tmp_path):
    engine = EngineProcess(settings(), tmp_path / "v.log")
    pid = engine.process.pid
    assert is_alive(pid)
    del engine
    assert not is_alive(pid)


PARENT = f"""
import sys
from pathlib import Path
import numpy as np
from rmo_curate.score.engines.vllm_process import EngineProcess
from rmo_curate.score.engines.vllm_worker import EngineSettings, Sequence
engine = EngineProcess(EngineSettings("m", "float32", 9, 128, 1, temporary=sys.argv[1]), Path(sys.argv[1] + ".log"))
print(engine.process.pid, flush=True)
engine.sums([Sequence(np.array([1, {stand_in.SLEEP}]), 1)])
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_at_work_ends_with_its_killed_parent_and_removes_merged_weights(installed, tmp_path, end):
    merged = tmp_path / "merged"
    merged.mkdir()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-c", PARENT, str(merged)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert wait_until((installed / "asked.jsonl").exists)
    parent.send_signal(end)
    parent.wait(15)
    assert wait_until(lambda: not is_alive(pid)) and not merged.exists()


def test_ctrl_c_ends_the_engine_with_the_command(installed, tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    command = [sys.executable, "-c", PARENT, str(tmp_path / "merged")]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert wait_until((installed / "asked.jsonl").exists)
    parent.send_signal(signal.SIGINT)
    _, said = parent.communicate(timeout=15)
    assert "KeyboardInterrupt" in said and not is_alive(pid)


# ---------------------------------------------------------------------------------------------------- the engine


@pytest.fixture
def engine(installed, tiny_model_folder, tmp_path, monkeypatch) -> VllmEngine:
    """The engine over the stand-in, with transformers saying the same."""

    def same(data, rows):
        return np.array([[-data.chosen[i].sum() / 1000, -data.rejected[i].sum() / 1000] for i in rows])

    monkeypatch.setattr(vllm, "TransformersEngine", saying(same))
    return VllmEngine(str(tiny_model_folder), "float32", 9, 256, log=tmp_path / "v.log")


def test_scores_by_hand_with_the_sum_of_memory_said_first(engine, capsys):
    done: list[float] = []
    assert engine.score(PAIRS, np.arange(3), done.append) == pytest.approx(np.array(LOGPS))
    assert sum(done) == pytest.approx(3)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("vLLM memory: weights") and said[1].startswith("vLLM") and "started in" in said[1]
    assert said[2].startswith("vLLM agrees with transformers within")
    assert engine.noise_sd(PAIRS) == pytest.approx(0, abs=1e-9)
    work = engine.work(PAIRS, np.arange(3))
    assert (work.sequences, work.distinct, work.tokens_asked, work.tokens_computed) == (6, 5, 18, 15)


def test_one_process_scores_all_parts_of_a_checkpoint(engine, installed):
    for rows in ([0], [1, 2]):
        engine.score(PAIRS, np.array(rows))
    assert len(lines(installed / "started.jsonl")) == 1


def test_noise_counts_the_difference_to_transformers(engine, monkeypatch):
    shift = np.array([[0.0, 0.0], [0.0, 0.0], [0.0009, 0.0]])
    monkeypatch.setattr(vllm, "TransformersEngine", saying(lambda data, rows: np.array(LOGPS) + shift))
    assert engine.noise_sd(PAIRS) == pytest.approx(0.0009 * np.sqrt(2) / 3)


def test_a_disagreement_stops_before_anything_is_scored(engine, monkeypatch):
    monkeypatch.setattr(vllm, "TransformersEngine", saying(lambda data, rows: np.array(LOGPS) - 1))
    with pytest.raises(UserError, match="differ from transformers' by"):
        engine.score(PAIRS, np.arange(3))


def test_a_killed_process_is_started_again_with_half_the_tokens(engine, installed, capsys):
    data = pair_data([([1], [7], [stand_in.KILL_ONCE])])
    assert engine.score(data, np.array([0])) == pytest.approx(np.array([[-0.007, -0.902]]))
    assert [s["max_num_batched_tokens"] for s in lines(installed / "started.jsonl")] == [256, 128]
    assert "died (killed by SIGKILL); starting it again with 128 tokens per step (1 of 3)" in capsys.readouterr().err


def test_memory_that_is_short_halves_the_tokens_until_it_fits(engine, installed):
    data = pair_data([([1], [7], [stand_in.MEMORY])])
    assert engine.score(data, np.array([0])) == pytest.approx(np.array([[-0.007, -0.905]]))
    assert [s["max_num_batched_tokens"] for s in lines(installed / "started.jsonl")] == [256, 128, 64]


def test_a_process_that_keeps_dying_is_given_up_with_what_to_do(engine, installed):
    data = pair_data([([1], [7], [stand_in.FAIL])])
    with pytest.raises(ProcessingError, match=r"a kernel failed\) for the 4th time in this part; its output is in"):
        engine.score(data, np.array([0]))
    started = lines(installed / "started.jsonl")
    assert [s["max_num_batched_tokens"] for s in started] == [256] * 4
    assert not any(is_alive(s["pid"]) for s in started)


def test_a_model_over_two_gpus_is_what_vllm_is_asked_for(engine, installed):
    engine.gpus = 2
    engine.score(PAIRS, np.arange(3))
    started = lines(installed / "started.jsonl")[0]
    assert (started["tensor_parallel_size"], started["distributed_executor_backend"]) == (2, "mp")


def test_a_model_that_fits_no_single_gpu_is_scored_unchecked_and_that_is_said(engine, monkeypatch, capsys):
    monkeypatch.setattr(vllm, "TransformersEngine", None)  # it must not be loaded
    engine.gpus, engine.plan = 2, replace(engine.plan, weights=60 * GIB, device=80 * GIB)
    assert engine.score(PAIRS, np.arange(3)) == pytest.approx(np.array(LOGPS))
    assert "does not fit on one GPU, so vLLM's log-probs are not checked" in capsys.readouterr().err
    assert engine.noise_sd(PAIRS) == pytest.approx(0, abs=1e-9)


def test_an_engine_spec_hands_the_number_of_gpus_on(installed, tiny_model_folder, tmp_path):
    spec = EngineSpec(
        "vllm", str(tiny_model_folder), "float32", Workload.of(PAIRS), 256, "auto", tmp_path / "v.log", gpus=2
    )
    made = spec.load()
    assert isinstance(made, VllmEngine) and (made.gpus, made.plan.gpus) == (2, 2)


def test_a_model_that_vllm_does_not_know_is_not_tried_again(engine, installed, tiny_model_folder, tmp_path):
    engine.checkpoint = str(shutil.copytree(tiny_model_folder, tmp_path / "unknown"))
    with pytest.raises(ProcessingError, match=r"did not start \(ValueError: no such architecture\)"):
        engine.score(PAIRS, np.arange(3))
    assert len(lines(installed / "started.jsonl")) == 1
