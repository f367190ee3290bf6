"""A package `vllm` of a few lines: the log-prob of token t is -t / 1000, and certain tokens end it in certain ways.

It lets the process, its restarts and its end be tested in seconds; tests/real/test_vllm.py runs the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from rmo_train.data.pairs import PairData

KILL, KILL_ONCE, FAIL, SLEEP, MEMORY = 901, 902, 903, 904, 905  # tokens

VLLM = f"""
import json, os, pathlib, signal, sys, time
HERE = pathlib.Path(__file__).parent

class Flat:
    def __init__(self, tokens):
        self.token_ids = tokens[1:]
        self.logprobs = [-t / 1000 for t in tokens[1:]]
        self.start_indices = [0, *range(len(tokens) - 1)]

class Output:
    def __init__(self, tokens):
        self.prompt_logprobs = Flat(tokens)

class SamplingParams:
    def __init__(self, **given):
        assert given["prompt_logprobs"] == 0 and given["max_tokens"] == 1 and given["flat_logprobs"], given

class OutOfMemoryError(RuntimeError):
    pass

class LLM:
    def __init__(self, **given):
        self.tokens = given["max_num_batched_tokens"]
        with (HERE / "started.jsonl").open("a") as f:
            f.write(json.dumps(given | {{"pid": os.getpid()}}) + "\\n")
        print("vLLM says a lot")
        if pathlib.Path(given["model"]).name == "unknown":
            raise ValueError("no such architecture")

    def generate(self, prompts, asked, use_tqdm):
        rows = [p["prompt_token_ids"] for p in prompts]
        with (HERE / "asked.jsonl").open("a") as f:
            f.write(json.dumps(rows) + "\\n")
        seen = {{t for row in rows for t in row}}
        once = HERE / "killed"
        if {KILL} in seen or ({KILL_ONCE} in seen and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if {FAIL} in seen:
            raise RuntimeError("a kernel failed")
        if {MEMORY} in seen and self.tokens > 64:
            raise OutOfMemoryError("tried to allocate 7 GiB")
        if {SLEEP} in seen:
            time.sleep(60)
        return [Output(row) for row in rows]
"""
TORCH = "class cuda:\n    is_available = staticmethod(lambda: False)\n"  # the real one takes seconds to import


def write_stand_in(folder: Path) -> tuple[Path, Path]:
    """Folders for the import path: of this process, and of the engine's, which also gets a `torch`."""
    package, more = folder / "package", folder / "more"
    for path, text in ((package / "vllm.py", VLLM), (more / "torch.py", TORCH)):
        path.parent.mkdir()
        path.write_text(text)
    return package, more


def saying(logps: Callable[[PairData, np.ndarray], np.ndarray]) -> type:
    """An engine of transformers that says `logps` of the pairs `rows`."""

    class Engine:
        def __init__(self, *_: object):
            pass

        def score(self, data: PairData, rows: np.ndarray) -> np.ndarray:
            return logps(data, rows)

    return Engine
