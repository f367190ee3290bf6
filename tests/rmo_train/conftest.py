"""`make_shards`: a shard folder of random token ids whose reference columns are a tiny model's own log-probs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rmo_train.forward.layout import Layout
from rmo_train.forward.logps import response_logps
from rmo_train.forward.packing import Tree
from rmo_train.model.policy import identity, load_model
from rmo_train.store.manifests import Reference, ShardsManifest
from rmo_train.store.tables import PAIR_SCHEMA, SHARD_COLUMNS, with_columns, write_table

SCHEMA = with_columns(PAIR_SCHEMA, SHARD_COLUMNS)


@pytest.fixture(scope="session")
def make_shards(tiny_model_folder: Path) -> Callable[..., Path]:
    """make_shards(folder, n=24, end=True, start=0, softness=0, **columns): shards of n pairs; `columns` replace
    computed ones."""

    def make(
        folder: Path,
        n: int = 24,
        *,
        end: bool = True,
        start: int = 0,
        dtype: str = "float32",
        softness: float = 0.0,
        **columns,
    ) -> Path:
        rng = np.random.default_rng(start)

        def draw(low: int, high: int) -> list[np.ndarray]:
            return [rng.integers(5, 300, int(rng.integers(low, high))).astype(np.int32) for _ in range(n)]

        prompts, chosen, rejected = draw(3, 9), draw(2, 12), draw(2, 12)
        trees = [
            Tree(p, (c, r), (2 * i, 2 * i + 1))
            for i, (p, c, r) in enumerate(zip(prompts, chosen, rejected, strict=True))
        ]
        model = load_model(str(tiny_model_folder), dtype)
        logps = response_logps(model, trees, 2 * n, Layout("rows", 256)).reshape(n, 2)
        moved = logps + rng.normal(0, 3, (n, 2))
        steps = [logps, moved] if end else [logps]
        rows = {
            "id": [f"pair-{start + i}" for i in range(n)],
            "prompt": [[{"role": "user", "content": f"question {start + i}"}] for i in range(n)],
            "chosen": [[{"role": "assistant", "content": "yes"}]] * n,
            "rejected": [[{"role": "assistant", "content": "no"}]] * n,
            "tools": [None] * n,
            "chat_template_kwargs": [None] * n,
            "prompt_ids": prompts,
            "chosen_ids": chosen,
            "rejected_ids": rejected,
            "tokens_sha": [f"{start + i}" for i in range(n)],
            "chosen_tokens": [len(c) for c in chosen],
            "rejected_tokens": [len(r) for r in rejected],
            "flags": [[]] * n,
            "source_file": ["pairs.jsonl"] * n,
            "source_line": [start + i + 1 for i in range(n)],
            "chosen_logps": [[float(s[i, 0]) for s in steps] for i in range(n)],
            "rejected_logps": [[float(s[i, 1]) for s in steps] for i in range(n)],
            "margins": [[float(s[i, 0] - s[i, 1]) for s in steps] for i in range(n)],
            "ref_chosen_logps": logps[:, 0],
            "ref_rejected_logps": logps[:, 1],
            "suspicion": np.zeros(n),
            "weight": np.ones(n),
            "label_confidence": np.ones(n),
        } | columns
        part = write_table(
            folder / "data" / "train-00000-of-00001.parquet", pa.table(rows, schema=SCHEMA), SCHEMA, folder
        )
        model_identity = asdict(identity(str(tiny_model_folder)))
        ShardsManifest(
            key={},
            counts={"pairs": n, "kept": n},
            parts=(part,),
            reference=Reference(**model_identity, dtype=dtype, engine="transformers"),
            checkpoints=("base", "oof-4") if end else ("base",),
            end="oof-4" if end else None,
            softness=softness,
            noise_sd={"base": 1e-6},
        ).write(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def shards(make_shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pairs with a trajectory end. Read only."""
    return make_shards(tmp_path_factory.mktemp("shards") / "shards")
