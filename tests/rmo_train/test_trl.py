"""RMODPOTrainer against our own trainer on the same shards, and the lines of the guide as they stand there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rmo_curate.export.command import run_export
from rmo_curate.export.formats import Trainer
from rmo_train.console.errors import UserError
from rmo_train.data.pairs import open_pairs
from rmo_train.objective.losses import loss_named
from rmo_train.training.job import build_job
from rmo_train.training.loop import forward_backward, packed_batch
from rmo_train.training.plan import make_plan
from rmo_train.training.settings import TrainSettings

pytestmark = pytest.mark.real

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "other-trainers.md"
N = 22  # an epoch of two optimizer batches of 8 and a short one
SIZES = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}


@pytest.fixture(scope="module")
def noisy(make_shards, tmp_path_factory) -> Path:
    """Shards with weights, soft labels, and references a little off the model, so that no margin is 0 at step 0."""
    return weighted(make_shards, tmp_path_factory.mktemp("trl") / "shards", softness=0.8)


@pytest.fixture(scope="module")
def certain(make_shards, tmp_path_factory) -> Path:
    """The same with labels as given."""
    return weighted(make_shards, tmp_path_factory.mktemp("trl") / "shards", softness=0)


def weighted(make_shards: Callable[..., Path], folder: Path, softness: float) -> Path:
    rng = np.random.default_rng(5)
    first = open_pairs(make_shards(folder.with_name("first"), N))
    assert first.ref_chosen is not None and first.ref_rejected is not None
    return make_shards(
        folder,
        N,
        softness=softness,
        weight=rng.uniform(0, 2, N),
        label_confidence=rng.uniform(0.3, 1, N),
        ref_chosen_logps=first.ref_chosen + rng.normal(0, 0.3, N),
        ref_rejected_logps=first.ref_rejected + rng.normal(0, 0.3, N),
    )


def exported(shards: Path, tmp_path: Path) -> Any:
    from datasets import load_dataset

    run_export(shards, Trainer.TRL, tmp_path / "runs" / "trl")
    return load_dataset(str(tmp_path / "runs" / "trl"), split="train", cache_dir=str(tmp_path / "cache"))


def config(out: Path, **changed: Any) -> Any:
    from trl import DPOConfig

    given: dict[str, Any] = {
        "precompute_ref_log_probs": True, "max_length": None, "use_cpu": True, "bf16": False, "report_to": [],
        "max_grad_norm": 1e9, "max_steps": 1, "save_strategy": "no", "disable_tqdm": True, **SIZES,
    }  # fmt: skip
    return DPOConfig(str(out), **given | changed)


@pytest.fixture
def watched(tiny_model_folder, tmp_path) -> Callable[..., Any]:
    """watched(data, settings of DPOConfig, settings of the trainer) -> the trained trainer, with what it saw: `losses`
    and `rows` (by their weights) of each micro-batch, and `gradient` of the first step."""
    from transformers import TrainerCallback

    from rmo_train.trl import RMODPOTrainer

    class Watched(RMODPOTrainer):
        def training_step(self, model, inputs, *others):
            loss = super().training_step(model, inputs, *others)
            self.losses.append(float(loss))
            self.rows.append(inputs["weight"].numpy().copy())
            return loss

    class First(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model, **others):
            if state.global_step == 0:
                grads = {name: p.grad.clone() for name, p in model.named_parameters()}
                trainer.gradient = grads

    def run(data: Any, args: dict[str, Any] | None = None, **method: Any) -> Any:
        nonlocal trainer
        arguments = config(tmp_path / "out", **args or {})
        trainer = Watched(str(tiny_model_folder), args=arguments, train_dataset=data, callbacks=[First()], **method)
        trainer.losses, trainer.rows = [], []
        trainer.train()
        return trainer

    trainer: Any = None
    return run


def ours(shards: Path, model: Path, out: Path, **given: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of the first step of `rmo-train run`."""
    settings = TrainSettings(**SIZES, bf16=False, **given)
    data = open_pairs(shards).labelled(None)
    job = build_job(data, make_plan(data, settings), str(model), out, settings, {})
    job.model.train()
    rows = job.plan.batches(settings.seed, 0)[0]
    parts = [forward_backward(job, loss_named(settings.loss), rows, *group) for group in packed_batch(job, rows)]
    return sum(part.loss for part in parts), {name: p.grad for name, p in job.model.named_parameters()}


@pytest.mark.parametrize(
    ("theirs", "given"),
    [
        ({"beta": 1.0}, {"beta": 1.0}),
        ({"beta": 1.0}, {"beta": 1.0, "amplify": 0.5, "diversify": True}),
        ({"beta": 0.5, "loss_type": "ipo"}, {"beta": 0.5, "loss": "ipo", "amplify": 0.5}),
        (
            {"loss_type": "robust", "label_smoothing": 0.2, "per_device_train_batch_size": 8,
             "gradient_accumulation_steps": 1},
            {"loss": "rdpo", "label_smoothing": 0.2, "diversify": True},
        ),
    ],
)  # fmt: skip
def test_loss_and_gradient_of_the_first_step_are_our_trainers(
    noisy, certain, tiny_model_folder, tmp_path, watched, theirs, given
):
    shards = certain if "label_smoothing" in given else noisy  # soft labels and smoothing are refused together
    loss, gradient = ours(shards, tiny_model_folder, tmp_path / "ours", **given)
    method = {name: given[name] for name in ("amplify", "diversify") if name in given}
    trainer = watched(exported(shards, tmp_path), theirs, **method)
    assert sum(trainer.losses) == pytest.approx(loss, rel=1e-6)
    assert trainer.gradient.keys() == gradient.keys()
    for name, expected in gradient.items():
        rounding = 1e-5 * float(expected.abs().max())
        torch.testing.assert_close(trainer.gradient[name], expected, atol=rounding, rtol=0)


