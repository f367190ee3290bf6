"""What a user can ask of `rmo-curate score` and `rmo-curate proxy`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rmo_curate.read.column_map import ColumnMap, column_map
from rmo_curate.score.shares import Share
from rmo_train.console.settings import Settings, from_recipe
from rmo_train.training.settings import Attention, TrainSettings

DATA_HELP = "Files or folders (jsonl, json, csv, parquet, arrow; gzip, zstd) or hf:owner/name[:split]"
Kind = Literal["none", "probe", "lora"]

LORA_RANK = 16
LORA_FOLDS = 2
PAIRS_PER_DEVICE = 4
LEARNING_RATE = {"lora": 2e-4, "full": 5e-6}
OF_TRAINING = ("steps", "lora", "full", "learning_rate", "epochs", "batch_size", "beta")


class ScoreSettings(Settings):
    """How pairs are read and scored."""

    engine: Literal["auto", "vllm", "transformers"] = Field(
        "auto", description="Engine of the forward passes; auto: the faster one with a GPU and vLLM, else transformers"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where the machine has it")
    max_length: int | None = Field(
        None,
        ge=8,
        description="Tokens that a pair may have, prompt + longer response (default: all that the model's context and "
        "the memory allow)",
    )
    limit: int | None = Field(None, ge=1, description="Use the first N input records, rejects included")
    part_size: int = Field(1024, ge=1, description="Minimum pairs per part; an interruption loses at most one part")
    attention: Attention = Field("auto", description="How packed rows attend; auto: by device and lengths of the data")
    tokens_per_batch: int | None = Field(None, ge=16, description="Tokens of one packed row (default: by device)")
    max_rejects: float | None = Field(None, ge=0, le=1, description="Fail if a larger share of the records is rejected")


class WorkerSettings(Settings):
    """Who computes."""

    workers: int | Literal["auto"] | None = from_recipe(
        "score.workers",
        default=None,
        description="Processes that score side by side, on Ray (extra `ray`): a number, or auto for one a GPU, "
        "without GPUs one a core (default: this process alone)",
    )
    ray: str | None = from_recipe(
        "score.ray",
        default=None,
        description="Address of a Ray cluster to score on, or auto for the one this machine belongs to; "
        "--workers auto is then one a GPU of the cluster",
    )

    @field_validator("workers", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if isinstance(value, int) and value < 1:
            raise ValueError("expected 1 or more, or auto")
        return value

    @property
    def hires(self) -> bool:
        return self.workers is not None or self.ray is not None


class ShareSettings(WorkerSettings):
    """Who computes, be it one of several processes that know nothing of each other."""

    shard: str | None = Field(
        None,
        description="Score one of n shares of the parts, as 3/8, beside processes that have the others; 0/8 makes the "
        "pairs first, and the same command without --shard ends the run",
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
            raise ValueError("--shard is one process of several; --workers and --ray start their own: give one of them")
        return self

    @property
    def share(self) -> Share | None:
        return None if self.shard is None else Share.parsed(self.shard)


class ScoreCommand(ScoreSettings, ShareSettings):
    """`rmo-curate score`."""

    data: tuple[str, ...] = from_recipe("data.train", description=DATA_HELP, argument="DATA")
    model: str = from_recipe("score.model", description="Reference model: a folder, a hub name or smollm2-135m")
    out: Path = from_recipe("score.out", description="Run folder")
    checkpoint: tuple[str, ...] = Field((), description="A trained checkpoint to score too; repeatable")
    map: ColumnMap = column_map()
    proxy: Kind | None = from_recipe(
        "proxy.kind",
        default=None,
        description="The model whose margins are compared with the reference's. probe: a linear reward on the "
        "reference's hidden states, from the same forward pass; lora: trained by DPO, for about five passes; none: "
        "the reference alone (default: probe, or none beside --checkpoint)",
    )
    folds: int | None = from_recipe("proxy.folds", default=None, ge=1, description="As `rmo-curate proxy --folds`")


class ProxySettings(Settings):
    """A proxy: what it is, and how it is made. Trained ones by plain DPO, no diversification, no amplification."""

    kind: Kind | None = Field(None, description="probe or lora (default: probe)")
    folds: int | None = Field(
        None,
        ge=1,
        description="Proxies, each made without one fold of the prompts; 1 = in-sample, as the paper (default: "
        f"{LORA_FOLDS} trained ones; 10 probes, or as many as there are prompts)",
    )
    steps: tuple[int, ...] = Field((), description="Optimizer steps saved and scored, as 8,16 (default: the last)")
    lora: int | None = Field(None, ge=1, description=f"LoRA rank of a trained proxy (default: {LORA_RANK})")
    full: bool = Field(False, description="Train all weights of a proxy instead of LoRA")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate (default: 2e-4 LoRA, 5e-6 full)")
    epochs: float = Field(1.0, gt=0, description="Passes over a proxy's training part")
    batch_size: int = Field(16, ge=1, description="Pairs per optimizer step")
    beta: float = Field(0.1, gt=0, description="DPO's beta")
    seed: int = Field(42, ge=0, description="Seed of the split, the order and the initialisation")

    @field_validator("steps", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str | int):
            value = [value]
        return tuple(part.strip() for item in value for part in str(item).split(",") if part.strip())

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.full and self.lora is not None:
            raise ValueError("--full trains all weights and --lora an adapter: give one of them")
        if self.kind is None and (trained := [name for name in OF_TRAINING if name in self.model_fields_set]):
            raise ValueError(f"{trained[0]} is of trained proxies: ask for them (proxy.kind: lora, or --kind lora)")
        return self

    def resolved(self, checkpoints: Sequence[str] = ()) -> Self:
        """With a kind: a probe, or none beside the user's own checkpoints, where nothing is asked for."""
        return self.model_copy(update={"kind": self.kind or ("none" if checkpoints else "probe")})

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


class ProxyCommand(ProxySettings, WorkerSettings):
    """`rmo-curate proxy`."""

    run: Path = from_recipe("score.out", description="Run folder made by `rmo-curate score`", argument="RUN")


class InspectCommand(Settings):
    """`rmo-curate inspect`."""

    data: tuple[str, ...] = from_recipe("data.train", description=DATA_HELP, argument="DATA")
    model: str | None = from_recipe(
        "score.model", default=None, description="Render and tokenise for this model: a folder or a name"
    )
    limit: int | None = from_recipe(
        "score.limit", default=None, ge=1, description="Look only at the first N input records"
    )
    max_length: int | None = from_recipe(
        "score.max_length", default=None, ge=8, description="Tokens of prompt + longer response that `score` takes"
    )
    map: ColumnMap = column_map()
    to: Path | None = Field(
        None,
        description="Also write the pairs to this new .jsonl file, as lists of messages, and the rejects beside it",
    )
