"""Answers from a model through vLLM: the same requests as `decoding.py`, batched by vLLM itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmo_train.decoding import Decoding, Request, until_end
from rmo_train.errors import ProcessingError

GPU_SHARE = 0.9  # of the free memory
CPU_CACHE = 2**31  # bytes of keys and values
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process: a Ctrl-C or a kill leaves nothing behind
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def decode_with_vllm(model: str, dtype: str, requests: Sequence[Request], decoding: Decoding) -> list[list[int]]:
    """Token ids of each request's answer, its end token included where it came to one. The model's folder holds whole
    weights while vLLM reads it: an adapter is merged first."""
    from rmo_train.models import is_adapter, resolve

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    folder = resolve(model)
    if not is_adapter(folder):
        return _decode(folder, dtype, requests, decoding)
    from rmo_train.policy import load_model, load_tokenizer, save_model

    with tempfile.TemporaryDirectory(prefix="rmo-merged-") as merged:
        save_model(load_model(model, dtype, device="cpu"), load_tokenizer(model), Path(merged))
        return _decode(Path(merged), dtype, requests, decoding)


def _decode(folder: Path, dtype: str, requests: Sequence[Request], decoding: Decoding) -> list[list[int]]:
    from vllm import LLM, SamplingParams

    try:
        engine = LLM(
            model=str(folder),
            dtype=dtype,
            skip_tokenizer_init=True,
            generation_config="vllm",  # not the model's own
            max_model_len=max(len(r.ids) for r in requests) + decoding.max_new_tokens,
            seed=0,
            **_memory(),
        )
        sampling = [
            SamplingParams(
                temperature=decoding.temperature,
                top_p=decoding.top_p,
                max_tokens=decoding.max_new_tokens,
                seed=request.seed,
                stop_token_ids=list(decoding.ends),
                detokenize=False,
            )
            for request in requests
        ]
        outputs = engine.generate([{"prompt_token_ids": r.ids} for r in requests], sampling, use_tqdm=False)
    except Exception as e:  # vLLM's own errors, those of the device and of its compiler
        first = (str(e).strip().splitlines() or [""])[0]
        raise ProcessingError(
            f"vLLM cannot answer with {folder} ({type(e).__name__}: {first}); --engine transformers does without it"
        ) from e
    return [until_end(list(output.outputs[0].token_ids), decoding.ends) for output in outputs]


def _memory() -> dict[str, Any]:
    """vLLM refuses to start where less than its share of the memory is free."""
    import torch

    if not torch.cuda.is_available():
        return {"kv_cache_memory_bytes": CPU_CACHE, "enforce_eager": True}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": round(GPU_SHARE * free / total, 3)}
