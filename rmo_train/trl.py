"""TRL's `DPOTrainer` with the results of curation: weights, soft labels, references, mixed margins, amplification.

    RMODPOTrainer(MODEL, args=DPOConfig(OUT, precompute_ref_log_probs=True, max_length=None), train_dataset=pairs)

`pairs` must be exported for TRL (`export --to trl`); needs `trl` (1.16). Loss, gradient and order are those of
`rmo-train run`. One exception: with several processes, an epoch's last batches are filled up with pairs from its
beginning, as always in TRL.

It changes four things in TRL. The data set is not tokenised again, because log-probs belong to the tokens that were
scored. The collator keeps two more columns. The per-pair log-probs are taken from the model's output, because TRL
returns only a mean. And the weights of an optimizer batch are summed where transformers counts its labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import Sampler
from trl import DPOConfig, DPOTrainer

from rmo_train.console.errors import UserError
from rmo_train.console.settings import build
from rmo_train.data.pairs import PairData
from rmo_train.data.ragged import Ragged
from rmo_train.objective.amplify import amplified
from rmo_train.objective.losses import PairLogps, loss_named
from rmo_train.training.plan import Plan, make_plan
from rmo_train.training.settings import TrainSettings

LOSSES = {"sigmoid": "dpo", "hinge": "hinge", "ipo": "ipo", "robust": "rdpo"}  # TRL's name -> our name
TOKENS = ("prompt_ids", "chosen_ids", "rejected_ids")
REFERENCES = {"ref_chosen": "ref_chosen_logps", "ref_rejected": "ref_rejected_logps"}  # in the export -> in TRL
PER_PAIR = ("weight", "label_confidence")
NEUTRAL = {"ld_alpha": None, "f_divergence_type": "reverse_kl", "use_weighting": False}  # other values change the loss
OTHER_MODEL = 0.25  # nats per token between policy and reference before step 1; short answers in bfloat16 reach 0.1


class RMODPOTrainer(DPOTrainer):
    """DPOTrainer with the objective and the order of `rmo-train run`; all other settings are in `args`.

    amplify: slope of margin amplification at the median margin, relative to DPO's; 0 = off.
    diversify: mix large and small margins in every optimizer batch. Both need a trajectory end in the data.
    """

    data_collator: Any  # of transformers
    _signature_columns: Any  # of transformers: the columns that reach the collator
    loss_is_scaled_for_ga = True  # `compute_loss` divides by the weights of the whole optimizer batch

    def __init__(
        self,
        model: Any,
        *,
        args: DPOConfig,
        train_dataset: Dataset,
        amplify: float = 0.0,
        diversify: bool = False,
        **others: Any,
    ) -> None:
        settings = settings_of(args, amplify, diversify)
        data = pairs_of(train_dataset)
        check_lengths(data, args.max_length)
        self.objective, self.plan = loss_named(settings.loss), make_plan(data, settings, args.world_size)
        super().__init__(model, args=args, train_dataset=train_dataset, **others)
        if self.aux_loss_enabled:
            raise UserError("this objective has no auxiliary router loss: set router_aux_loss_coef=0")
        self.data_collator = partial(collate, self.data_collator)

    def _prepare_dataset(self, dataset: Dataset, *others: Any) -> Dataset:
        if not set(TOKENS) <= set(dataset.column_names):  # held-out data from elsewhere
            dataset = super()._prepare_dataset(dataset, *others)
        for name in set(PER_PAIR) - set(dataset.column_names):
            dataset = dataset.add_column(name, np.ones(len(dataset)))
        return dataset.rename_columns({k: v for k, v in REFERENCES.items() if k in dataset.column_names})

    def _precompute_ref_logps(self, dataset: Dataset, *others: Any) -> Dataset:
        known = set(REFERENCES.values()) <= set(dataset.column_names)
        return dataset if known else super()._precompute_ref_logps(dataset, *others)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = list(dict.fromkeys([*self._signature_columns, *PER_PAIR]))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Order:
        return Order(self.plan, self.args.seed if self.args.data_seed is None else self.args.data_seed)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> torch.Tensor:
        """Sum of the optimizer batch's weights over all processes."""
        weight = sum((batch["weight"].sum() for batch in batch_samples), torch.zeros(())).to(device)
        return self.accelerator.gather(weight).sum()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The micro-batch's part of the weighted mean over the optimizer batch. TRL still logs its own metrics."""
        weight, confidence = (inputs[name] for name in PER_PAIR)
        inputs = {name: value for name, value in inputs.items() if name not in PER_PAIR}
        outputs: list[Any] = []

        def noted(**arguments: Any) -> Any:
            outputs.append(model(**arguments))
            return outputs[-1]

        theirs = super().compute_loss(noted, inputs, return_outputs)
        logps = pair_logps(outputs[0].log_probs, inputs)
        if model.training and self.state.global_step == 0:
            check_references(logps)
        value = amplified(self.objective, logps, self.plan.parameters, confidence, self.plan.amplifier)
        # Gradients are averaged over processes, but each process has a part of the sum.
        total = num_items_in_batch / self.accelerator.num_processes if model.training else weight.sum()
        loss = (weight * value).sum() / total.clamp(min=1e-12)
        return (loss, theirs[1]) if return_outputs else loss


