"""How long a pair may be to be scored: what was asked for, else all that the model's context and the memory allow.

It is resolved once per run folder: a resumed run, be it on a smaller machine, takes what the folder records.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from rmo_curate.score.engines.vllm_memory import KV_STEPS
from rmo_curate.score.settings import ScoreSettings
from rmo_train.console.errors import UserError
from rmo_train.forward.memory import ITEM_BYTES, RowMemory, device_memory, most_tokens
from rmo_train.store.manifests import PairsManifest
from rmo_train.store.tables import recorded_key

SHARE_OF_ROW = 0.5  # of what the weights leave: the pairs, their hidden states and this program take the rest
SHORTEST = 64  # tokens: a limit is no smaller, whatever the estimate says


@dataclass(frozen=True)
class LengthLimit:
    """Tokens of a prompt and its longer response that a pair may have, and what that follows from."""

    tokens: int
    context: int | None  # tokens that the model was made for; None: it has no limit
    memory: int  # tokens that the memory of this machine allows
    row: RowMemory
    why: str  # in a word or two, where there is something to say

    def row_bytes(self, longest: int) -> int:
        """Bytes of the longest row: of a pair of `longest` tokens, if it is scored."""
        return self.row.scoring(min(longest, self.tokens))


def length_limit(
    settings: ScoreSettings, model: str, dtype: str, engine: str = "transformers", run: Path | None = None
) -> LengthLimit:
    """The limit for the reference `model` in `dtype`; `run`: a folder whose recorded limit is taken where none is
    asked for. UserError where more is asked for than the model's context.
    """
    from rmo_train.model.policy import context_length, load_config, parameter_count

    config = load_config(model)
    context = context_length(config)
    if settings.max_length and settings.max_length > context:
        raise UserError(
            f"--max-length {settings.max_length}: the context of {model} is {context} tokens; give at most {context}"
        )
    row = RowMemory.of(config, dtype)
    gpus = settings.tensor_parallel_size
    room = SHARE_OF_ROW * (device_memory()[1] - parameter_count(model) * ITEM_BYTES[dtype] / gpus)
    per_token = 0 if engine == "transformers" else _vllm_bytes(config, dtype, gpus)
    memory = max(SHORTEST, most_tokens(lambda tokens: max(row.scoring(tokens), per_token * tokens), int(room)))
    recorded = recorded_key(run / "pairs", PairsManifest) if run is not None else None
    if settings.max_length is not None:
        tokens, why = settings.max_length, "as asked"
    elif recorded is not None:
        tokens, why = int(recorded["max_length"]), "as when the folder was started"
    else:
        tokens, why = min(context, memory), "the context" if context <= memory else "by memory"
    return LengthLimit(tokens, None if context == sys.maxsize else context, memory, row, why)


def _vllm_bytes(config: object, dtype: str, gpus: int) -> int:
    """Bytes of keys and values that vLLM keeps for each token of the longest pair (see `vllm_memory.plan_memory`), on
    each of the `gpus` that share the model.
    """
    text = config.get_text_config()  # type: ignore[attr-defined]
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(KV_STEPS * 2 * text.num_hidden_layers * math.ceil(heads / gpus) * size * ITEM_BYTES[dtype])


def limit_line(limit: LengthLimit) -> str:
    """The limit, before the lengths of the data are known."""
    context = "no limit of its own" if limit.context is None else f"a context of {limit.context:,}"
    return (
        f"max length {limit.tokens:,} tokens per pair ({limit.why}); the model has {context}, memory allows "
        f"{limit.memory:,}"
    )


def sum_line(limit: LengthLimit, longest: int) -> str:
    """The sum, said before anything is scored; `longest`: tokens of the longest pair."""
    context = "no limit by the model" if limit.context is None else f"context {limit.context:,}"
    gib = limit.row_bytes(longest) / 2**30
    line = (
        f"longest pair {longest:,} tokens, {context}, memory for {limit.memory:,}: up to {limit.tokens:,} tokens "
        f"per pair ({limit.why}); at most about {gib:.2g} GiB per row"
    )
    over = min(longest, limit.tokens) > limit.memory
    return f"warning: {line}, more than is safe on this machine: give a smaller --max-length" if over else line
