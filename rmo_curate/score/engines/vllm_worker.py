"""The process that owns vLLM: `python -m rmo_curate.score.engines.vllm_worker FD`, started by `vllm_process.py` alone.

It reads from the connection FD first the settings of the engine, then batches of sequences, and answers each with the
summed log-probs of the responses; log-probs of single tokens never leave this process. When the parent closes the
connection, for whatever reason, this process and all its children end.
"""

from __future__ import annotations

import math
import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import numpy as np

from rmo_train.console.trust import Trust

MESSAGE_LENGTH = 300
GPU_SHARE = 0.98  # of the free memory, which vLLM may claim at start


@dataclass(frozen=True)
class EngineSettings:
    """Settings with which an engine is started."""

    model: str  # a folder with full weights, no adapter
    dtype: str
    longest: int  # tokens of the longest prompt + response
    tokens: int  # per step
    kv_cache_bytes: int
    temporary: str | None = None  # a folder to remove when the parent is gone
    gpus: int = 1  # that the model is split over
    trust: Trust = field(default_factory=Trust)  # what the model may do


@dataclass(frozen=True)
class Sequence:
    """Prompt + response as token ids (int32), and the index of the first response token."""

    tokens: np.ndarray
    start: int


@dataclass(frozen=True)
class Failure:
    """Why a request failed."""

    text: str
    memory: bool  # it ran out of memory


def open_engine(settings: EngineSettings) -> Any:
    """vLLM for scoring: token ids in, no prefix cache, and one generated token per sequence, the minimum."""
    from vllm import LLM

    return LLM(
        model=settings.model,
        dtype=settings.dtype,
        skip_tokenizer_init=True,
        load_format="auto" if settings.trust.allow_pickle else "safetensors",
        trust_remote_code=settings.trust.trust_remote_code,
        generation_config="vllm",
        # One more than the longest sequence, for the one token that vLLM must generate; it is never read.
        max_model_len=settings.longest + 1,
        max_num_batched_tokens=settings.tokens,
        max_num_seqs=min(256, settings.tokens),
        enable_chunked_prefill=True,
        enable_prefix_caching=False,  # cached positions have no log-probs
        kv_cache_memory_bytes=settings.kv_cache_bytes,
        enforce_eager=True,  # CUDA graphs speed up generation only, and each checkpoint would have to compile them
        seed=0,
        tensor_parallel_size=settings.gpus,
        distributed_executor_backend="mp" if settings.gpus > 1 else None,  # processes of this one, ended with it
        **_gpu_share(),
    )


def _gpu_share() -> dict[str, float]:
    """vLLM refuses to start if less than this share is free; the memory it really takes is set in bytes."""
    import torch

    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": round(GPU_SHARE * free / total, 3)}


def sums(engine: Any, sequences: list[Sequence]) -> np.ndarray:
    """Summed log-prob of each sequence's response, float64 nats [n]."""
    from vllm import SamplingParams

    # prompt_logprobs=0: for every prompt token its own log-prob only, not those of other tokens.
    asked = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False)
    prompts = [{"prompt_token_ids": s.tokens.tolist()} for s in sequences]
    outputs = engine.generate(prompts, asked, use_tqdm=False)
    return np.array([_response_sum(o.prompt_logprobs, s) for o, s in zip(outputs, sequences, strict=True)])


def _response_sum(logprobs: Any, sequence: Sequence) -> float:
    """The first position has no log-prob; every other position has exactly that of its token."""
    echoed = logprobs.token_ids[logprobs.start_indices[sequence.start] :]
    if echoed != sequence.tokens[sequence.start :].tolist():
        raise RuntimeError("vLLM returned log-probs of other tokens than the prompt's")
    return math.fsum(logprobs.logprobs[logprobs.start_indices[sequence.start] :])


# ---------------------------------------------------------------------------------------------------- the process


def serve(connection: Connection) -> None:
    """Answer requests until the parent closes the connection."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    settings: EngineSettings = connection.recv()
    threading.Thread(target=_listen, args=(connection, requests, settings.temporary), daemon=True).start()
    try:
        engine = open_engine(settings)
        connection.send(None)
        while True:
            connection.send(sums(engine, requests.get()))
    except BrokenPipeError:
        _end(settings.temporary)
    except BaseException as e:
        traceback.print_exc()
        memory = isinstance(e, MemoryError) or "OutOfMemory" in type(e).__name__ or "out of memory" in str(e)
        said = " ".join(str(e).split())[:MESSAGE_LENGTH]  # the log has the rest
        connection.send(Failure(f"{type(e).__name__}: {said}", memory))
        raise SystemExit(1) from None


def _listen(connection: Connection, requests: queue.SimpleQueue[Any], temporary: str | None) -> None:
    """Queue incoming messages. If the parent is killed, the connection ends, even during a step."""
    while True:
        try:
            requests.put(connection.recv())
        except (EOFError, OSError):
            _end(temporary)


def _end(temporary: str | None) -> NoReturn:
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)
    if os.getpgrp() == os.getpid():  # the processes that vLLM started are in the same group
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    # Pickled messages refer to this module by its name, not as `__main__`.
    from rmo_curate.score.engines import vllm_worker

    vllm_worker.serve(Connection(int(sys.argv[1])))