class Order(Sampler[int]):
    """The rows of an epoch, one optimizer batch after another: a function of (margins, G, seed, epoch)."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.seed, self.epoch = plan, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.plan.pairs

    def __iter__(self) -> Iterator[int]:
        return iter(np.concatenate(self.plan.batches(self.seed, self.epoch)).tolist())


def settings_of(args: DPOConfig, amplify: float, diversify: bool) -> TrainSettings:
    """TRL's settings as ours; a UserError if they ask for a loss that we do not have."""
    loss = LOSSES.get(args.loss_type[0]) if len(args.loss_type) == 1 else None
    if loss is None:
        raise UserError(
            f"loss_type={args.loss_type}: expected one of {', '.join(LOSSES)}; for another loss, use DPOTrainer"
        )
    for name, expected in NEUTRAL.items():
        if getattr(args, name) != expected:
            raise UserError(f"{name}={getattr(args, name)!r}: expected {expected!r}; for other values, use DPOTrainer")
    if not args.precompute_ref_log_probs:
        raise UserError("precompute_ref_log_probs=False: set it to True; references in the data are then used")
    given = {
        "loss": loss,
        "beta": args.beta,
        "label_smoothing": args.label_smoothing if loss == "rdpo" else None,  # TRL's other losses ignore it
        "amplify": amplify,
        "diversify": diversify,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
    }
    return build(TrainSettings, None, {}, given)


def pairs_of(dataset: Dataset) -> PairData:
    """The token ids and numbers of an export's pairs, without texts."""
    names = {*TOKENS, *PER_PAIR, *REFERENCES, "end_chosen", "end_rejected"} & set(dataset.column_names)
    if missing := {*TOKENS, *PER_PAIR} - names:
        raise UserError(
            f'train_dataset has no column {", ".join(sorted(missing))}: expected `load_dataset(DIR, split="train")` '
            "of a folder made by `export SHARDS --to trl --out DIR`; for other data, use DPOTrainer"
        )
    table = dataset.select_columns(sorted(names)).with_format("arrow")[:]
    rows = np.arange(table.num_rows).astype(str)
    columns: dict[str, Any] = {name.removesuffix("_ids"): Ragged.from_arrow(table[name]) for name in TOKENS}
    columns |= {name: table[name].to_numpy() for name in names - {*TOKENS}}
    return PairData(folder=Path(), manifest=None, ids=rows, groups=rows, **columns)


def check_lengths(data: PairData, max_length: int | None) -> None:
    """Refuse to truncate a response, because its reference log-prob includes all its tokens."""
    if max_length is not None and data.longest() > max_length:
        raise UserError(
            f"max_length={max_length}: a pair has {data.longest()} tokens; set max_length=None, or score the pairs "
            f"again with `--max-length {max_length}`"
        )


def collate(theirs: Callable[[list[dict[str, Any]]], dict[str, Any]], examples: list[dict[str, Any]]) -> dict[str, Any]:
    """TRL's batch with the two columns that TRL leaves out; each [n]."""
    return theirs(examples) | {name: torch.tensor([example[name] for example in examples]) for name in PER_PAIR}


def pair_logps(per_token: torch.Tensor, inputs: dict[str, Any]) -> PairLogps:
    """Log-probs of n pairs, from those per token, [2n, tokens]: first chosen, then rejected, 0 outside responses."""
    chosen, rejected = per_token.sum(1).chunk(2)
    chosen_tokens, rejected_tokens = inputs["completion_mask"].sum(1).float().chunk(2)
    ref_chosen, ref_rejected = (inputs[name] for name in REFERENCES.values())
    return PairLogps(chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens)


def check_references(logps: PairLogps) -> None:
    """Check that the untrained policy reproduces the reference log-probs; a UserError if it is another model."""
    assert logps.ref_chosen is not None and logps.ref_rejected is not None
    apart = (logps.chosen - logps.ref_chosen).abs().sum() + (logps.rejected - logps.ref_rejected).abs().sum()
    apart = apart.detach() / (logps.chosen_tokens + logps.rejected_tokens).sum()
    if not apart <= OTHER_MODEL:
        raise UserError(
            f"before the first step, the policy differs from the reference log-probs by {apart:.2f} nats per token "
            f"(expected at most {OTHER_MODEL}); give the model that scored the pairs, or score them again with this one"
        )
