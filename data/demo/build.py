"""Build the demo's data: `python data/demo/build.py` reads written/*.jsonl and writes train, heldout and truth.

written/ holds pairs written for this project, each with the answer its writer meant to be better. Truth is mechanical:
a pair's labels are swapped where hash(id, seed) < 0.2. truth.jsonl says which; only the demo's scorecard reads it.
Held-out labels are never swapped. Near-ties are pairs of paraphrases.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rmo_train.tables import fraction_of_hash

HERE = Path(__file__).parent
SEED = 42
FLIP_RATE = 0.2


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
    for pair in sorted(written(), key=lambda pair: fraction_of_hash("order", SEED, pair["id"])):  # topics mixed
        held_out = pair["split"] == "heldout"
        flipped = not held_out and fraction_of_hash("flip", SEED, pair["id"]) < FLIP_RATE
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
