"""Answers from a model through vLLM: the same requests as in `decoding.py`, batched by vLLM itself."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rmo_train.console.errors import ProcessingError
from rmo_train.console.trust import granted
from rmo_train.generation.decoding import Decoding, Request, until_end

GPU_SHARE = 0.9  # of the free memory
CPU_CACHE = 2**31  # bytes of keys and values
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # run in this process, so that Ctrl-C or a kill leaves no process behind
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class VllmDecoder:
    """A model in vLLM. An adapter is first merged into its base, since vLLM reads a folder with whole weights."""

    def __init__(self, model: str, dtype: str, decoding: Decoding, longest: int):
        """`longest`: tokens of the longest request and its answer."""
        from rmo_train.model.foreign import weight_files
        from rmo_train.model.models import is_adapter, resolve

        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.decoding = decoding
        self.folder = resolve(model)
        if not is_adapter(self.folder):
            weight_files(self.folder)  # refuses pickles with a clear message
            self.engine = _load(self.folder, dtype, longest)
            return
        from rmo_train.model.policy import load_model, load_tokenizer, save_model

        with tempfile.TemporaryDirectory(prefix="rmo-merged-") as merged:
            save_model(load_model(model, dtype, device="cpu"), load_tokenizer(model), Path(merged))
            self.engine = _load(Path(merged), dtype, longest)

    def decode(self, requests: Sequence[Request]) -> list[list[int]]:
        """Token ids of each request's answer, including its end token unless it was cut off."""
        from vllm import SamplingParams

        sampling = [
            SamplingParams(
                temperature=self.decoding.temperature,
                top_p=self.decoding.top_p,
                max_tokens=self.decoding.max_new_tokens,
                seed=request.seed,
                stop_token_ids=list(self.decoding.ends),
                detokenize=False,
            )
            for request in requests
        ]
        with _said(self.folder):
            outputs = self.engine.generate([{"prompt_token_ids": r.ids} for r in requests], sampling, use_tqdm=False)
        return [until_end(list(output.outputs[0].token_ids), self.decoding.ends) for output in outputs]


def _load(folder: Path, dtype: str, longest: int) -> Any:
    from vllm import LLM

    with _said(folder):
        return LLM(
            model=str(folder),
            dtype=dtype,
            skip_tokenizer_init=True,
            load_format="auto" if granted().allow_pickle else "safetensors",
            trust_remote_code=granted().trust_remote_code,
            generation_config="vllm",  # not the model's own
            max_model_len=longest,
            seed=0,
            **_memory(),
        )


@contextlib.contextmanager
def _said(folder: Path) -> Iterator[None]:
    """Reports vLLM's own errors, and those of the device and the compiler, in one line."""
    try:
        yield
    except Exception as e:
        first = (str(e).strip().splitlines() or [""])[0]
        raise ProcessingError(
            f"vLLM cannot answer with {folder} ({type(e).__name__}: {first}); use --engine transformers instead"
        ) from e


def _memory() -> dict[str, Any]:
    """Memory settings that fit: vLLM refuses to start if less than its share of the memory is free."""
    import torch

    if not torch.cuda.is_available():
        return {"kv_cache_memory_bytes": CPU_CACHE, "enforce_eager": True}
    free, total = torch.cuda.mem_get_info()
    return {"gpu_memory_utilization": round(GPU_SHARE * free / total, 3)}
