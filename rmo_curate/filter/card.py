"""The dataset card of a shard folder: README.md with the front matter that makes `load_dataset(SHARDS)` work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from rmo_curate.filter.settings import flags_of
from rmo_train.report import too_long_line
from rmo_train.store.files import canonical_json, sha256_text
from rmo_train.store.manifests import InputFile, PartFile, ShardsManifest

CONFIGS: list[dict[str, Any]] = [
    {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]},
    {"config_name": "dropped", "data_files": [{"split": "train", "path": "dropped/part-*"}]},
]

MEANING = {
    "noisy": "according to the rule, the label is probably wrong",
    "ambiguous": "the margin is close to 0",
    "duplicate": "the same tokens as an earlier pair",
    "decision": "a reviewer's decision",
}


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def described(config: Mapping[str, Any], parts: Sequence[PartFile]) -> dict[str, Any]:
    """`config` with what its files hold, which are `parts`.

    `load_dataset` keeps what it has read, under a key that is made of the front matter and not of the files: without
    their hash in it, shards that were made again in the same folder would be answered with the old ones.
    """
    contents = sha256_text(canonical_json([part.sha256 for part in parts]))
    return {**config, "description": f"{sum(part.rows for part in parts)} pairs, sha256 {contents}"}


def softening(softness: float) -> str:
    if not softness:
        return "`rmo-train run` softens labels by it only with `--soft-labels`"
    by = "it" if softness == 1 else f"`1 - {softness:.2g} (1 - label_confidence)`"
    return f"`rmo-train run` softens labels by {by} unless `--no-soft-labels` is given"


def dataset_card(manifest: ShardsManifest, inputs: Sequence[InputFile]) -> str:
    """README.md for a shard folder with this manifest, made from these input files."""
    counts, settings = manifest.counts, manifest.settings
    kept, dropped = CONFIGS
    configs = [described(kept, manifest.parts), described(dropped, manifest.dropped.parts)]
    front = {"tags": ["dpo", "preference", "rmo"], "configs": configs}
    held_out = {True: "held out", False: "not held out", None: "unknown whether held out"}[manifest.held_out]
    end = f"`{manifest.end}` ({held_out})" if manifest.end else "none"
    options = " ".join(flags_of(settings))
    lines = [
        f"# {counts['kept']:,} preference pairs",
        "",
        "Pairs of a chosen and a rejected response, filtered by their reward margins with `rmo-curate filter`.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'kept = load_dataset("PATH_OF_THIS_FOLDER", split="train")',
        'dropped = load_dataset("PATH_OF_THIS_FOLDER", "dropped", split="train")',
        "```",
        "",
        "## Counts",
        "",
        "| pairs | number | meaning |",
        "|---|---:|---|",
        f"| in all | {counts['pairs']:,} | |",
        f"| kept | {counts['kept']:,} | `data/` |",
        *(f"| {name} | {counts[name]:,} | {meaning}: `dropped/` |" for name, meaning in MEANING.items()),
        f"| not scored: too long | {counts['too_long']:,} | lost to length, not removed by the filter: `dropped/` |",
        "",
        "## How it was made",
        "",
        f"- from: {code(i.name for i in inputs)}",
        f"- scored under: {code(manifest.checkpoints)}; the reference is "
        f"`{manifest.reference.name}`, in {manifest.reference.dtype}",
        f"- end of the trajectory: {end}",
        f"- filtered with: `rmo-curate filter RUN --out SHARDS {options}`",
        *([f"- {too_long_line(manifest.too_long)}"] if manifest.too_long else []),
        *(f"- {name} threshold: {value:.6g}" for name, value in manifest.thresholds.items() if value is not None),
        "",
        "## Columns",
        "",
        "`prompt`, `chosen`, `rejected` are lists of messages. `chosen_logps`, `rejected_logps`, `margins` have one "
        "number (nats, summed over response tokens) per checkpoint in the order above; `ref_chosen_logps` and "
        "`ref_rejected_logps` are the reference's. `suspicion`: higher = more likely a wrong label. `weight` "
        "multiplies a pair's loss. `label_confidence` is the probability that its label is right, 1 if none was "
        f"computed; {softening(manifest.softness)}. Dropped pairs also have `drop_reason`, "
        "`keep_probability` and `draw`, and noisy ones `noisy_because`: the rule, the lowest suspicion that was "
        "dropped, P(label right) and the log-odds that add up to it (null if the rule uses no evidence). "
        "`source_file` and `source_line` say where a pair was read: its line in JSON lines, otherwise the number of "
        "its record, from 1.",
        "",
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n".join(lines)
