"""What a user can ask of `rmo-curate score`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rmo_train.console.settings import Settings
from rmo_train.training.config import Attention


class ScoreSettings(Settings):
    """How pairs are read and scored."""

    engine: Literal["auto", "vllm", "transformers"] = Field(
        "auto", description="Engine of the forward passes; auto: the faster one with a GPU and vLLM, else transformers"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the machine has it")
    max_length: int | None = Field(
        None, ge=8, description="Tokens of prompt + longer response (default: 1024, or the model's context)"
    )
    limit: int | None = Field(None, ge=1, description="Use the first N input records, rejects included")
    part_size: int = Field(1024, ge=1, description="Least pairs of a part file: what a kill can lose")
    attention: Attention = Field("auto", description="How packed rows attend; auto: by device and lengths of the data")
    tokens_per_batch: int | None = Field(None, ge=16, description="Tokens of one packed row (default: by device)")
    max_rejects: float | None = Field(None, ge=0, le=1, description="Share of rejected records that is an error")
    probe: bool | None = Field(
        None,
        description="Fit a probe: a linear reward on the reference's hidden states, which come from the same forward "
        "pass, cross-fitted (default: where no proxies and no checkpoints are asked for)",
    )
    proxy_folds: int | None = Field(
        None,
        ge=0,
        description="Proxies trained by DPO: 2 or more cross-fitted, 1 in-sample, 0 none and no probe either (default: "
        "as a recipe's section `proxy` says, else none)",
    )
