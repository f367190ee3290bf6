"""Reference log-probs for data without any: computed once with the untrained policy before step 0, and kept.

Until the first update, the policy is its own reference, in full training and with a new adapter. So references cost one
forward pass over the data, and no second model in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_train.console.progress import progress, say
from rmo_train.data.pairs import PairData
from rmo_train.evaluation.evaluate import logps_in_parts
from rmo_train.forward.distributed import ALONE, World
from rmo_train.forward.layout import Layout
from rmo_train.forward.logps import margin_sd, pair_logps
from rmo_train.report import references_missing
from rmo_train.store.manifests import (
    Reference,
    ReferencesManifest,
    is_intact,
    read_manifest,
    require_manifest,
)
from rmo_train.store.tables import read_table, write_table

SCHEMA = pa.schema([("id", pa.string()), ("ref_chosen_logps", pa.float64()), ("ref_rejected_logps", pa.float64())])
NOISE_PAIRS = 16


def with_references(
    data: PairData, model: Any, layout: Layout, folder: Path, reference: Mapping[str, str], world: World = ALONE
) -> PairData:
    """`data` with reference log-probs: its own if it has them, otherwise those of `model`, which must be untrained.

    `reference`: name, weights_sha256 and dtype of the model. The log-probs are kept in `folder`, so a resumed run reads
    bit-identical numbers. Every process of `world` takes part.
    """
    if data.has_references:
        return data
    key = {"data": data.fingerprint, **reference}
    manifest = read_manifest(folder, ReferencesManifest)
    if manifest is None or manifest.key != key or not all(is_intact(folder, part) for part in manifest.parts):
        say(references_missing(data.folder, folder))
        logps, noise_sd = _compute(data, model, layout, world)
        if world.is_main:
            _write(data, logps, noise_sd, folder, key, {**reference, **layout.computed_by})
        world.wait()
        manifest = require_manifest(folder, ReferencesManifest, "rmo-train run")
    table = read_table(folder, manifest, SCHEMA)
    computed = manifest.reference.model_dump(exclude_none=True)
    about = {"reference": data.reference.model_copy(update=computed), "noise_sd": manifest.noise_sd}
    assert data.manifest is not None, data.folder  # of a run or of shards
    return replace(
        data,
        manifest=data.manifest.model_copy(update=about),
        ref_chosen=table["ref_chosen_logps"].to_numpy(),
        ref_rejected=table["ref_rejected_logps"].to_numpy(),
    )


def _compute(data: PairData, model: Any, layout: Layout, world: World) -> tuple[np.ndarray, float]:
    """Log-probs of every pair under `model`, [n, 2], and the noise: sd of D between packings, nats."""
    was_training = model.training
    model.eval()
    try:
        total = int((data.prompt.lengths + data.chosen.lengths + data.rejected.lengths).sum())
        with progress("references", total, "token") as bar:
            logps = logps_in_parts(model, data, layout, bar.advance, world)
        rows = data.spread(NOISE_PAIRS)
        return logps, margin_sd(logps[rows], pair_logps(model, data, rows, layout))
    finally:
        model.train(was_training)


def _write(
    data: PairData,
    logps: np.ndarray,
    noise_sd: float,
    folder: Path,
    key: Mapping[str, str],
    reference: Mapping[str, str],
) -> None:
    columns = [pa.array([str(i) for i in data.ids]), *(pa.array(np.ascontiguousarray(c)) for c in logps.T)]
    part = write_table(folder / "logps.parquet", pa.table(columns, schema=SCHEMA), SCHEMA, folder)
    manifest = ReferencesManifest(
        key=dict(key),
        counts={"pairs": len(data)},
        parts=(part,),
        reference=Reference(**reference, engine="transformers"),
        noise_sd={"base": noise_sd},
    )
    manifest.write(folder)
