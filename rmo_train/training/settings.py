"""The trainer's settings: one frozen model, validated once; its fields are the flags of `rmo-train run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from rmo_train.console.settings import Settings, from_recipe
from rmo_train.console.trust import TrustSettings
from rmo_train.training.trackers import TrackerName

Attention = Literal[
    "auto", "segments", "flex", "dense", "rows"
]  # attention over packed rows (rmo_train.forward.attention)

# Default peak learning rates. TRL's and LLaMA-Factory's usual values, made for models of 7 billion parameters and more,
# barely change a small model (docs/decisions.md).
LEARNING_RATE = {"full": 1e-6, "lora": 1e-5}
LEARNING_RATE_OF_SMALL = {"full": 1e-5, "lora": 2e-4}
SMALL = 10**9  # parameters


class TrainSettings(Settings):
    """Names follow Hugging Face's TrainingArguments; log-probs are nats, lengths are tokens."""

    loss: str = Field("dpo", description="Preference loss: dpo, simpo, ipo, orpo, hinge, cdpo, rdpo")
    beta: float | None = Field(
        None, gt=0, description="Strength of the KL penalty in DPO; scale of the rewards (default: 0.1; simpo: 2.0)"
    )
    simpo_gamma: float = Field(1.0, ge=0, description="Target reward margin of SimPO")
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Share of wrong labels that cdpo and rdpo assume")
    sft_weight: float | None = Field(
        None, ge=0, description="Weight of an SFT loss on the chosen answer (default: 0; orpo: 1)"
    )

    amplify: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Strength of margin amplification, relative to DPO's gradient; 0 = off, 0.25 is a usual value",
    )
    amplify_preset: Literal["authors"] | None = Field(
        None, description="authors: margin amplification with the constants of the paper's code"
    )
    diversify: bool = Field(False, description="Mix large and small margins in every optimizer batch")
    diversify_margin: Literal["reward", "logp"] = Field(
        "reward", description="Margin that --diversify mixes; logp: as in the paper"
    )

    soft_labels: bool | None = Field(
        None,
        description="Soften labels by their label_confidence (default: as far as recorded in the shards)",
    )

    lora: int | None = Field(None, ge=1, description="Train a LoRA adapter of this rank (default: train all weights)")
    per_device_train_batch_size: int = Field(4, ge=1, description="Pairs per device and micro-batch")
    gradient_accumulation_steps: int = Field(4, ge=1, description="Micro-batches per optimizer step")
    num_train_epochs: float = Field(1.0, gt=0, description="Passes over the data")
    max_steps: int | None = Field(None, ge=1, description="Optimizer steps; overrides --num-train-epochs")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate (default: 1e-6, LoRA: 1e-5; below a billion parameters: 1e-5, LoRA: 2e-4)",
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Learning rate schedule after warm-up"
    )
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Fraction of the steps used for warm-up")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW")
    max_grad_norm: float = Field(1.0, gt=0, description="Clip gradients to this norm")
    bf16: bool | None = Field(
        None,
        description="Train in bfloat16 with float32 master weights (default: the precision of the reference log-probs)",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, slower"
    )
    attention: Attention = Field(
        "auto",
        description="Attention over packed rows; auto: as for the reference log-probs, otherwise chosen by device and "
        "sequence lengths",
    )
    tokens_per_batch: int | None = Field(
        None, ge=16, description="Tokens per packed row (default: depends on the device)"
    )
    fsdp: bool = Field(False, description="Shard weights and optimizer over the processes that torchrun starts (FSDP2)")

    logging_steps: int = Field(1, ge=1, description="Log metrics every N steps")
    eval_steps: int | None = Field(
        None, ge=1, description="Evaluate on --eval-data every N steps (default: only at the end)"
    )
    save_minutes: float = Field(
        10,
        ge=0,
        allow_inf_nan=False,
        description="Save a checkpoint to resume from every N minutes; two are kept until training ends; 0 = off",
    )
    save_steps: int | None = Field(
        None, ge=1, description="Save a checkpoint every N steps; these are kept after training (default: none)"
    )
    save_total_limit: int | None = Field(
        None, ge=1, description="Keep only the newest N of the checkpoints that --save-steps saves (default: all)"
    )
    load_best_model_at_end: bool = Field(
        False, description="Use the checkpoint with the best reward accuracy on --eval-data as the final model"
    )
    report_to: tuple[TrackerName, ...] = Field(
        (), description="Also log to tensorboard, wandb or trackio; repeatable (default: metrics.jsonl only)"
    )
    seed: int = Field(42, ge=0, description="Random seed for the order of pairs and for LoRA's initial weights")

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
                "--load-best-model-at-end needs an evaluation of every checkpoint: give --eval-steps and --save-steps, "
                f"the latter a multiple of the former (found {self.eval_steps} and {self.save_steps})"
            )
        return self

    @model_validator(mode="after")
    def _one_way_to_amplify(self) -> Self:
        if self.amplify_preset and self.amplify:
            raise ValueError("--amplify-preset already sets the amplification; leave out --amplify")
        return self

    def pairs_per_step(self, processes: int = 1) -> int:
        """G: pairs per optimizer batch, over all processes."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps * processes

    def of_model(self, parameters: int) -> Self:
        """The same settings; if no learning rate is given, with the default for a model of so many parameters."""
        if self.learning_rate is not None or parameters >= SMALL:
            return self
        return self.model_copy(update={"learning_rate": LEARNING_RATE_OF_SMALL[self.mode]})

    @property
    def mode(self) -> Literal["full", "lora"]:
        return "lora" if self.lora else "full"

    @property
    def peak_learning_rate(self) -> float:
        """The given learning rate, or the default of a large model."""
        return self.learning_rate or LEARNING_RATE[self.mode]


class TrainCommand(TrainSettings, TrustSettings):
    """`rmo-train run`."""

    shards: Path = from_recipe(
        "train.shards", "filter.out", description="Folder of shards to train on", argument="SHARDS"
    )
    model: str = from_recipe(
        "train.model", "score.model", description="Model to train: a folder, a Hub name or smollm2-135m"
    )
    out: Path = from_recipe("train.out", description="Folder for the trained model")
    eval_data: Path | None = Field(None, description="Held-out pairs to evaluate on: a run or shard folder")
