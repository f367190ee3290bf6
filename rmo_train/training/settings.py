"""The trainer's settings: one frozen model, validated once; its fields are the flags of `rmo-train run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rmo_train.console.settings import Settings, from_recipe
from rmo_train.training.trackers import TrackerName

Attention = Literal["auto", "segments", "flex", "dense", "rows"]  # how packed rows attend (rmo_train.forward.attention)

LEARNING_RATE = {"full": 1e-6, "lora": 1e-5}  # TRL's and LLaMA-Factory's usual values, by mode


class TrainSettings(Settings):
    """Names follow Hugging Face's TrainingArguments; log-probs are nats, lengths are tokens."""

    loss: str = Field("dpo", description="Preference loss: dpo, simpo, ipo, orpo, hinge, cdpo, rdpo")
    beta: float | None = Field(None, gt=0, description="Loss temperature (default: 0.1; simpo 2.0)")
    simpo_gamma: float = Field(1.0, ge=0, description="SimPO's target margin, as in TRL")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Flip probability assumed by cdpo and rdpo")
    sft_weight: float | None = Field(
        None, ge=0, description="Weight of the chosen answer's negative log-likelihood per token (default: 0; orpo 1)"
    )

    amplify: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Margin amplification's slope at the median margin, relative to DPO's; 0 = off",
    )
    amplify_preset: Literal["authors"] | None = Field(
        None, description="authors: raw log-prob margin, weight 1, median 1.82, scale 125"
    )
    diversify: bool = Field(False, description="Mix margins within every optimizer batch")
    diversify_margin: Literal["reward", "logp"] = Field(
        "reward", description="Margin that diversification mixes; logp as in the paper"
    )

    soft_labels: bool | None = Field(
        None, description="Soften each label by its label_confidence (default: as the filter decided)"
    )

    lora: int | None = Field(None, ge=1, description="Train LoRA adapters of this rank instead of all weights")
    per_device_train_batch_size: int = Field(4, ge=1, description="Pairs a device and micro-step")
    gradient_accumulation_steps: int = Field(4, ge=1, description="Micro-steps an optimizer step")
    num_train_epochs: float = Field(1.0, gt=0, description="Passes over the data")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides --num-train-epochs")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate (default: 1e-6 full, 1e-5 LoRA)")
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field("cosine", description="Shape after warm-up")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Share of the steps that warm up")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm above which gradients are scaled down")
    bf16: bool | None = Field(
        None, description="bfloat16 with float32 master weights (default: as the references were scored)"
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, slower"
    )
    attention: Attention = Field(
        "auto", description="How packed rows attend; auto: as the references were computed, else by device and lengths"
    )
    tokens_per_batch: int | None = Field(None, ge=16, description="Tokens of one packed row (default: by device)")
    fsdp: bool = Field(False, description="Shard weights and optimizer over the processes (FSDP2); see torchrun")

    logging_steps: int = Field(1, ge=1, description="Steps between two lines of metrics.jsonl")
    eval_steps: int | None = Field(
        None, ge=1, description="Steps between evaluations on --eval-data (default: at the end)"
    )
    save_minutes: float = Field(
        10,
        ge=0,
        allow_inf_nan=False,
        description="Minutes between checkpoints to resume from; the newest 2 are kept until training ends; 0 = off",
    )
    save_steps: int | None = Field(
        None, ge=1, description="Steps between checkpoints that stay when training has ended (default: none)"
    )
    save_total_limit: int | None = Field(
        None, ge=1, description="Keep only the newest N checkpoints of --save-steps (default: all)"
    )
    load_best_model_at_end: bool = Field(
        False, description="End with the checkpoint of the best reward accuracy on --eval-data, kept beside the newest"
    )
    report_to: tuple[TrackerName, ...] = Field(
        (), description="Trackers beside metrics.jsonl: none, tensorboard, wandb or trackio; repeatable"
    )
    seed: int = Field(42, ge=0, description="Seed of order and initialisation")

    @field_validator("report_to", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("report_to")
    @classmethod
    def _each_once(cls, names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
        return tuple(name for name in dict.fromkeys(names) if name != "none")

    @model_validator(mode="after")
    def _evaluated_where_saved(self) -> Self:
        if not self.load_best_model_at_end:
            return self
        if not (self.eval_steps and self.save_steps) or self.save_steps % self.eval_steps:
            raise ValueError(
                "--load-best-model-at-end compares checkpoints: give --eval-steps and --save-steps, the latter a "
                f"multiple of the former (they are {self.eval_steps} and {self.save_steps})"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_amplify(self) -> Self:
        if self.amplify_preset and self.amplify:
            raise ValueError("--amplify-preset sets the amplification whole: leave out --amplify")
        return self

    def pairs_per_step(self, processes: int = 1) -> int:
        """G: pairs of one optimizer batch, on all processes together."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * processes

    @property
    def peak_learning_rate(self) -> float:
        return self.learning_rate or LEARNING_RATE["lora" if self.lora else "full"]


class TrainCommand(TrainSettings):
    """`rmo-train run`."""

    shards: Path = from_recipe(
        "train.shards", "filter.out", description="Shard folder made by `rmo-curate filter`", argument="SHARDS"
    )
    model: str = from_recipe(
        "train.model", "score.model", description="Model to train: a folder, a hub name or smollm2-135m"
    )
    out: Path = from_recipe("train.out", description="Folder for the trained model")
    eval_data: Path | None = Field(None, description="Run or shard folder with held-out pairs")
