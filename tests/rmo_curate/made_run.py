"""Run folders with the margins that a test wants, written by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rmo_curate.runs.manifests import RejectsManifest, TrainedManifest
from rmo_train.store import files, tables
from rmo_train.store.manifests import (
    Checkpoint,
    InputFile,
    Manifest,
    PairsManifest,
    Reference,
    RunManifest,
    ScoresManifest,
)

REJECTED_LOGP = -64.0  # far below zero, and a power of two: margins such as 1.25 come back exactly


def checkpoint_entry(name: str) -> dict[str, Any]:
    """The manifest entry of a checkpoint, told from its name: base, oof-16, insample-8, oof-key-16, or a user's."""
    family, _, step = name.rpartition("-")
    kind = "base" if name == "base" else "proxy" if family.split("-")[0] in ("oof", "insample") else "user"
    proxy = kind == "proxy"
    cross = family.startswith("oof")
    return {
        "name": name,
        "kind": kind,
        "family": family if proxy else None,
        "step": int(step) if proxy else None,
        "folds": (2 if cross else 1) if proxy else None,
        "held_out": cross if proxy else None,
        "noise_sd": 0.01,
    }


def pair_row(i: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the pairs table: defaults, then `given`; a string is one message, a token count makes its ids."""
    row: dict[str, Any] = {
        "id": f"p{i}",
        "prompt": f"question {i}?",
        "chosen": f"good answer {i}",
        "rejected": f"bad answer {i}",
        "tools": None,
        "chat_template_kwargs": None,
        "chosen_tokens": 4,
        "rejected_tokens": 4,
        "flags": [],
    } | dict(given)
    for name, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
        if isinstance(row[name], str):
            row[name] = [{"role": role, "content": row[name]}]
    row.setdefault("prompt_ids", [1, i + 10, 2])
    row.setdefault("chosen_ids", [3] * row["chosen_tokens"])
    row.setdefault("rejected_ids", [4] * row["rejected_tokens"])
    tokens = [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]]
    row.setdefault("tokens_sha", files.sha256_text(files.canonical_json(tokens)))
    return row


INPUTS = (InputFile(name="train.jsonl", bytes=100, sha256="ab" * 32),)
FORM = "trl-conversational"


def write_parts(
    folder: Path, of: type[Manifest], rows: list[dict[str, Any]], schema: pa.Schema, part_size: int, **of_kind: Any
) -> None:
    writer = tables.PartWriter(folder, of, {"made_for": "a test"}, schema)
    for part, start in enumerate(range(0, len(rows), part_size)):
        writer.write(f"part-{part:05d}.parquet", pa.Table.from_pylist(rows[start : start + part_size], schema))
    counted = of.model_fields["stage"].default
    writer.finish({"pairs": len(rows), counted: len(rows)}, **of_kind)


def write_run(
    folder: Path,
    margins: Mapping[str, Sequence[float]] | None = None,
    *,
    logps: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    groups: Sequence[str] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    too_long: Sequence[int] = (),
    rejects: Sequence[Mapping[str, Any]] = (),
    extra: Mapping[str, Sequence[Any]] | None = None,
    part_size: int = 4,
) -> Path:
    """A run folder with the margins given: write_run(folder, {"base": D_0, "oof-16": D_T}) -> the folder.

    margins: checkpoint name -> one margin D (nats) per pair; the rejected response always scores REJECTED_LOGP.
    logps:   checkpoint name -> one (chosen_logp, rejected_logp) per pair, instead of margins.
    groups:  a prompt's name for each pair, as the proxies' split has it (default: each its own).
    rows:    per pair, columns to set (id, prompt, chosen, rejected, flags, chosen_tokens, tokens_sha, ...).
    too_long, rejects, extra (source column -> values), part_size: as they say.
    A too_long pair's score is not written.
    """
    scores = dict(logps or {})
    for checkpoint, values in (margins or {}).items():
        scores[checkpoint] = [(REJECTED_LOGP + d, REJECTED_LOGP) for d in values]
    n = len(next(iter(scores.values())))
    pairs = [pair_row(i, rows[i] if i < len(rows) else {}) for i in range(n)]
    for i in too_long:
        pairs[i]["flags"] = [*pairs[i]["flags"], "too_long"]
    schema = tables.PAIR_SCHEMA
    for column, values in (extra or {}).items():
        schema = tables.with_columns(schema, [pa.field(column, pa.array(values).type)])
        for pair, value in zip(pairs, values, strict=True):
            pair[column] = value

    write_parts(folder / "pairs", PairsManifest, pairs, schema, part_size, form=FORM, inputs=INPUTS)
    reject_rows = [{"source": "train.jsonl", "line": n + i + 1} | dict(r) for i, r in enumerate(rejects)]
    write_parts(folder / "rejects", RejectsManifest, reject_rows, tables.REJECT_SCHEMA, part_size)
    entries = [checkpoint_entry(checkpoint) for checkpoint in scores]
    for order, entry in enumerate(entries):
        table = [
            {
                "id": pair["id"],
                "chosen_logp": chosen,
                "rejected_logp": rejected,
                "fold": i % 2 if entry["held_out"] else -1,
                "held_out": entry["held_out"],
            }
            for i, (pair, (chosen, rejected)) in enumerate(zip(pairs, scores[entry["name"]], strict=True))
            if "too_long" not in pair["flags"]
        ]
        table.reverse()  # scores come in their own order: whoever joins them by position fails
        own = folder / "scores" / entry["name"]
        write_parts(own, ScoresManifest, table, tables.SCORE_SCHEMA, part_size + 1, **entry, order=order)
    for family in {entry["family"] for entry in entries if entry["held_out"]}:
        split = [
            {"id": pair["id"], "group": str(groups[i] if groups else i), "fold": i % 2}
            for i, pair in enumerate(pairs)
            if "too_long" not in pair["flags"]
        ]
        write_parts(folder / "proxies" / family, TrainedManifest, split, tables.SPLIT_SCHEMA, n, models={})
    counts = {
        "records": n + len(rejects),
        "pairs": n,
        "rejects": len(rejects),
        "too_long": sum("too_long" in p["flags"] for p in pairs),
        "scorable": sum("too_long" not in p["flags"] for p in pairs),
    }
    reference = Reference(
        name="tiny",
        weights_sha256="01" * 32,
        tokenizer_sha256="02" * 32,
        template_sha256="03" * 32,
        dtype="float32",
        engine="transformers",
    )
    RunManifest(
        inputs=INPUTS,
        form=FORM,
        max_length=1024,
        counts=counts,
        rejects={},
        reference=reference,
        checkpoints=tuple(Checkpoint(**entry) for entry in entries),
        noise_sd={entry["name"]: entry["noise_sd"] for entry in entries},
    ).write(folder)
    return folder
