"""TRL's DPOTrainer as a peer: DPO on pairs whose reference log-probs are given, and nothing but its steps.

Needs TRL, so it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from rmo_train.model.policy import LORA_SCALE


class WithReferences(DPOTrainer):
    """Takes reference log-probs from the pairs, and token ids if they have them, instead of computing them."""

    def _prepare_dataset(self, dataset: Any, *arguments: Any, **more: Any) -> Any:
        return (
            dataset if "prompt_ids" in dataset.column_names else super()._prepare_dataset(dataset, *arguments, **more)
        )

    def _precompute_ref_logps(self, dataset: Any, *arguments: Any, **more: Any) -> Any:
        return dataset


@dataclass(frozen=True)
class Steps:
    """How TRL trains: optimizer steps over the pairs in their order, at a constant learning rate."""

    number: int
    pairs: int  # of a step
    micro_batch: int  # pairs
    learning_rate: float
    beta: float = 0.1
    autocast: bool = False  # float32 weights, computed with in bfloat16
    lora: int | None = None  # rank
    recompute: bool = False  # activations, in the backward pass


def dpo_trainer(
    model: Any, tokenizer: Any, pairs: Sequence[Mapping[str, Any]], steps: Steps, callback: TrainerCallback, out: str
) -> DPOTrainer:
    """A trainer on the model's device, which logs every step's loss and saves nothing.

    pairs: messages or token ids (`prompt_ids`, …), with `ref_chosen_logps` and `ref_rejected_logps`. out: an empty
    folder.
    """
    arguments = DPOConfig(
        output_dir=out,
        per_device_train_batch_size=steps.micro_batch,
        gradient_accumulation_steps=steps.pairs // steps.micro_batch,
        max_steps=steps.number,
        learning_rate=steps.learning_rate,
        lr_scheduler_type="constant",
        warmup_steps=0,
        beta=steps.beta,
        bf16=steps.autocast,
        gradient_checkpointing=steps.recompute,
        precompute_ref_log_probs=True,
        train_sampling_strategy="sequential",
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=model.device.type == "cpu",
        disable_tqdm=True,
    )
    return WithReferences(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([dict(pair) for pair in pairs]),
        processing_class=tokenizer,
        peft_config=None if steps.lora is None else adapter(steps.lora),
        callbacks=[callback],
    )


def adapter(rank: int) -> LoraConfig:
    """LoRA on every linear layer, as `rmo-train run` has it."""
    return LoraConfig(r=rank, lora_alpha=LORA_SCALE * rank, target_modules="all-linear", task_type="CAUSAL_LM")
