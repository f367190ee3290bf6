"""The embedded 135M model: packed scores equal a plain padded forward, and TRL trains on a shard folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from datasets import Dataset

pytestmark = pytest.mark.real

DEMO = Path(__file__).parents[2] / "data" / "demo"


def test_scores_of_32_pairs_equal_a_plain_padded_forward(smollm2: str, tmp_path: Path):
    import torch

    from rmo_curate.score.command import run_score
    from rmo_curate.score.settings import ProxySettings, ScoreSettings
    from rmo_train.data.pairs import open_pairs
    from rmo_train.model.policy import load_model

    settings = ScoreSettings(dtype="float32", limit=32)
    run_score([str(DEMO / "train.jsonl")], smollm2, tmp_path / "run", settings, ProxySettings(kind="none"))
    data = open_pairs(tmp_path / "run")
    # In float64: of two computations in float32, some CPUs' padded one was 1.1e-5 nats per token off, ours 4e-6.
    model = load_model(smollm2, "float32").double()
    for i in range(len(data)):
        rows = [np.concatenate([data.prompt[i], response]) for response in (data.chosen[i], data.rejected[i])]
        tokens = torch.zeros(2, max(map(len, rows)), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for k, row in enumerate(rows):
            tokens[k, : len(row)] = torch.from_numpy(row.astype(np.int64))
            mask[k, : len(row)] = 1
        with torch.inference_mode():
            logps = model(input_ids=tokens, attention_mask=mask).logits.log_softmax(-1)
        start = len(data.prompt[i])
        for k, scored in enumerate((data.ref_chosen[i], data.ref_rejected[i])):
            expected = sum(float(logps[k, at - 1, rows[k][at]]) for at in range(start, len(rows[k])))
            assert scored == pytest.approx(expected, abs=1e-5 * len(rows[k]))


def trained_loss(model: str, data: Dataset, out: Path, *, steps: int, batch_size: int) -> float:
    """The mean loss of a few steps of TRL's DPOTrainer on the CPU."""
    from trl import DPOConfig, DPOTrainer

    from rmo_train.model.policy import load_model, load_tokenizer

    config = DPOConfig(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        report_to=[],
        use_cpu=True,
        bf16=False,
        save_strategy="no",
    )
    trainer = DPOTrainer(
        model=load_model(model, "float32"), args=config, train_dataset=data, processing_class=load_tokenizer(model)
    )
    return trainer.train().training_loss


def test_a_shard_folder_opens_with_datasets_and_trains_with_trl(tiny_model_folder: Path, tmp_path: Path):
    from datasets import load_dataset

    from rmo_curate.filter.command import FilterSettings, run_filter
    from rmo_curate.score.command import run_score
    from rmo_curate.score.settings import ProxySettings, ScoreSettings

    name = str(tiny_model_folder)
    settings = ScoreSettings(dtype="float32", limit=40)
    run_score([str(DEMO / "train.jsonl")], name, tmp_path / "run", settings, ProxySettings(kind="lora", batch_size=8))
    run_filter(tmp_path / "run", tmp_path / "shards", FilterSettings())
    shards = load_dataset(str(tmp_path / "shards"), split="train", cache_dir=str(tmp_path / "cache"))
    kept = json.loads((tmp_path / "shards" / "manifest.json").read_text())["counts"]["kept"]
    assert len(shards) == kept
    assert {"prompt", "chosen", "rejected", "ref_chosen_logps", "margins"} <= set(shards.column_names)
    messages = shards.select_columns(["prompt", "chosen", "rejected"])
    assert np.isfinite(trained_loss(name, messages, tmp_path / "trl", steps=2, batch_size=2))


def test_an_export_for_trl_opens_with_datasets_and_trains_with_trl(tiny_model_folder: Path, tmp_path: Path):
    """Several messages in a prompt and in a response, tools, and settings for the template."""
    from datasets import load_dataset

    from rmo_curate.export.command import run_export
    from rmo_curate.export.formats import Trainer
    from rmo_curate.filter.command import FilterSettings, run_filter
    from rmo_curate.score.command import run_score
    from rmo_curate.score.settings import ProxySettings, ScoreSettings

    rows = [json.loads(line) for line in (DEMO / "train.jsonl").read_text().splitlines()[:16]]
    several = [{"role": "assistant", "content": "Which one?"}, {"role": "user", "content": "The first."}]
    rows[1]["chosen"] = [*several, *rows[1]["chosen"]]
    rows[2]["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    for i, row in enumerate(rows):
        row["chat_template_kwargs"] = {"enable_thinking": i % 2 == 0}
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = str(tiny_model_folder)
    settings = ScoreSettings(dtype="float32")
    run_score([str(tmp_path / "pairs.jsonl")], name, tmp_path / "run", settings, ProxySettings(kind="none"))
    run_filter(tmp_path / "run", tmp_path / "shards", FilterSettings(rule="none", low_q=0))
    run_export(tmp_path / "shards", Trainer.TRL, tmp_path / "trl")
    data = load_dataset(str(tmp_path / "trl"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == len(rows)
    assert {"prompt", "chosen", "rejected", "tools", "chat_template_kwargs"} <= set(data.column_names)
    assert np.isfinite(trained_loss(name, data, tmp_path / "out", steps=1, batch_size=4))
