"""Build the demo's data: `python data/demo/build.py` reads written/*.jsonl and writes train, heldout and truth.

written/ holds pairs written for this project, each with the answer its writer meant to be better. Truth is mechanical:
a pair's labels are swapped where hash(id, seed) < 0.3. truth.jsonl says which; only `rmo/demo.py` reads it.
Held-out labels are never swapped. Near-ties are pairs of paraphrases.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rmo_train.store.id_hash import fractions

HERE = Path(__file__).parent
SEED = 42
FLIP_RATE = 0.3


def written() -> Iterator[dict[str, Any]]:
    """The written pairs, files and lines in order."""
    for path in sorted((HERE / "written").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield {"topic": path.stem, **json.loads(line)}


def answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def build() -> dict[str, list[dict[str, Any]]]:
    """The rows of each file, by name."""
    files: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": [], "truth": []}
    pairs = list(written())
    ids = pa.array([pair["id"] for pair in pairs])
    draws = fractions("flip", SEED, ids)
    for row in np.argsort(fractions("order", SEED, ids)):  # topics mixed
        pair, held_out = pairs[row], pairs[row]["split"] == "heldout"
        flipped = not held_out and bool(draws[row] < FLIP_RATE)
        chosen, rejected = (pair["worse"], pair["better"]) if flipped else (pair["better"], pair["worse"])
        files["heldout" if held_out else "train"].append(
            {
                "id": pair["id"],
                "topic": pair["topic"],
                "prompt": pair["prompt"],
                "chosen": answer(chosen),
                "rejected": answer(rejected),
            }
        )
        files["truth"].append(
            {"id": pair["id"], "flipped": flipped, "tie": pair["kind"] == "tie", "flaw": pair["flaw"]}
        )
    return files


def main() -> None:
    for name, rows in build().items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (HERE / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{name}: {len(rows)} rows")


if __name__ == "__main__":
    main()
