"""The demo's data is what its script says: mechanical truth, balanced lengths, no prompt on both sides."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from rmo_train.store.files import canonical_json
from rmo_train.store.id_hash import fractions

DEMO = Path(__file__).parents[2] / "data" / "demo"


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("demo_build", DEMO / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_script_makes(build):
    made = build.build()
    assert {name: rows(name) for name in made} == made


def test_there_are_enough_pairs_of_several_topics_and_turns():
    train, heldout = rows("train"), rows("heldout")
    assert len(train) >= 240
    assert len(heldout) >= 120
    assert len({row["topic"] for row in train}) >= 10
    assert sum(len(row["prompt"]) > 1 for row in train) >= 30


def test_labels_are_swapped_by_hash_alone_and_only_in_training(build):
    truth = {row["id"]: row for row in rows("truth")}
    ids = [row["id"] for row in rows("train")]
    drawn = fractions("flip", build.SEED, pa.array(ids)) < build.FLIP_RATE
    assert [truth[i]["flipped"] for i in ids] == drawn.tolist()
    assert not any(truth[row["id"]]["flipped"] for row in rows("heldout"))


def test_no_prompt_is_on_both_sides():
    train, heldout = ({canonical_json(row["prompt"]) for row in rows(name)} for name in ("train", "heldout"))
    assert not train & heldout


def test_the_better_answer_is_longer_in_about_half(build):
    for split in ("train", "heldout"):
        pairs = [p for p in build.written() if p["split"] == split]
        longer = sum(len(p["better"].split()) > len(p["worse"].split()) for p in pairs)
        assert 0.45 <= longer / len(pairs) <= 0.55


def test_answers_have_5_to_120_tokens(build, smollm2_tokenizer):
    counts = Counter()
    for pair in build.written():
        for side in ("better", "worse"):
            n = len(smollm2_tokenizer(pair[side], add_special_tokens=False)["input_ids"])
            counts["ok" if 4 <= n <= 120 else f"{pair['id']}.{side}: {n}"] += 1
    assert set(counts) == {"ok"}
