"""What a user can ask of `rmo-curate score` and `rmo-curate proxy`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rmo_curate.read.column_map import ColumnMap, column_map
from rmo_curate.runs.columns import category_setting
from rmo_curate.score.shares import Share
from rmo_train.console.errors import UserError
from rmo_train.console.settings import Settings, from_recipe
from rmo_train.console.trust import TrustSettings
from rmo_train.training.settings import Attention, TrainSettings

DATA_HELP = "Files or folders (jsonl, json, csv, parquet, arrow; gzip, zstd) or hf:owner/name[:split]"
Kind = Literal["none", "probe", "lora"]

LORA_RANK = 16
LORA_FOLDS = 2
PAIRS_PER_DEVICE = 4
LEARNING_RATE = {"lora": 2e-4, "full": 5e-6}
OF_TRAINING = ("steps", "lora", "full", "learning_rate", "epochs", "batch_size", "beta")


def tensor_parallel_size() -> Any:
    """The field of every command that loads models into vLLM."""
    return from_recipe(
        "score.tensor_parallel_size",
        default=1,
        ge=1,
        description="GPUs that share one copy of the model, with the vLLM engine; for models too large for one GPU",
    )


class ScoreSettings(Settings):
    """How pairs are read and scored."""

    engine: Literal["auto", "vllm", "transformers"] = Field(
        "auto", description="Inference engine; auto: vLLM with a GPU where it is faster, otherwise transformers"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Model precision; auto: bfloat16 if the machine supports it"
    )
    max_length: int | None = Field(
        None,
        ge=8,
        description="Maximum tokens per pair, prompt + longer response (default: as many as the model's context and "
        "the memory allow)",
    )
    limit: int | None = Field(None, ge=1, description="Use the first N input records, rejects included")
    part_size: int = Field(
        0,
        ge=0,
        description="Minimum pairs per part; an interruption loses at most one part; 0: a 64th of the data, "
        "but 16 to 1024 pairs",
    )
    attention: Attention = Field(
        "auto", description="Attention over packed rows; auto: chosen by device and sequence lengths"
    )
    tokens_per_batch: int | None = Field(
        None, ge=16, description="Tokens per packed row (default: depends on the device)"
    )
    tensor_parallel_size: int = tensor_parallel_size()
    max_rejects: float | None = Field(
        None, ge=0, le=1, description="Fail if more than this share of the records is rejected"
    )


class WorkerSettings(Settings):
    """Where scoring runs."""

    workers: int | Literal["auto"] | None = from_recipe(
        "score.workers",
        default=None,
        description="Number of Ray workers (extra `ray`); auto: one per GPU, or one per core without GPUs "
        "(default: score in this process)",
    )
    ray: str | None = from_recipe(
        "score.ray",
        default=None,
        description="Address of a Ray cluster to score on, or auto for the cluster this machine belongs to; "
        "--workers auto then starts one worker per GPU of the cluster",
    )

    @field_validator("workers", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if value is not None and value != "auto" and not (isinstance(value, int) and value >= 1):
            raise ValueError("expected 1 or more, or auto")
        return value

    @property
    def hires(self) -> bool:
        return self.workers is not None or self.ray is not None


class ShareSettings(WorkerSettings):
    """Who computes, be it one of several processes that know nothing of each other."""

    shard: str | None = Field(
        None,
        description="Score one share of the parts, such as 3/8, while other processes score the others; 0/8 prepares "
        "the pairs, and the same command without --shard finishes the run",
    )

    @field_validator("shard")
    @classmethod
    def _one_of_n(cls, value: str | None) -> str | None:
        if value is not None:
            Share.parsed(value)
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.shard is not None and self.hires:
            raise ValueError(
                "--shard makes this process one of several; --workers and --ray start their own: give only one"
            )
        return self

    @property
    def share(self) -> Share | None:
        return None if self.shard is None else Share.parsed(self.shard)


class ScoreCommand(ScoreSettings, ShareSettings, TrustSettings):
    """`rmo-curate score`."""

    data: tuple[str, ...] = from_recipe("data.train", description=DATA_HELP, argument="DATA")
    model: str = from_recipe("score.model", description="Reference model: a folder, a Hub name or smollm2-135m")
    out: Path = from_recipe("score.out", description="Run folder")
    checkpoint: tuple[str, ...] = Field((), description="Trained checkpoint to score as well; repeatable")
    map: ColumnMap = column_map()
    proxy: Kind | None = from_recipe(
        "proxy.kind",
        default=None,
        description="Proxy whose margins are compared with the reference's. probe: a linear reward on the "
        "reference's hidden states, at no extra forward pass; lora: adapters trained by DPO, at the cost of about five "
        "passes; none: the reference only (default: probe; none with --checkpoint)",
    )
    folds: int | None = from_recipe("proxy.folds", default=None, ge=1, description="Same as `rmo-curate proxy --folds`")
    category_column: str | None = from_recipe(
        "proxy.category_column", default=None, description="Same as `rmo-curate proxy --category-column`"
    )


class ProxySettings(Settings):
    """A proxy: what it is, and how it is made. Trained ones by plain DPO, no diversification, no amplification."""

    kind: Kind | None = Field(
        None, description="Kind of proxy: probe or lora; in a recipe also none, the reference alone (default: probe)"
    )
    folds: int | None = Field(
        None,
        ge=1,
        description="Number of folds for cross-fitting: each proxy is trained without one fold of the "
        "prompts; 1: in-sample, "
        f"as in the paper (default: {LORA_FOLDS} for lora; 10 for probe, or the number of prompts if smaller)",
    )
    steps: tuple[int, ...] = Field(
        (), description="Optimizer steps to save and score, such as 8,16 (default: the last step)"
    )
    lora: int | None = Field(None, ge=1, description=f"LoRA rank of a trained proxy (default: {LORA_RANK})")
    full: bool = Field(False, description="Train all weights of a proxy instead of a LoRA adapter")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate (default: 2e-4 for LoRA, 5e-6 with --full)"
    )
    epochs: float = Field(1.0, gt=0, description="Training epochs per proxy")
    batch_size: int = Field(16, ge=1, description="Pairs per optimizer step")
    beta: float = Field(0.1, gt=0, description="Beta of the DPO loss")
    seed: int = Field(42, ge=0, description="Random seed for the folds, the data order and the initialisation")
    category_column: str | None = category_setting()

    @field_validator("steps", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str | int):
            value = [value]
        return tuple(part.strip() for item in value for part in str(item).split(",") if part.strip())

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.full and self.lora is not None:
            raise ValueError("--full trains all weights, --lora an adapter; give only one of them")
        if self.kind is None and (trained := [name for name in OF_TRAINING if name in self.model_fields_set]):
            raise ValueError(f"{trained[0]} applies only to trained proxies; set proxy.kind: lora, or give --kind lora")
        if self.kind in ("none", "lora") and self.category_column is not None:
            raise ValueError("category_column applies only to a probe; leave it out, or set proxy.kind: probe")
        if self.folds == 1 and self.category_column is not None:
            raise ValueError("category_column needs held-out folds, and folds is 1; leave out one of them")
        return self

    def resolved(self, checkpoints: Sequence[str] = ()) -> Self:
        """With a kind: a probe, or none beside the user's own checkpoints, where nothing is asked for."""
        kind = self.kind or ("none" if checkpoints else "probe")
        if kind == "none" and self.category_column is not None:
            raise UserError(
                "--category-column is for a probe, and with --checkpoint none is fitted unless you ask for it: add "
                "--proxy probe"
            )
        return self.model_copy(update={"kind": kind})

    @property
    def trained_folds(self) -> int:
        """Proxies to train; 0 where none are."""
        return (self.folds or LORA_FOLDS) if self.kind == "lora" else 0

    def training(self, total_steps: int) -> TrainSettings:
        """The trainer's settings of one proxy."""
        micro = math.gcd(self.batch_size, PAIRS_PER_DEVICE)
        return TrainSettings(
            loss="dpo",
            beta=self.beta,
            amplify=0,
            diversify=False,
            lora=None if self.full else (self.lora or LORA_RANK),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=self.batch_size // micro,
            max_steps=total_steps,
            learning_rate=self.learning_rate or LEARNING_RATE["full" if self.full else "lora"],
            seed=self.seed,
        )


class ProxyCommand(ProxySettings, WorkerSettings, TrustSettings):
    """`rmo-curate proxy`."""

    run: Path = from_recipe("score.out", description="Run folder made by `rmo-curate score`", argument="RUN")
    tensor_parallel_size: int = tensor_parallel_size()


class InspectCommand(TrustSettings):
    """`rmo-curate inspect`."""

    data: tuple[str, ...] = from_recipe("data.train", description=DATA_HELP, argument="DATA")
    model: str | None = from_recipe(
        "score.model", default=None, description="Model whose chat template and tokenizer to use: a folder or a name"
    )
    limit: int | None = from_recipe(
        "score.limit", default=None, ge=1, description="Read only the first N input records"
    )
    max_length: int | None = from_recipe(
        "score.max_length",
        default=None,
        ge=8,
        description="Maximum tokens per pair in `score`, prompt + longer response",
    )
    map: ColumnMap = column_map()
    to: Path | None = Field(
        None,
        description="Also write the pairs to this new file NAME.jsonl, as lists of messages, and the rejects to "
        "NAME.rejects.jsonl",
    )