@pytest.mark.parametrize("diversify", [True, False])
def test_batches_come_in_our_order_and_another_one_each_epoch(noisy, tmp_path, watched, diversify):
    trainer = watched(exported(noisy, tmp_path), {"max_steps": -1, "num_train_epochs": 2}, diversify=diversify)
    data = open_pairs(noisy)
    plan = make_plan(data, TrainSettings(**SIZES, diversify=diversify))
    expected = np.concatenate([data.weight[rows] for epoch in (0, 1) for rows in plan.batches(42, epoch)])
    np.testing.assert_allclose(np.concatenate(trainer.rows), expected, rtol=1e-6)
    assert trainer.state.global_step == 2 * plan.batches_per_epoch


def test_resumed_in_the_middle_of_an_epoch_it_ends_where_it_would_have(noisy, tiny_model_folder, tmp_path, watched):
    data, whole = exported(noisy, tmp_path), {"max_steps": 5, "save_strategy": "steps", "save_steps": 4}
    expected = {name: p.detach().clone() for name, p in watched(data, whole, diversify=True).model.named_parameters()}
    from rmo_train.trl import RMODPOTrainer

    arguments = config(tmp_path / "out", **whole)
    again = RMODPOTrainer(str(tiny_model_folder), args=arguments, train_dataset=data, diversify=True)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    for name, p in again.model.named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], atol=1e-7, rtol=1e-6)


def test_held_out_data_of_an_export_and_from_elsewhere_are_evaluated(shards, tiny_model_folder, tmp_path):
    from rmo_train.trl import RMODPOTrainer

    data = exported(shards, tmp_path)
    elsewhere = data.select_columns(["prompt", "chosen", "rejected"])
    trainer = RMODPOTrainer(
        str(tiny_model_folder),
        args=config(tmp_path / "out"),
        train_dataset=data,
        eval_dataset={"export": data, "elsewhere": elsewhere},
    )
    assert trainer.ref_model is None
    result = trainer.evaluate()
    for name in ("export", "elsewhere"):  # an untrained policy is its own reference
        assert result[f"eval_{name}_loss"] == pytest.approx(np.log(2), abs=1e-5)


def test_another_model_than_the_scored_one_is_refused_before_a_step(noisy, tmp_path, watched):
    data = exported(noisy, tmp_path)
    data = data.remove_columns("ref_chosen").add_column("ref_chosen", np.array(data["ref_chosen"]) - 20)
    with pytest.raises(UserError, match="give the model that scored the pairs"):
        watched(data)


def test_data_and_settings_that_would_train_something_else_are_refused(noisy, tmp_path, watched):
    data = exported(noisy, tmp_path)
    for given, words in [
        ({"precompute_ref_log_probs": False}, "precompute_ref_log_probs=False"),
        ({"max_length": 10}, "max_length=10: a pair has"),
        ({"loss_type": "apo_zero"}, "apo_zero"),
        ({"loss_type": ["sigmoid", "sft"]}, "sft"),
        ({"ld_alpha": 0.5}, "ld_alpha=0.5"),
        ({"f_divergence_type": "js_divergence"}, "f_divergence_type"),
        ({"per_device_train_batch_size": 8}, "larger than the data"),
    ]:
        with pytest.raises(UserError, match=re.escape(words)):
            watched(data, given)
    with pytest.raises(UserError, match="export SHARDS --to trl"):
        watched(data.remove_columns("weight"))
    with pytest.raises(UserError, match="no trajectory end"):
        watched(data.remove_columns(["end_chosen", "end_rejected"]), diversify=True)


@pytest.mark.parametrize("precompute", [True, False])
def test_trls_own_trainer_takes_the_same_export(shards, tiny_model_folder, tmp_path, precompute):
    from trl import DPOTrainer

    data = exported(shards, tmp_path)
    trainer = DPOTrainer(
        str(tiny_model_folder),
        args=config(tmp_path / "out", precompute_ref_log_probs=precompute),
        train_dataset=data,
    )
    own = trainer.train_dataset[0]["chosen_ids"]
    assert own != data[0]["chosen_ids"]  # tokenised from the messages
    assert trainer.train().training_loss == pytest.approx(np.log(2), abs=1e-4)


def test_the_lines_of_the_guide_train_a_model(shards, tiny_model_folder, tmp_path, monkeypatch):
    section = GUIDE.read_text(encoding="utf-8").split("## With TRL's `DPOTrainer`")[1]
    (lines,) = re.findall(r"```python\n(.*?)```", section.split("\n### ")[0], re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)  # as on the user's GPU
    exported(shards, tmp_path)
    (tmp_path / "MODEL").symlink_to(tiny_model_folder)
    done: dict[str, Any] = {}
    exec(lines, done)
    assert done["trainer"].state.global_step == 9  # 24 pairs, 8 a step, 3 epochs: TRL's defaults
    assert (tmp_path / "runs" / "dpo" / "model.safetensors").is_file()
